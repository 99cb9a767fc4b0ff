"""Which attempts meet in a pair, and why others do not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rl.preference.config import PreferenceConfig
from rl.preference.pairs import Candidate, PairSet, build_pairs

PROMPT = (1, 2, 3)


def attempt(is_right: bool | None, length: int, *, first: int = 9, task: str = "a", **changes: object) -> Candidate:
    parts = {"task_key": task, "token_ids": (*PROMPT, *([first] * length)), "num_given": 3, "is_right": is_right}
    return Candidate(**(parts | changes))  # type: ignore[arg-type]


def pairs_of(*candidates: Candidate, **changes: object) -> PairSet:
    options = {"max_per_task": 4, "match": "length", "max_length": 100, "seed": 0} | changes
    return build_pairs(candidates, **options)  # type: ignore[arg-type]


def test_right_and_wrong_attempts_of_near_length_meet() -> None:
    right, wrong = [4, 10], [5, 11, 30]
    found = pairs_of(*(attempt(True, n, first=7) for n in right), *(attempt(False, n) for n in wrong))
    assert sorted((len(p.chosen), len(p.rejected)) for p in found.pairs) == [(4, 5), (10, 11)]
    assert all(p.prompt == PROMPT and set(p.chosen) == {7} and set(p.rejected) == {9} for p in found.pairs)
    assert found.num_tasks == 1 and not found.left_out


def test_each_attempt_is_used_once_and_no_task_outweighs_others() -> None:
    many = [attempt(True, n) for n in range(1, 9)] + [attempt(False, n, first=8) for n in range(1, 9)]
    assert len(pairs_of(*many).pairs) == 4
    assert len(pairs_of(*many, max_per_task=20).pairs) == 8
    few = [attempt(True, 1), attempt(True, 2), attempt(False, 3)]
    assert len(pairs_of(*few).pairs) == 1
    found = pairs_of(*many, max_per_task=20, match="random").pairs
    assert len({p.rejected for p in found}) == 8


def test_the_same_attempts_give_the_same_pairs() -> None:
    many = [attempt(n % 2 == 0, n, task=str(n // 6)) for n in range(1, 30)]
    assert pairs_of(*many) == pairs_of(*many)
    assert pairs_of(*many, match="random", seed=1) != pairs_of(*many, match="random", seed=2)


def test_what_is_no_evidence_makes_no_pair_and_is_counted() -> None:
    found = pairs_of(
        attempt(None, 4),
        attempt(True, 4, is_own=False),
        attempt(True, 98),
        attempt(True, 0),
        attempt(True, 5),
        attempt(False, 5, task="b"),
        attempt(True, 5, task="c"),
        attempt(True, 5, task="c"),  # the same text again
        attempt(False, 6, task="c"),
        attempt(False, 6, task="c"),
    )
    assert len(found.pairs) == 1 and found.num_tasks == 3
    assert found.left_out == {
        "attempt longer than max_length": 1,
        "attempt with tokens put in by force": 1,
        "attempt without a token of its own": 1,
        "attempt without a verdict": 1,
        "task with right answers alone": 1,
        "task with wrong answers alone": 1,
    }


def test_attempts_under_another_prompt_do_not_meet() -> None:
    other = attempt(False, 5, token_ids=(1, 2, 4, 9, 9))
    found = pairs_of(attempt(True, 5), other)
    assert not found.pairs and sum(found.left_out.values()) == 2


def test_a_warm_up_longer_than_the_stage_is_refused() -> None:
    with pytest.raises(ValidationError, match="warmup_steps must be below num_steps, got 10 and 10"):
        PreferenceConfig(num_steps=10, warmup_steps=10)
