"""Worked entropies and tiers, and the two files of `ponder tasks predict`, whose tokens never meet."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from launch.next_token import PredictOptions, make
from launch.texts import outside, passages
from rl.learner.config import ScratchModel
from rl.learner.scratch import build_model
from rollout.tasks.next_token import draw_positions, may_be_task, tiers_of, top_entropy


def test_worked_entropies() -> None:
    """Even odds of two: log 2; three quarters to one: .5623; what lies beyond the k is not counted."""
    odds = np.log([[0.5, 0.5], [0.75, 0.25], [0.3, 0.1], [1.0, 1e-30]])
    assert top_entropy(odds).tolist() == pytest.approx([math.log(2), 0.5623, 0.5623, 0.0], abs=1e-4)
    assert top_entropy(np.asarray([[0.0, -np.inf]])).tolist() == [0.0]


def test_tiers_are_thirds_of_the_uncertain_rest() -> None:
    tiers, edges = tiers_of(np.arange(100.0), skip=0.7, count=3)
    assert [(tiers == t).sum() for t in (-1, 0, 1, 2)] == [70, 10, 10, 10]
    assert edges == pytest.approx([69.3, 79.2, 89.1]) and tiers[99] == 2


def test_only_visible_tokens_with_context_may_be_tasks() -> None:
    assert may_be_task("ab  c", [1, 2, 4, 5], least_context=1).tolist() == [False, True, False, True]


def test_positions_of_a_chunk_have_a_tier() -> None:
    tiers = np.asarray([-1, 0, -1, 2, 1, -1], dtype=np.int8)
    assert draw_positions(tiers, most=9, rng=np.random.default_rng(0)) == [1, 3, 4]
    drawn = [draw_positions(tiers, most=2, rng=np.random.default_rng(n)) for n in range(40)]
    assert {len(d) for d in drawn} == {2} and {p for d in drawn for p in d} == {1, 3, 4}


def test_tasks_and_text_never_meet(tmp_path: Path) -> None:
    model = ScratchModel(characters="0123456789+;=", hidden_size=64, intermediate_size=64, num_heads=2)
    build_model(model, str(tmp_path / "model"), seed=0)
    (tmp_path / "a.txt").write_text("12+34=46;7+8=15;" * 40)
    options = PredictOptions(
        paths=[str(tmp_path / "*.txt")], proxy=tmp_path / "model", out=tmp_path / "out", chunk_tokens=64
    )
    report = make(options, lambda line: None)
    assert report["chunks"] == 10 and report["tokens"] == 640 and sum(report["tasks_by_tier"]) == 40
    tasks = [json.loads(line) for line in (tmp_path / "out.tasks.jsonl").read_text().splitlines()]
    texts = list(passages(tmp_path / "out.texts.jsonl"))
    assert {row["difficulty"] for row in tasks} <= {0, 1, 2} and len(texts) == 10
    assert all(report["entropy_from"][row["difficulty"]] <= row["entropy"] + 1e-4 for row in tasks)
    for number, (text, skip) in enumerate(texts):
        own = [row for row in tasks if row["split_key"] == str(number)]
        assert [(len(r["prompt"]), r["answer"]) for r in own] == [(a, text[a:b]) for a, b in skip]
        learned = outside(list(range(1, len(text) + 1)), skip)
        assert [n for n, is_learned in enumerate(learned) if not is_learned] == [len(r["prompt"]) for r in own]
    again = make(options, lambda line: None)
    assert again == report and [json.loads(x) for x in (tmp_path / "out.tasks.jsonl").read_text().splitlines()] == tasks


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    options = PredictOptions(paths=[str(tmp_path / "none.txt")], proxy=tmp_path, out=tmp_path / "out")
    with pytest.raises(ValueError, match="there is no such file"):
        make(options, lambda line: None)
