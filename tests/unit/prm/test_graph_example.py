"""The step scores of the example `graph_path`, loaded as a recipe's plugin is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launch import plugins
from tests.fakes.rewards import group, task

EXAMPLE = Path(__file__).parents[3] / "examples/graph_path.py"
MAP = {"edges": ["A B", "B C", "C F", "A D", "D F"], "start": "A", "goal": "F"}


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ("A>D\nD>F", [1, 1]),
        ("A > B\nB>C\nC>F", [1, 1, 1]),
        ("A>C\nA>D", [0, 1]),  # the way goes on from the last legal move
        ("D>F", [0]),
        ("go left", [0]),
    ],
)
async def test_a_move_along_an_edge_from_where_the_way_is_scores_one(thinking: str, expected: list[int]) -> None:
    scorer = plugins.load("ponder.steps", f"{EXAMPLE}:start")({}, lambda: None)
    asked = group([(thinking, "A D F")], of=replace(task(), meta=MAP))
    (scores,) = await scorer.score(asked)
    assert scores.scores.tolist() == expected
    assert len(scores.spans) == len(expected)
