"""Statistics of thinking modes, by worked numbers and by properties."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.evaluation import intervals
from budgets.evaluation.act import act_scores
from budgets.evaluation.adherence import adherence
from budgets.evaluation.attempt import Attempt, AttemptTable
from budgets.evaluation.calibration import calibration
from budgets.evaluation.difficulty import UNKNOWN, difficulty_bins, success_elsewhere
from budgets.evaluation.frontier import area_under, pareto
from budgets.evaluation.leak import LeakDetector
from budgets.evaluation.majority import canonical, majority_at_k
from budgets.evaluation.pass_at_k import ladder, pass_at_k, per_task
from budgets.self_assessment import tag_of
from rollout.schema import Finish

NAN = math.nan


def attempt(**changes: Any) -> Attempt:
    parts: dict[str, Any] = {
        "task": "a",
        "source": "s",
        "mode": "high",
        "sample": 0,
        "text": "<think>hm</think>7",
        "thinking": (7, 9),
        "answer": (17, 18),
        "thinking_tokens": 2,
        "answer_tokens": 1,
        "response_tokens": 5,
        "finish": Finish.STOP,
        "status": "judged",
        "score": 1.0,
        "correct": True,
    }
    return Attempt(**(parts | changes))


# ------------------------------------------------------------------------------------------------ pass@k, majority@k


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(4, 1, 1) == pytest.approx(1 / 4)
    assert pass_at_k(4, 1, 2) == pytest.approx(1 - 3 / 6)  # C(3,2) / C(4,2)
    assert pass_at_k(5, 2, 3) == pytest.approx(1 - 1 / 10)
    assert pass_at_k(5, 0, 5) == 0.0
    assert pass_at_k(5, 3, 3) == 1.0
    assert math.isnan(pass_at_k(2, 1, 3))
    with pytest.raises(ValueError, match="0 <= correct <= judged"):
        pass_at_k(2, 3, 1)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one() -> None:
    for size, right in itertools.product(range(1, 8), range(8)):
        verdicts = [n < right for n in range(size)]
        for k in range(1, size + 1):
            subsets = list(itertools.combinations(verdicts, k))
            assert pass_at_k(size, sum(verdicts), k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_unjudged_samples_are_not_wrong() -> None:
    assert per_task(np.asarray([[1.0, NAN, 0.0, NAN]]), 1).tolist() == [0.5]
    assert math.isnan(per_task(np.asarray([[1.0, NAN, 0.0, NAN]]), 4)[0])
    assert ladder(6) == [1, 2, 4, 6] and ladder(1) == [1] and ladder(0) == []


def test_majority_by_hand() -> None:
    votes, right = ["7", "7", "8"], [True, True, False]
    assert majority_at_k(votes, right, 3, seed=0) == 1.0
    assert majority_at_k(votes, right, 1, seed=0) == pytest.approx(2 / 3)
    assert majority_at_k(votes, right, 2, seed=0) == pytest.approx((1 + 0.5 + 0.5) / 3)  # {7,7} {7,8} {7,8}
    assert majority_at_k(["", "", "7"], [False, False, True], 3, seed=0) == 1.0  # no answer has no vote
    assert majority_at_k(["", ""], [False, False], 2, seed=0) == 0.0
    assert math.isnan(majority_at_k(votes, right, 4, seed=0))
    assert majority_at_k(["7"] * 20, [True] * 20, 10, seed=0) == 1.0  # more subsets than are counted


def test_answers_that_read_the_same_are_one_candidate() -> None:
    assert canonical("It is \\boxed{ \\frac{1}{2} }.") == "\\frac{1}{2}"
    assert canonical(" Paris\n. ") == "paris"
    assert canonical("\\boxed{open") == "\\boxed{open"
    assert canonical("\\boxed{1} no, \\boxed{2}") == "2"


# ------------------------------------------------------------------------------------------------ intervals


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).binomial(1, 0.3, 400).astype(float)
    found = intervals.mean(values, seed=1, is_share=True)
    half = 1.96 * values.std() / 20
    assert found.value == values.mean()
    assert found.low == pytest.approx(values.mean() - half, abs=0.01)
    assert found.high == pytest.approx(values.mean() + half, abs=0.01)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for seed in range(200):
        found = intervals.mean(rng.binomial(4, 0.6, 80) / 4, seed=seed, is_share=True)
        hits += found.low <= 0.6 <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(3)
    skill = rng.random(200)
    a, b = skill + 0.05 + 0.01 * rng.standard_normal(200), skill
    difference, ratio = intervals.paired(a, b, seed=0)
    assert difference.low < difference.value < difference.high
    assert difference.high - difference.low < 0.01
    apart = intervals.mean(a, seed=0)
    assert apart.high - apart.low > 0.05
    assert ratio.value == pytest.approx(a.mean() / b.mean())


def test_tasks_that_one_mode_lacks_leave_the_comparison() -> None:
    difference, ratio = intervals.paired(np.asarray([1.0, NAN, 0.0]), np.asarray([0.0, 1.0, NAN]), seed=0)
    assert difference.value == 1.0 and math.isnan(ratio.value)
    nothing, _ = intervals.paired(np.asarray([NAN]), np.asarray([1.0]), seed=0)
    assert math.isnan(nothing.value)
    assert math.isnan(intervals.mean(np.asarray([NAN]), seed=0).value)


def test_a_perfect_score_is_not_certain() -> None:
    perfect = intervals.mean(np.ones(10), seed=0, is_share=True)
    assert (perfect.value, perfect.high) == (1.0, 1.0) and perfect.low == pytest.approx(0.025**0.1)
    assert intervals.mean(np.zeros(10), seed=0, is_share=True).high == pytest.approx(1 - 0.025**0.1)


def test_a_pooled_mean_weighs_attempts() -> None:
    found = intervals.pooled_mean(np.asarray([3.0, 0.0, 0.0]), np.asarray([3.0, 1.0, 0.0]), seed=0)
    assert found.value == 0.75 and found.low >= 0 and found.high <= 1
    assert math.isnan(intervals.pooled_mean(np.zeros(2), np.zeros(2), seed=0).value)


# ------------------------------------------------------------------------------------------------ frontier, ACT


def test_the_frontier_leaves_out_what_is_dominated() -> None:
    points = {"low": (10.0, 0.4), "medium": (20.0, 0.7), "high": (40.0, 0.9), "512": (30.0, 0.6)}
    assert pareto(points) == ["low", "medium", "high"]
    assert pareto({"a": (1.0, 0.5), "b": (1.0, 0.5), "c": (2.0, 0.5)}) == ["a", "b"]


def test_the_area_by_hand() -> None:
    points = {"low": (10.0, 0.4), "medium": (20.0, 0.7), "high": (40.0, 0.9)}
    assert area_under(points) == pytest.approx((10 * 0.4 + 20 * 0.7) / 40)
    assert area_under(points, limit=50) == pytest.approx((10 * 0.4 + 20 * 0.7 + 10 * 0.9) / 50)
    assert math.isnan(area_under({})) and math.isnan(area_under({"off": (0.0, 0.5)}))
    assert area_under({"off": (0.0, 0.5), "on": (4.0, 0.9)}) == 0.5


points_strategy = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.integers(0, 9).map(float), st.integers(0, 4).map(float)), min_size=1
)


@given(points_strategy)
def test_frontier_properties(points: dict[str, tuple[float, float]]) -> None:
    kept = pareto(points)
    for name, (x, y) in points.items():  # everything else is beaten or matched by something kept
        assert name in kept or any(points[k][0] <= x and points[k][1] >= y for k in kept)
    accuracies = [points[name][1] for name in kept]
    assert accuracies == sorted(accuracies)
    if max(x for x, _ in points.values()) > 0:
        area = area_under(points)
        assert area == pytest.approx(
            area_under({name: points[name] for name in kept}, limit=max(x for x, _ in points.values()))
        )


def test_the_act_score_of_a_model_exactly_on_its_goals() -> None:
    base = (1000.0, 0.8)
    points = {"high": base, "medium": (500.0, 0.72), "low": (250.0, 0.68)}  # -50 % tokens -10 %, -75 % tokens -15 %
    scores = act_scores(points, ["high", "medium", "low"], base)
    assert scores == pytest.approx({"high": 1.0, "medium": 0.70, "low": 0.80})
    with pytest.raises(ValueError, match="above 0"):
        act_scores(points, ["high"], (0.0, 0.5))


# ------------------------------------------------------------------------------------------------ budget, leak


def test_adherence_by_hand() -> None:
    attempts = [
        attempt(thinking_tokens=4),
        attempt(thinking_tokens=10),
        attempt(thinking_tokens=10, finish=Finish.THINKING_CUT),
        attempt(thinking_tokens=16, answer=None, finish=Finish.LENGTH),
        attempt(finish=Finish.ERROR, thinking_tokens=0),
    ]
    assert adherence(attempts, 10) == {"kept": 0.5, "forced": 0.25, "over": 0.25, "use": 1.0}
    assert adherence([], 10)["kept"] is None


@pytest.mark.parametrize(
    ("text", "answer", "leaks"),
    [
        ("<think>wait</think>7", (19, 20), False),  # reflection belongs into the thinking
        ("Wait, 8", (0, 7), True),
        ("the waiter factually paid", (0, 25), False),
        ("so <think>again", (0, 15), True),
        ("let\n me think", (0, 13), True),
        ("<think>never closed", None, None),
    ],
)
def test_leaks(text: str, answer: tuple[int, int] | None, leaks: bool | None) -> None:
    detector = LeakDetector(("wait", "let me think", "actually"), opening="<think>")
    assert detector.leaks(attempt(text=text, thinking=None, answer=answer)) is leaks


# ------------------------------------------------------------------------------------------------ difficulty, tags


def test_difficulty_comes_from_the_other_half() -> None:
    correct = np.asarray([[[1.0, 0.0, 1.0, 0.0]]])  # even samples right, odd wrong
    assert success_elsewhere(correct)[0, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert difficulty_bins(correct)[0, 0].tolist() == [0, 2, 0, 2]


def test_with_one_sample_difficulty_comes_from_the_other_modes() -> None:
    correct = np.asarray([[[1.0]], [[0.0]], [[1.0]]])
    assert success_elsewhere(correct)[:, 0, 0].tolist() == [0.5, 1.0, 0.5]
    assert difficulty_bins(np.asarray([[[1.0]]]))[0, 0, 0] == UNKNOWN
    assert difficulty_bins(np.asarray([[[1 / 3]], [[NAN]]]))[:, 0, 0].tolist() == [UNKNOWN, 1]


def test_bins_of_pure_noise_are_flat() -> None:
    """Were an attempt part of its own bin, accuracy in the easy bin would be far above one half."""
    correct = np.random.default_rng(0).integers(0, 2, (2, 3000, 2)).astype(float)
    bins = difficulty_bins(correct)
    assert correct[bins == 2].mean() == pytest.approx(0.5, abs=0.03)
    assert correct[bins == 0].mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("text", "thinking", "tag"),
    [
        ("[Easy] 7", None, "easy"),
        ("[HARD]<think>", (13, 13), "hard"),
        ("<think>[easy] hm</think>", (7, 16), "easy"),
        (" [Easy] 7", None, None),
        ("[Easyish]", None, None),
    ],
)
def test_tags(text: str, thinking: tuple[int, int] | None, tag: str | None) -> None:
    assert tag_of(text, thinking) == tag


def test_calibration_by_hand() -> None:
    tags = ["[Easy]", "[Easy]", "[Hard]", "[Hard]", ""]
    attempts = [attempt(text=t, thinking=None, answer=None, correct=bool(i % 2)) for i, t in enumerate(tags)]
    found = calibration(attempts, [1.0, 0.5, 0.0, NAN, 1.0])
    assert found is not None
    assert found["tagged"] == 0.8
    assert found["agreement"] == pytest.approx(2 / 3, abs=1e-6)  # easy/easy, easy/hard, hard/hard
    assert found["correlation"] == pytest.approx(np.corrcoef([1, 1, 0], [1.0, 0.5, 0.0])[0, 1], abs=1e-6)
    assert found["by_tag"]["hard"] == {"num_attempts": 2, "accuracy": 0.5, "thinking_tokens": 2.0}
    assert calibration([attempt()], [1.0]) is None


# ------------------------------------------------------------------------------------------------ the record


attempts_strategy = st.builds(
    attempt,
    sample=st.integers(0, 3),
    text=st.text(max_size=20),
    thinking=st.none(),
    answer=st.none(),
    finish=st.sampled_from(list(Finish)),
    correct=st.sampled_from([True, False, None]),
)


@given(attempts_strategy)
@settings(max_examples=50)
def test_an_attempt_survives_json(one: Attempt) -> None:
    import json

    assert Attempt.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_the_table_keeps_what_is_missing_apart() -> None:
    attempts = [
        attempt(sample=1, correct=None, status="timeout"),
        attempt(task="b", finish=Finish.ERROR, correct=None),
        attempt(task="gone"),
        attempt(mode="gone"),
    ]
    table = AttemptTable.of(attempts, ["high"], {"a": "s", "b": "t"})
    assert table.correct.shape == (1, 2, 2) and np.isnan(table.correct).all()
    assert table.thinking[0, 0].tolist()[1] == 2.0 and np.isnan(table.thinking[0, 1]).all()
    assert len(table.of_mode(0)) == 2


def test_decisions_are_counted_and_compared_with_what_was_named() -> None:
    from budgets.evaluation.decision import decisions

    said = "<analysis>Hm. /{}</analysis><think></think>7"
    rows = [
        (said.format("think"), 3),
        (said.format("no_think"), 0),
        (said.format("no_think"), 5),
        ("<think>x</think>7", 1),
    ]
    found = decisions([attempt(text=text, thinking_tokens=tokens) for text, tokens in rows])
    assert found == {"thinking": 0.75, "named": 0.75, "agreement": pytest.approx(2 / 3, abs=1e-4)}
    assert decisions([attempt(finish=Finish.ERROR)]) is None
