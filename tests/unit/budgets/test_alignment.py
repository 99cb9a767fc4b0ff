"""Informative groups, the line between strong and weak pairs, and the figures of an alignment, by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from budgets.evaluation.alignment import measure_alignment
from budgets.evaluation.attempt import Attempt
from budgets.evaluation.informative import informative_at, per_task
from budgets.evaluation.pass_at_k import pass_at_k
from budgets.evaluation.tricks import Figures, advise, pair_of
from rollout.schema import Finish

NAN = float("nan")


def test_pass_at_k_of_sixteen_samples_two_of_them_right() -> None:
    found = [pass_at_k(16, 2, k) for k in (1, 4, 8, 16)]
    assert found == pytest.approx([0.125, 0.45, 0.76667, 1.0], abs=1e-5)


def test_informative_groups_by_hand() -> None:
    assert informative_at(4, 1, 2) == pytest.approx(1 / 2)  # of 6 pairs, 3 hold the right one
    assert informative_at(16, 2, 8) == pytest.approx(0.76667, abs=1e-5)  # no group of 8 is all right
    assert informative_at(8, 0, 4) == informative_at(8, 8, 4) == 0.0
    assert math.isnan(informative_at(3, 1, 4))
    assert per_task(np.asarray([[1.0, NAN, 0.0, 1.0]]), 2)[0] == pytest.approx(2 / 3)


def test_informative_is_the_share_of_groups_with_both_kinds() -> None:
    for size, right in itertools.product(range(2, 8), range(8)):
        right = min(right, size)
        verdicts = [n < right for n in range(size)]
        for group in range(2, size + 1):
            drawn = list(itertools.combinations(verdicts, group))
            share = sum(0 < sum(kinds) < group for kinds in drawn) / len(drawn)
            assert informative_at(size, right, group) == pytest.approx(share)


def figures(**changes: float) -> Figures:
    parts: dict[str, float] = {"k": 32, "pass_low": 0.8, "pass_high": 0.9, "pass_at_1": 0.3, "majority": 0.5}
    parts |= {"informative": 0.4, "group_size": 8} | changes
    return Figures(**parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("k", "low", "high", "pair"),
    [
        (32, 0.70, 0.95, "strong"),
        (32, 0.69, 0.95, "undecided"),
        (32, 0.50, 0.69, "weak"),
        (64, 0.50, 0.69, "weak"),  # pass@32 is below pass@64
        (8, 0.70, 0.80, "strong"),  # pass@32 is above pass@8
        (8, 0.10, 0.17, "weak"),  # and at most four times it: .68
        (8, 0.10, 0.18, "undecided"),
    ],
)
def test_a_pair_is_called_only_where_the_interval_lies_on_one_side(k: int, low: float, high: float, pair: str) -> None:
    assert pair_of(figures(k=k, pass_low=low, pass_high=high)) == pair


def words(**changes: float) -> dict[str, str]:
    return {advice.trick.split()[0]: advice.word for advice in advise(figures(**changes))}


def test_cheap_tricks_are_for_strong_pairs_alone() -> None:
    cheap = ("spurious", "self-rewards", "one-shot", "negative")
    strong, weak, between = words(), words(pass_low=0.2, pass_high=0.3), words(pass_low=0.6, pass_high=0.8)
    assert {strong[name] for name in cheap} == {"can work"}
    assert {weak[name] for name in cheap} == {"do not rely on it"}
    assert {between[name] for name in cheap} == {"undecided"}
    assert {found["RL"] for found in (strong, weak, between)} == {"can work"}


def test_what_the_groups_and_the_votes_say() -> None:
    assert words(majority=0.3)["self-rewards"] == "do not rely on it"  # no better than one answer
    nothing = words(pass_low=0.0, pass_high=0.05, pass_at_1=0.002, informative=0.02)
    assert nothing["RL"] == "undecided" and nothing["supervised"] == "do it first"
    mastered = words(pass_at_1=0.95, informative=0.05)
    assert mastered["RL"] == "do not rely on it" and mastered["supervised"] == "not needed"


def attempt(task: str, sample: int, correct: bool | None) -> Attempt:
    text = f"<think>t</think>{'right' if correct else f'wrong {sample}'}"
    return Attempt(
        task=task,
        source="a" if task < "5" else "b",
        mode="high",
        sample=sample,
        text=text,
        thinking=(7, 8),
        answer=(16, len(text)),
        thinking_tokens=1,
        answer_tokens=1,
        response_tokens=4,
        finish=Finish.STOP,
        status="judged" if correct is not None else "timeout",
        score=None if correct is None else float(correct),
        correct=correct,
    )


def test_the_figures_of_a_small_table() -> None:
    attempts = [attempt(str(task), sample, sample < task) for task in range(10) for sample in range(8)]
    tasks = {str(task): "a" if task < 5 else "b" for task in range(10)}
    levels = {str(task): str(task // 5 * 8 + 2) for task in range(9)}  # 2 and 10; the last names none
    found = measure_alignment(attempts, mode="high", tasks=tasks, levels=levels, group_size=4, seed=0)
    rates = [min(task, 8) / 8 for task in range(10)]
    assert found["pass@1"]["value"] == pytest.approx(np.mean(rates))
    expected = np.mean([pass_at_k(8, min(task, 8), 4) for task in range(10)])
    assert found["pass@k"]["4"]["value"] == pytest.approx(expected, abs=1e-6)
    assert found["tasks_by_rate"] == {"never": 1, "sometimes": 7, "always": 2}
    assert found["by_source"]["a"]["pass@k"]["8"]["value"] == pytest.approx(4 / 5)
    assert list(found["by_level"]) == ["2", "10"]  # by size, not by spelling
    assert found["informative"]["group_size"] == 4
    assert set(found["by_difficulty"]) == {"hard", "medium", "easy"}
    assert found["by_difficulty"]["easy"]["pass@k"]["4"]["value"] > found["by_difficulty"]["hard"]["pass@1"]["value"]
    assert sum(entry["share_of_tasks"] for entry in found["by_difficulty"].values()) == pytest.approx(1.0)
    assert len(found["advice"]) == 6


def test_unjudged_attempts_leave_every_share() -> None:
    attempts = [attempt("1", n, None if n % 2 else n == 0) for n in range(8)]
    found = measure_alignment(attempts, mode="high", tasks={"1": "a"}, levels={}, group_size=8, seed=0)
    assert found["pass@1"]["value"] == 0.25 and found["pass@k"]["8"]["value"] is None
    assert found["num_judged"] == 4 and found["advice"][3]["why"].startswith("such rewards")
    with pytest.raises(ValueError, match="none of the 1 attempts could be judged"):
        measure_alignment([attempt("1", 0, None)], mode="high", tasks={"1": "a"}, levels={}, group_size=2, seed=0)
