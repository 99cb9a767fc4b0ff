"""Chains before they run: stages resolved from one recipe, suites, mistakes, and the page of the matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from budgets.evaluation.forgetting import forgetting_matrix
from launch import recipe
from launch.chain import job
from launch.chain.preference import mean_lengths, read_candidates
from launch.chain.report.page import render_markdown, render_page
from launch.chain.resolve import LATER_MODEL, Chain, dump, load, merged, restored, stage_config
from launch.chain.suites import load_suites, read_suites, save_rows, save_suites
from launch.recipe import RecipeError
from launch.task_splits import load_task_splits
from rl.preference.pairs import Pair
from tests.unit.launch.test_cli import ponder

RECIPES = Path(__file__).parents[3] / "launch/recipes"


def tulu(*overrides: str) -> Chain:
    return load(RECIPES / "tulu.toml", overrides)


def test_stages_are_changes_of_one_recipe() -> None:
    chain = tulu("stages.rlvr.settings.loop.num_steps=7", "settings.run.seed=3")
    assert list(chain.stages) == ["sft", "dpo", "rlvr"]
    sft, dpo, rlvr = chain.stages.values()
    assert sft.sft is not None and sft.model.type == "scratch" and sft.sft.lr == 2e-3  # the recipe's
    assert dpo.sft is None and rlvr.sft is None and rlvr.model.model_dump()["path"] == LATER_MODEL
    assert rlvr.loop.num_steps == 7 and sft.loop.num_steps == 100
    assert {stage.run.seed for stage in chain.stages.values()} == {3}
    assert sft.tasks.train.type == "mixture" and rlvr.tasks.train.type == "procedural"


def test_a_chain_comes_back_from_its_file() -> None:
    chain = tulu()
    again = restored(json.loads(json.dumps(dump(chain))), where="chain.json")
    assert again.config == chain.config and again.stages == chain.stages and list(again.stages) == list(chain.stages)


def test_tables_are_merged_and_another_type_replaces_one() -> None:
    old = {"a": {"type": "x", "n": 1, "m": 2}, "b": {"c": {"d": 1}}}
    assert merged(old, {"a": {"n": 3}, "b": {"c": {"e": 2}}}) == {
        "a": {"type": "x", "n": 3, "m": 2},
        "b": {"c": {"d": 1, "e": 2}},
    }
    assert merged(old, {"a": {"type": "y"}})["a"] == {"type": "y"}
    assert old["a"]["n"] == 1


def test_tasks_of_a_suite_are_kept_out_of_training(tmp_path: Path) -> None:
    small = [
        "settings.tasks.train.num_tasks=400",
        "settings.tasks.held_out.num_tasks=40",
        "settings.evaluate.num_tasks=40",
    ]
    chain = tulu(*small, "suites.longer=none", "suites.differences=none")
    splits = load_task_splits(chain.base.tasks, seed=0)
    shown = {"stolen": splits.train[:5], "held": splits.held_out[:3]}
    save_rows(tmp_path / "suites.jsonl", shown)
    config = stage_config(
        chain.stages["rlvr"], place=tmp_path / "3-rlvr", model=tmp_path / "m", suites=tmp_path / "suites.jsonl"
    )
    left = load_task_splits(config.tasks, seed=0)
    assert {task.key for task in splits.train[:5]}.isdisjoint(task.key for task in left.train)
    assert len(left.overlaps) >= 5 and len(left.train) > 300
    assert config.run.dir == str(tmp_path) and config.run.name == "3-rlvr"
    assert recipe.dump(config)["model"]["path"] == str(tmp_path / "m")


def test_suites_are_kept_as_they_were(tmp_path: Path) -> None:
    suites = load_suites(tulu("suites.sums.limit=5", "suites.longer.limit=4", "suites.differences.limit=3"))
    assert {name: len(tasks) for name, tasks in suites.items()} == {"sums": 5, "longer": 4, "differences": 3}
    assert {task.meta["difficulty"] for task in suites["longer"]} == {7}
    save_suites(tmp_path / "suites", suites)
    assert read_suites(tmp_path / "suites", list(suites)) == suites


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.dpo.optimize.num_steps=0", r"stages\.dpo\.preference\.optimize\.num_steps: Input should be greater"),
        ("stages.dpo.type=ppo", r"stages\.dpo: .*'ppo'"),
        (
            "stages.rlvr.settings.learner.lrr=1",
            r"stage 'rlvr': .*unknown setting learner\.lrr; did you mean learner\.lr",
        ),
        ("stages.sft.settings.sft.num_steps=0", r"stage 'sft': .*num_steps"),
        ("chain.recipe=gone", "there is no recipe at gone"),
        ("suites.sums.tasks=none", "a suite has either tasks .* or a source"),
        ("chain.bogus=1", r"chain\.bogus: Extra inputs"),
    ],
)
def test_a_mistake_is_named_before_anything_starts(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tulu(override)


def test_a_suite_without_tasks_and_a_stage_called_start() -> None:
    with pytest.raises(ValueError, match="suite 'sums': --tasks must be a file"):
        load_suites(tulu("suites.sums.tasks=gone"))
    with pytest.raises(RecipeError, match="a stage cannot be called 'start'"):
        tulu('stages.start={type="rl"}')


def test_chains_and_recipes_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ponder(monkeypatch, "chain", "quickstart") == 2
    assert "is no chain; a recipe is run with ponder train" in capsys.readouterr().err
    assert ponder(monkeypatch, "train", "tulu") == 2
    assert "is a chain of stages; run it with ponder chain" in capsys.readouterr().err
    assert ponder(monkeypatch, "chain", "--resume", str(tmp_path)) == 2
    assert "is no chain: it has no chain.json" in capsys.readouterr().err
    assert ponder(monkeypatch, "chain") == 2
    assert not list(tmp_path.iterdir())


def test_a_new_chain_writes_down_what_it_is(tmp_path: Path) -> None:
    small = [f"chain.dir={tmp_path}", "suites.differences=none", "suites.longer=none", "suites.sums.limit=3"]
    first, second = (job.begin("tulu", small) for _ in range(2))
    assert (first.name, second.name) == ("tulu", "tulu-2")
    assert len((first / "suites.jsonl").read_text().splitlines()) == 3
    assert json.loads((first / "chain.json").read_text())["chain"]["chain"]["recipe"] == "quickstart"


def test_pairs_are_read_from_records_and_described(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no recorded groups"):
        read_candidates(tmp_path)
    found = mean_lengths([Pair(task_key="a", prompt=(1,), chosen=(1, 2), rejected=(3,))])
    assert found == {"chosen_tokens": 2.0, "rejected_tokens": 1.0}


def matrix(suite: str) -> dict[str, Any]:
    rows = {
        "start": {suite: np.asarray([1.0, 0.0, 1.0, 1.0])},
        "<b>": {suite: np.asarray([0.0, 0.0, 1.0, 0.0])},
        "rl": {suite: np.asarray([1.0, 1.0, 1.0, 1.0])},
    }
    header = {"chain": "c|<script>", "mode": "high", "samples": 1, "temperature": 1.0, "num_tasks": {suite: 4}}
    return header | forgetting_matrix(rows, [suite], seed=0)


def test_the_page_shows_drops_and_gains_and_runs_nothing() -> None:
    results = matrix("</td><img src=x>")
    page, text = render_page(results), render_markdown(results)
    assert "<script" not in page and "<img" not in page and "&lt;img" in page
    assert "drop 50.0" in page and "since start" in page and "gain 25.0" in page
    assert page.count("rgba(200, 60, 40") == 1 and "Forgetting after the last row: 0.0 points" in page
    assert "| \\<b\\> | 25.0 %" in text and "c\\|\\<script\\>" in text
