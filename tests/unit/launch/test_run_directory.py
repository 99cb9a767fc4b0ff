"""The run directory: named, numbered, locked, resumable; finished phases are remembered with their seconds."""

import json
from pathlib import Path

import pytest

from launch import recipe, sessions
from launch.model_dir import ModelDirectoryError, check_model
from launch.recipe import RecipeError
from launch.rundir import PhaseLog, RunDirectory, RunDirectoryError

QUICKSTART = "quickstart"


def begin(tmp_path: Path, *overrides: str) -> RunDirectory:
    return sessions.begin(QUICKSTART, [f"run.dir={tmp_path}", "run.name=r", *overrides])[1]


def model_in(path: Path) -> Path:
    path.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (path / name).write_text("{}")
    return path


def test_runs_of_one_name_are_numbered(tmp_path: Path) -> None:
    assert [begin(tmp_path).root.name for _ in range(3)] == ["r", "r-2", "r-3"]


def test_the_resolved_settings_are_kept_with_every_default(tmp_path: Path) -> None:
    saved = json.loads(begin(tmp_path, "sft=none").config.read_text())
    assert saved["sft"] is None
    assert saved["learner"]["weight_decay"] == 0.0


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"cannot create .*file/r: Not a directory; set run\.dir"):
        begin(tmp_path / "file")


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"is not a run directory: it has no config\.json"):
        RunDirectory.open(tmp_path)


def test_two_processes_cannot_work_in_one_run(tmp_path: Path) -> None:
    directory = begin(tmp_path)
    with (
        directory.locked(),
        pytest.raises(RunDirectoryError, match="another process is working in"),
        RunDirectory(directory.root).locked(),
    ):
        pass


def test_a_resumed_run_may_become_longer(tmp_path: Path) -> None:
    directory = begin(tmp_path)
    config, again = sessions.reopen(directory.root, name=None, overrides=["loop.num_steps=777"])
    assert config.loop.num_steps == 777
    assert recipe.load(again.config).loop.num_steps == 777


def test_a_resumed_run_may_name_its_recipe_again(tmp_path: Path) -> None:
    directory = begin(tmp_path)
    same = [f"run.dir={tmp_path}", "run.name=r"]
    sessions.reopen(directory.root, name=QUICKSTART, overrides=same)
    with pytest.raises(RecipeError, match=r"but .*model\.hidden_size.* would change"):
        sessions.reopen(directory.root, name="smollm2", overrides=same)


def test_a_resumed_run_may_not_become_another(tmp_path: Path) -> None:
    directory = begin(tmp_path)
    with pytest.raises(
        RecipeError, match=r"but learner\.lr, run\.seed would change; only loop, cluster, budgets.ceilings may"
    ):
        sessions.reopen(directory.root, name=None, overrides=["learner.lr=1.0", "run.seed=5"])


def test_the_newest_model_is_the_most_trained_one(tmp_path: Path) -> None:
    directory = begin(tmp_path)
    with pytest.raises(RunDirectoryError, match="holds no model yet"):
        directory.newest_model()
    start = model_in(directory.start_model)
    assert directory.newest_model() == start
    late = model_in(directory.checkpoints / "step-000010" / "learner" / "model")
    model_in(directory.checkpoints / "step-000002" / "learner" / "model")
    assert directory.newest_model() == late
    assert directory.newest_model() != model_in(directory.model)
    assert directory.newest_model() == directory.model


def test_evaluating_a_recipe_without_weights_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing to evaluate yet; name a run directory or give --model DIR"):
        sessions.for_evaluation(QUICKSTART, model=None, overrides=[f"run.dir={tmp_path}"])


def test_phases_add_up_over_sessions(tmp_path: Path) -> None:
    PhaseLog(tmp_path / "phases.json").add("train", 10.0, is_done=False)
    log = PhaseLog(tmp_path / "phases.json")
    assert not log.is_done("train")
    log.add("train", 5.0, is_done=True)
    assert PhaseLog(tmp_path / "phases.json").is_done("train")
    assert PhaseLog(tmp_path / "phases.json").seconds("train") == 15.0
    assert log.seconds("never") == 0.0


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"has no config\.json: not a Hugging Face model directory"),
        ("model.safetensors", r"has no weights .*: an interrupted download or a bare configuration; fetch"),
        ("tokenizer.json", r"has no tokenizer"),
    ],
)
def test_an_incomplete_model_directory_is_refused(tmp_path: Path, missing: str, message: str) -> None:
    model = model_in(tmp_path / "model")
    check_model(model, setting="model.path")
    (model / missing).unlink()
    with pytest.raises(ModelDirectoryError, match=r"model\.path is .*" + message):
        check_model(model, setting="model.path")


def test_a_missing_model_is_told_before_a_run_directory_is_made(tmp_path: Path) -> None:
    with pytest.raises(ModelDirectoryError, match=r"model\.path is .*/gone', which is not a directory; `ponder fetch"):
        sessions.begin("smollm2", [f"run.dir={tmp_path}/runs", f"model.path={tmp_path}/gone"])
    assert not (tmp_path / "runs").exists()
