"""TOML and overrides in, settings or one clear error out."""

from pathlib import Path
from typing import Any

import pytest

from launch import recipe
from launch.recipe import RecipeError

QUICKSTART = Path(__file__).parents[3] / "launch/recipes/quickstart.toml"


def load(*overrides: str) -> Any:
    return recipe.load(QUICKSTART, overrides)


def test_values_are_typed_by_toml() -> None:
    config = load("learner.lr=2e-4", "evaluate.greedy=false", "learner.betas=[0.8, 0.9]", "run.name=night")
    assert config.learner.lr == 2e-4
    assert config.evaluate.greedy is False
    assert config.learner.betas == (0.8, 0.9)
    assert config.run.name == "night"


def test_later_overrides_win() -> None:
    assert load("loop.num_steps=3", "loop.num_steps=4").loop.num_steps == 4


def test_none_takes_a_setting_or_a_section_away() -> None:
    config = load("sft=none", "budgets.efforts.low.max_thinking_tokens=none")
    assert config.sft is None
    assert config.budgets.efforts["low"].max_thinking_tokens is None


def test_another_type_starts_its_table_anew() -> None:
    config = load("prm.type=none", "credit.type=dr_grpo")
    assert config.prm.type == "none"
    assert config.credit.process is None


def test_overriding_does_not_change_what_was_read() -> None:
    tables = recipe.read(QUICKSTART)
    recipe.apply(tables, ["loop.num_steps=1"])
    assert tables["loop"]["num_steps"] != 1


def test_the_resolved_settings_read_back_as_themselves(tmp_path: Path) -> None:
    config = load()
    assert recipe.check(recipe.dump(config), where="again") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.lrr=1e-4", r"unknown setting learner\.lrr; did you mean learner\.lr\?"),
        ("learner.epsilon=2", r"unknown setting learner\.epsilon; did you mean credit\.epsilon\?"),
        ("credit.process.wieght=1", r"unknown setting credit\.process\.wieght; did you mean credit\.process\.weight\?"),
        ("model.hiden_size=2", r"unknown setting model\.hiden_size; did you mean model\.hidden_size\?"),
        ("budgets.efforts.high.wieght=1", r"did you mean budgets\.efforts\.high\.weight\?"),
        ("learner.lr=fast", r"learner\.lr = 'fast': Input should be a valid number"),
        ("learner.lr=-1", r"learner\.lr = -1: Input should be greater than 0"),
        ("foo.bar=1", r"unknown setting foo; the settings there are .*learner"),
        ("model.type=path", r"model\.path is required and not set"),
        ("prm.type=learned", r"prm: Input tag 'learned'.* 'none', 'exact', .*'plugin'"),
        ("lr=3", r"must read section\.key=value"),
        ("learner.lr", r"must read section\.key=value"),
        ("loop.num_steps.x=3", r"loop\.num_steps is a value, not a table"),
    ],
)
def test_a_mistake_is_one_clear_error(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(override)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RecipeError, match=r"unknown setting learner\.lrr.*unknown setting loop\.steps"):
        load("learner.lrr=1", "loop.steps=2")


def test_a_missing_recipe_lists_its_neighbors(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("")
    with pytest.raises(RecipeError, match=r"there is no recipe at .*gone\.toml; recipes there: .*other\.toml"):
        recipe.load(tmp_path / "gone.toml")


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[run]\nname = \n")
    with pytest.raises(RecipeError, match=r"not valid TOML: .*line 2"):
        recipe.load(tmp_path / "broken.toml")


def test_tasks_may_keep_their_seed_while_the_run_changes_its_own() -> None:
    from launch.evaluation.settings import EvalSettings

    assert EvalSettings.of(load("run.seed=3")).seed == 3
    assert EvalSettings.of(load("run.seed=3", "tasks.seed=1")).seed == 1
