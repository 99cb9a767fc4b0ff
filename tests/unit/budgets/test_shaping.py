"""Every shaper's worked numbers, and for all of them: right is never outranked by wrong, the unjudged stay out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from budgets.config import BudgetsConfig
from budgets.shaping import adactrl, adapt_think, kimi, l1, o1_pruner, overlong, repetition, thinkdial, triangle
from budgets.shaping.config import RepetitionConfig, ShapingConfig
from budgets.shaping.thinkprune import limits_at
from rollout.schema import Group
from tests.fakes.budgets import attempt, group_of, verdicts

SHAPERS = {
    "adactrl": adactrl.AdaCtrl,
    "adapt_think": adapt_think.AdaptThink,
    "kimi": kimi.Kimi,
    "l1_exact": l1.L1Exact,
    "l1_max": l1.L1Max,
    "o1_pruner": o1_pruner.O1Pruner,
    "overlong": overlong.Overlong,
    "repetition": repetition.Repetition,
    "thinkdial": thinkdial.ThinkDial,
    "triangle": triangle.Triangle,
}
ADAPTER: TypeAdapter[Any] = TypeAdapter(ShapingConfig)


def shaper(kind: str, **settings: Any) -> Any:
    return SHAPERS[kind](ADAPTER.validate_python({"type": kind, **settings}))


def totals(kind: str, group: Group, scores: Sequence[float | None], **settings: Any) -> list[float]:
    """Outcome plus all terms."""
    parts = shaper(kind, **settings)(group, verdicts(scores))
    return [float(v) for v in np.array([s or 0.0 for s in scores]) + sum(parts.values())]


def of_lengths(lengths: Sequence[int], *, number: int | None = None, effort: str = "low") -> Group:
    return group_of([attempt(i, length=n, answer="4") for i, n in enumerate(lengths)], effort=effort, number=number)


# ---------------------------------------------------------------------------------------- worked numbers


def test_kimi_goes_from_the_shortest_to_the_longest() -> None:
    lengths = (100, 200, 300, 400, 500)
    right = totals("kimi", of_lengths(lengths), [1.0] * 5, weight=1.0)
    assert right == pytest.approx([1.5, 1.25, 1.0, 0.75, 0.5])
    wrong = totals("kimi", of_lengths(lengths), [0.0] * 5, weight=1.0)
    assert wrong == pytest.approx([0, 0, 0, -0.25, -0.5])
    assert totals("kimi", of_lengths((7, 7)), [1.0, 0.0]) == [1.0, 0.0]


def tagged(rows: Sequence[tuple[str, int]]) -> Group:
    """Responses of a tag and a length; the thinking comes after the tag."""
    return group_of([attempt(i, length=n, answer="4", thinking=tag) for i, (tag, n) in enumerate(rows)], effort="auto")


def test_adactrl_table_of_an_easy_task() -> None:
    rows = [("[Easy]", 500), ("[EASY]", 1000), ("[easy]", 2000), ("[Easy]", 500), ("[Hard]", 500), ("so", 500)]
    scores = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0]  # 5 of 6 right: easy
    expected = [1.9268, 1.75, 1.5, -0.5, 1.0, 0.5]
    assert totals("adactrl", tagged(rows), scores) == pytest.approx(expected, abs=1e-4)


def test_adactrl_table_of_a_hard_task() -> None:
    rows = [("[Hard]", 2000), ("[Easy]", 500), ("so [Easy]", 500)]
    assert totals("adactrl", tagged(rows), [0.0, 1.0, 0.0]) == pytest.approx([-0.5, 1.4268, -1.5], abs=1e-4)


def test_adactrl_calls_a_task_easy_only_above_the_threshold() -> None:
    rows = [("[Hard]", 9 + i) for i in range(8)]
    for num_right, tag_reward in ((5, 0.5), (6, 0.0)):  # 5/8 = 0.625 is hard
        scores = [float(i < num_right) for i in range(8)]
        parts = shaper("adactrl")(tagged(rows), verdicts(scores))
        assert parts["tag"].tolist() == [tag_reward] * 8


@given(st.lists(st.integers(10, 400), min_size=2, max_size=8, unique=True))
def test_adactrl_pays_more_for_every_token_less(lengths: list[int]) -> None:
    lengths.sort()
    parts = shaper("adactrl")(tagged([("[Easy]", n) for n in lengths]), verdicts([1.0] * len(lengths)))
    assert (np.diff(parts["easy_length"]) < 0).all() and parts["easy_length"][-1] == pytest.approx(0, abs=1e-6)


def test_l1_numbers_of_the_paper_and_of_its_code() -> None:
    group = of_lengths((1500,), number=1000)
    assert totals("l1_exact", group, [1.0]) == pytest.approx([0.85])
    assert totals("l1_max", group, [1.0]) == pytest.approx([0.35])
    assert totals("l1_max", group, [1.0], alpha=0.00015) == pytest.approx([0.425])
    assert totals("l1_max", of_lengths((10, 60000), number=4000), [1.0, 1.0]) == pytest.approx([1.0, 0.0])
    assert totals("l1_exact", of_lengths((900, 1100), number=1000), [0.0, 0.0]) == pytest.approx([-0.03, -0.03])


@pytest.mark.parametrize("kind", ["l1_exact", "l1_max", "triangle"])
def test_a_prompt_without_a_number_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"effort 'low' names none: put \{tokens\}"):
        shaper(kind)(of_lengths((9,)), verdicts([1.0]))


def test_o1_pruner_numbers() -> None:
    lengths, correct = np.array([800.0, 1600.0]), np.array([True, False])
    found = o1_pruner.weights(lengths, correct, mean_length=1000, success=0.75, alpha=5, rank_safe=False)
    assert found.tolist() == pytest.approx([1.5, -4.125])
    group = of_lengths((500, 1500))  # mean 1000, success 0.5: 1 + 2.5, -1/3 - 2.5 -> -2
    assert totals("o1_pruner", group, [1.0, 0.0]) == pytest.approx([3.5, -2.0])
    short = of_lengths((1500, 500))  # the wrong one is short: 1 - 2.5, and without the gain -2.5 -> -2
    assert totals("o1_pruner", short, [1.0, 0.0], rank_safe=False)[1] == pytest.approx(-1.5)
    assert totals("o1_pruner", short, [1.0, 0.0])[1] == pytest.approx(-2.0)


def test_adapt_think_pays_for_answers_without_thinking() -> None:
    rows = [attempt(0, length=9, answer="4", thinking=""), attempt(1, length=9, answer="4")]
    rows += [attempt(2, length=9, answer="4", thinking=""), attempt(3, length=9, answer=None, thinking="")]
    got = totals("adapt_think", group_of(rows, effort="auto"), [1.0, 1.0, 0.0, 0.0])
    assert np.array(got) - 0.8 == pytest.approx([0.25, 0.20, -0.75, -0.8])


def test_the_triangle_peaks_at_the_number() -> None:
    lengths = np.array([0, 200, 400, 500, 600, 800, 900], dtype=np.float64)
    assert triangle.triangle(lengths, 400).tolist() == pytest.approx([0, 0.5, 1, 0.75, 0.5, 0, 0])
    on, off = attempt(0, length=30, answer="4", thinking="x" * 4), attempt(1, length=30, answer="4", thinking="x" * 9)
    got = totals("triangle", group_of([on, off], effort="low", number=4), [0.0, 1.0])
    assert got == pytest.approx([0.2, 0.8])  # wrong at the number scores w, right far beyond it 1 - w


def test_thinkprune_shrinks_the_cap() -> None:
    config = BudgetsConfig.model_validate(
        {
            "efforts": {
                "high": {
                    "max_answer_tokens": 4000,
                    "stages": [{"from_step": 5, "max_answer_tokens": 3000}, {"from_step": 9, "max_thinking_tokens": 7}],
                }
            }
        }
    )
    stages = config.efforts["high"].stages
    found = [limits_at(stages, step, max_thinking_tokens=None, max_answer_tokens=4000) for step in (1, 4, 5, 8, 9, 50)]
    assert found == [(None, 4000), (None, 4000), (None, 3000), (None, 3000), (7, 3000), (7, 3000)]


def test_repetition_finds_loops_and_nothing_else() -> None:
    settings = RepetitionConfig()
    loop = np.array([1, 2, 3] * 40, dtype=np.int32)
    assert repetition.tail_period(loop, 64, 4) == (3, 120)
    assert repetition.severity(loop, settings) == 1.0
    varied = np.random.default_rng(0).permutation(120).astype(np.int32)
    assert repetition.tail_period(varied, 64, 4) == (0, 0)
    assert repetition.severity(varied, settings) == 0.0
    late = np.concatenate([varied, np.repeat(np.int32(5), 40)])
    assert repetition.severity(late, settings) == pytest.approx(40 / 160, abs=0.15)
    broken = np.array([1, 2, 3] * 3, dtype=np.int32)  # three times is not four
    assert repetition.tail_period(broken, 64, 4) == (0, 0)
    assert repetition.duplicate_share(np.array([1, 2, 1, 2, 1], dtype=np.int32), 2) == pytest.approx(0.5)


# ---------------------------------------------------------------------------------------- all of them

SAFE: dict[str, dict[str, Any]] = {kind: {} for kind in SHAPERS} | {
    "overlong": {"buffer_tokens": 30, "max_tokens": 60},
    "l1_exact": {"alpha": 0.01},
    "repetition": {"ngram": 2, "max_period": 3},
}


@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.integers(12, 70), st.sampled_from(["[Easy]", "[Hard]", "so", ""])),
        min_size=2,
        max_size=8,
    ),
    kind=st.sampled_from(sorted(SHAPERS)),
    number=st.integers(12, 70),
)
def test_no_wrong_attempt_outranks_a_right_one(rows: list[tuple[bool, int, str]], kind: str, number: int) -> None:
    attempts = [attempt(i, length=n, answer="4", thinking=tag) for i, (_, n, tag) in enumerate(rows)]
    scores = [float(right) for right, _, _ in rows]
    got = totals(kind, group_of(attempts, effort="low", number=number), scores, **SAFE[kind])
    right = [r for r, s in zip(got, scores, strict=True) if s]
    wrong = [r for r, s in zip(got, scores, strict=True) if not s]
    assert not right or not wrong or min(right) >= max(wrong) - 1e-6


@pytest.mark.parametrize("kind", sorted(SHAPERS))
def test_the_unjudged_get_nothing_and_change_nothing(kind: str) -> None:
    attempts = [attempt(i, length=n, answer="4", thinking="[Easy]") for i, n in enumerate((12, 30, 50))]
    with_it = shaper(kind, **SAFE[kind])(group_of(attempts, effort="low", number=20), verdicts([1.0, 0.0, None]))
    without = shaper(kind, **SAFE[kind])(group_of(attempts[:2], effort="low", number=20), verdicts([1.0, 0.0]))
    assert set(with_it) == set(without) and with_it
    for name, values in with_it.items():
        assert values.dtype == np.float32 and values[2] == 0
        assert values[:2].tolist() == pytest.approx(without[name].tolist())
    nothing = shaper(kind, **SAFE[kind])(group_of(attempts, effort="low", number=20), verdicts([None] * 3))
    assert set(nothing) == set(with_it) and not any(values.any() for values in nothing.values())
    late = shaper(kind, **SAFE[kind], start_version=1)(group_of(attempts, effort="low", number=20), verdicts([1.0] * 3))
    assert late == {}


def budgets(shaping: dict[str, Any], penalties: Sequence[dict[str, Any]] = (), **effort: Any) -> BudgetsConfig:
    low = {"instruction": "At most {tokens}.", "max_thinking_tokens": 90, "max_answer_tokens": 10, **effort}
    return BudgetsConfig.model_validate({"efforts": {"low": low}, "shaping": shaping, "penalties": penalties})


INVERTING: list[tuple[dict[str, Any], str]] = [
    ({"type": "kimi", "weight": 2.1}, "0.05 more than a right one; set weight to at most 2"),
    ({"type": "adactrl", "tag_weight": 1.5}, "1 more than"),
    ({"type": "l1_exact", "alpha": 0.02}, "lower alpha"),
    ({"type": "o1_pruner", "rank_safe": False}, "rank_safe = true"),
    ({"type": "adapt_think", "delta": 1.2}, "0.2 more"),
    ({"type": "triangle", "weight": 0.6}, "at most 0.5"),
    ({"type": "overlong", "buffer_tokens": 9, "factor": 1.5}, "set factor"),
    ({"type": "repetition", "weight": 1.5}, "set weight"),
    ({"type": "thinkdial", "alpha": {"low": 1.0}, "rank_safe": False}, "rank_safe = true"),
]


@pytest.mark.parametrize(("shaping", "message"), INVERTING, ids=[str(shaping["type"]) for shaping, _ in INVERTING])
def test_outranking_must_be_asked_for_by_name(shaping: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        budgets(shaping)
    assert budgets({**shaping, "allow_rank_inversion": True})


def test_penalties_count_towards_the_ranks() -> None:
    late = {"type": "overlong", "buffer_tokens": 9}
    assert budgets({"type": "adactrl"}, [late]).penalties[0].type == "overlong"  # AdaCtrl's own combination
    with pytest.raises(ValidationError, match="lower the weights of shaping and penalties"):
        budgets({"type": "kimi"}, [late])
    with pytest.raises(ValidationError, match="can be used once"):
        budgets({"type": "none"}, [late, late])


def test_lengths_are_compared_with_a_number_only_where_the_prompt_names_one() -> None:
    with pytest.raises(ValidationError, match=r"efforts \['low'\] name none"):
        budgets({"type": "l1_max"}, instruction="Be brief.")
