"""Other domains beside the one that is trained, spelled out in the sections that a run reads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from launch import recipe
from launch.build import build_sampler
from launch.config import RunConfig
from launch.general_tasks import spelled_out
from launch.recipe import RecipeError
from launch.task_splits import load_task_splits

QUICKSTART = Path(__file__).parents[3] / "launch/recipes/quickstart.toml"
DIFFERENCES = 'tasks.general.sources={differences={type="procedural", name="differences", num_tasks=200}}'
CHARACTERS = "model.characters=0123456789+-;="


def load(*overrides: str) -> RunConfig:
    return recipe.load(QUICKSTART, [CHARACTERS, "tasks.train.num_tasks=600", *overrides])


def test_a_domain_becomes_a_part_of_the_mixture_with_its_share() -> None:
    config = load(DIFFERENCES, "tasks.general.share=0.2")
    assert config.tasks.general is None and config.tasks.train.type == "mixture"
    assert list(config.tasks.train.sources) == ["target", "differences"]
    sampler: Any = config.sampling.sampler
    assert sampler.shares == pytest.approx({"target": 0.8, "differences": 0.2}) and sampler.inner.type == "uniform"
    assert config.mix.reweight is not None and config.mix.reweight.over == ("domains",)
    assert config.mix.demonstrations is None


def test_the_resolved_settings_are_their_own_recipe() -> None:
    config = load(DIFFERENCES)
    assert recipe.check(recipe.dump(config), where="config.json") == config


def test_groups_come_in_these_shares() -> None:
    config = load(DIFFERENCES, "tasks.held_out.num_tasks=100", "evaluate.num_tasks=100", "loop.groups_per_step=40")
    tasks = load_task_splits(config.tasks, seed=0).train
    assert {task.source for task in tasks} == {"target", "differences"}
    sampler = build_sampler(config, tasks)
    drawn = [sampler.next().source for _ in range(80)]
    assert drawn.count("differences") == 20


def test_supervised_replay_learns_from_worked_solutions_always() -> None:
    config = load(DIFFERENCES, "tasks.general.learn=sft", "tasks.general.reweight=false", "rollout.group_size=6")
    shown = config.mix.demonstrations
    assert shown is not None and shown.gate == -1 and shown.gates == {"differences": 6}
    assert config.mix.reweight is None


def test_what_the_recipe_says_already_stays() -> None:
    config = load(
        DIFFERENCES,
        "tasks.general.learn=sft",
        "mix.demonstrations.gate=0",
        "mix.reweight.temperature=1.0",
        "sampling.sampler.type=vade",
    )
    sampler: Any = config.sampling.sampler
    assert config.mix.demonstrations is not None and config.mix.demonstrations.gate == 0
    assert config.mix.reweight is not None and config.mix.reweight.temperature == 1.0
    assert sampler.type == "quotas" and sampler.inner.type == "vade"


def test_shares_of_a_mixture_keep_their_proportions() -> None:
    one = {"type": "procedural", "name": "sums", "num_tasks": 10}
    tables = {
        "tasks": {
            "train": {"type": "mixture", "sources": {"a": one, "b": one}},
            "general": {"share": 0.5, "sources": {"c": one, "d": one}},
        },
        "sampling": {"sampler": {"type": "quotas", "shares": {"a": 3, "b": 1}}, "min_judged": 2},
    }
    before = copy.deepcopy(tables)
    found = spelled_out(tables)
    assert tables == before  # what was given is not changed
    assert found["sampling"]["sampler"]["shares"] == pytest.approx({"a": 0.375, "b": 0.125, "c": 0.25, "d": 0.25})
    assert found["sampling"]["min_judged"] == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['tasks.general.sources={target={type="procedural", name="sums", num_tasks=9}}'], "names target, which"),
        ([DIFFERENCES, 'sampling.sampler={type="plugin", name="x.py:y"}'], "sampling.sampler is a plugin"),
        ([DIFFERENCES, 'sampling.sampler={type="quotas", shares={sums=1.0}}'], "name target, got sums"),
        ([DIFFERENCES, "tasks.general.share=1.0"], r"tasks\.general\.share = 1\.0"),
        ([DIFFERENCES, "tasks.general.bogus=1"], r"unknown setting tasks\.general\.bogus"),
        (["tasks.general.share=0.1"], r"tasks\.general\.sources is required"),
    ],
)
def test_a_mistake_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(*overrides)
