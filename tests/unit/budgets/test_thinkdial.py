"""ThinkDial's terms: the method's worked table, invariances, leak keywords, unjudged siblings, the safe variant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.shaping.config import ThinkDialConfig
from budgets.shaping.thinkdial import ThinkDial, keyword_pattern
from rollout.schema import Group
from tests.fakes.budgets import attempt, group_of, verdicts

PAPER = ThinkDialConfig(rank_safe=False, allow_rank_inversion=True)
LENGTHS, SCORES = (1000, 3000, 5000, 2000, 4000), (1.0, 1.0, 1.0, 0.0, 0.0)
ANSWERS = ("42", "42", "Wait, 42", "41", "41. However, 40")


def table_group(effort: str, order: Sequence[int] = range(5), scale: int = 1) -> Group:
    attempts = [attempt(i, length=LENGTHS[j] * scale, answer=ANSWERS[j]) for i, j in enumerate(order)]
    return group_of(attempts, effort=effort)


def total_rewards(config: ThinkDialConfig, group: Group, scores: Sequence[float | None]) -> np.ndarray:
    parts = ThinkDial(config)(group, verdicts(scores))
    return np.array([s or 0.0 for s in scores]) + sum(parts.values())


@pytest.mark.parametrize(
    ("effort", "rewards", "advantages"),
    [
        ("high", (1.5, 1.5, 0.5, 0.5, -0.5), (1.069, 1.069, -0.267, -0.267, -1.604)),
        ("medium", (1.75, 1.5, 0.25, 0.5, -0.625), (1.243, 0.954, -0.492, -0.202, -1.504)),
        ("low", (2.0, 1.5, 0.0, 0.5, -0.75), (1.357, 0.854, -0.653, -0.151, -1.407)),
    ],
)
def test_worked_table(effort: str, rewards: tuple[float, ...], advantages: tuple[float, ...]) -> None:
    got = total_rewards(PAPER, table_group(effort), SCORES)
    assert got == pytest.approx(rewards, abs=1e-6)
    assert (got - got.mean()) / got.std() == pytest.approx(advantages, abs=1e-3)


@given(order=st.permutations(range(5)), effort=st.sampled_from(["high", "medium", "low"]))
def test_permuting_the_group_permutes_the_rewards(order: list[int], effort: str) -> None:
    config = PAPER
    straight = total_rewards(config, table_group(effort), SCORES)
    shuffled = total_rewards(config, table_group(effort, order), [SCORES[j] for j in order])
    assert shuffled == pytest.approx(straight[order])


def test_scaling_all_lengths_changes_nothing() -> None:
    config = PAPER
    assert total_rewards(config, table_group("low", scale=3), SCORES) == pytest.approx(
        total_rewards(config, table_group("low"), SCORES)
    )


def test_thinking_and_answer_tokens_weigh_the_same() -> None:
    by_thinking = group_of(
        [attempt(0, length=9, answer="7", thinking="abcdef"), attempt(1, length=4, answer="7")], effort="low"
    )
    by_answer = group_of([attempt(0, length=9, answer="7 apples"[:6]), attempt(1, length=4, answer="7")], effort="low")
    shaper = ThinkDial(ThinkDialConfig(leak=0.0))
    for group in (by_thinking, by_answer):
        assert shaper(group, verdicts([1.0, 1.0]))["length"].tolist() == [-0.5, 0.5]
        assert set(shaper(group, verdicts([1.0, 1.0]))) == {"length"}


def test_keywords_match_whole_words_of_the_answer_only() -> None:
    pattern = keyword_pattern(PAPER.keywords)
    assert all(pattern.search(t) for t in ("Wait,", "so ACTUALLY 4", "Let me  think: 4", "7.However", "alternatively"))
    assert not any(pattern.search(t) for t in ("the waiter", "factually 4", "howeverness", "await", "let me rethink"))
    group = group_of([attempt(0, length=30, answer="4", thinking="wait, actually")], effort="high")
    assert ThinkDial(PAPER)(group, verdicts([1.0]))["leak"].tolist() == [0.5]


def test_unclosed_thinking_counts_as_a_leak() -> None:
    group = group_of([attempt(0, length=30, answer=None), attempt(1, length=30, answer="4")], effort="high")
    assert ThinkDial(PAPER)(group, verdicts([0.0, 1.0]))["leak"].tolist() == [-0.5, 0.5]


def test_an_unjudged_sibling_gets_nothing_and_does_not_set_the_range() -> None:
    lengths = (10, 20, 500)
    group = group_of([attempt(i, length=n, answer="4") for i, n in enumerate(lengths)], effort="low")
    parts = ThinkDial(PAPER)(group, verdicts([1.0, 1.0, None]))
    assert parts["length"].tolist() == [0.5, -0.5, 0.0]
    assert parts["leak"].tolist() == [0.5, 0.5, 0.0]
    nothing = ThinkDial(PAPER)(group, verdicts([None, None, None]))
    assert all(not values.any() for values in nothing.values())


def test_equal_lengths_give_no_length_term() -> None:
    group = group_of([attempt(i, length=9, answer="4") for i in range(3)], effort="low")
    assert ThinkDial(PAPER)(group, verdicts([1.0, 0.0, 1.0]))["length"].tolist() == [0.0, 0.0, 0.0]


def test_paper_values_invert_ranks_and_the_safe_variant_never_does() -> None:
    paper = total_rewards(PAPER, table_group("low"), SCORES)
    assert paper[2] < paper[3]  # correct, leaky and long below wrong, clean and short
    safe = total_rewards(ThinkDialConfig(rank_safe=True), table_group("low"), SCORES)
    assert safe == pytest.approx([1.75, 1.25, 0.25, 0.0, -0.25])


@given(
    lengths=st.lists(st.integers(12, 60), min_size=2, max_size=8),
    draws=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=8, max_size=8),
    alpha=st.floats(0, 1.4),
)
def test_rank_safe_puts_every_correct_attempt_above_every_wrong_one(
    lengths: list[int], draws: list[tuple[bool, bool]], alpha: float
) -> None:
    correct = [c for c, _ in draws[: len(lengths)]]
    leaky = [k for _, k in draws[: len(lengths)]]
    attempts = [attempt(i, length=n, answer="wait 4" if leaky[i] else "4") for i, n in enumerate(lengths)]
    config = ThinkDialConfig(alpha={"low": alpha}, rank_safe=True)
    rewards = total_rewards(config, group_of(attempts, effort="low"), [float(c) for c in correct])
    right = [r for r, c in zip(rewards, correct, strict=True) if c]
    wrong = [r for r, c in zip(rewards, correct, strict=True) if not c]
    assert not right or not wrong or min(right) > max(wrong)


def test_terms_start_with_the_configured_version() -> None:
    shaper = ThinkDial(ThinkDialConfig(start_version=5))
    early = group_of(
        [attempt(0, length=9, answer="4", version=4), attempt(1, length=8, answer="4", version=5)], effort="low"
    )
    later = group_of(
        [attempt(0, length=9, answer="4", version=5), attempt(1, length=8, answer="4", version=5)], effort="low"
    )
    assert shaper(early, verdicts([1.0, 1.0])) == {}
    assert set(shaper(later, verdicts([1.0, 1.0]))) == {"length", "leak"}


def test_an_effort_without_alpha_is_refused() -> None:
    group = group_of([attempt(0, length=9, answer="4")], effort="turbo")
    with pytest.raises(ValueError, match=r"no weight for effort 'turbo'"):
        ThinkDial(PAPER)(group, verdicts([1.0]))
