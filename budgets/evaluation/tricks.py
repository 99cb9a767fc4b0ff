"""Which tricks of reinforcement learning can work on a pair of model and tasks, from what the model can do before any.

    strong pair    pass@32 >= .7: the right answers are there and only have to be drawn out
    weak pair      pass@32 < .7: what is not there must be learned from rewards that tell right from wrong

pass@k of a task rises with k and is concave with pass@0 = 0, so m samples bound what 32 would show:

    pass@m <= pass@32 <= min(1, 32 / m * pass@m)        for m <= 32

and a pair is called strong or weak only where the whole 95 % interval, so bounded, lies on one side.

Source: model and task alignment, 2025 (arXiv 2508.21188): rewards that are random or wrong, majority votes as labels
(TTRL), one training task, and negative samples alone helped strong pairs only; verified rewards helped both. The
threshold, the bounds and the rules on groups and votes are this project's own.

Assumption: the base model's samples are drawn as training will draw them. What it is not: a promise. It says what has
been seen to fail elsewhere, before it costs a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

STRONG_AT = 0.7
REFERENCE_K = 32
MIN_INFORMATIVE = 0.1  # share of groups with a signal below which most of a batch is thrown away
MASTERED_AT = 0.9  # pass@1 above which little is left to learn

Pair = Literal["strong", "weak", "undecided"]
Word = Literal["can work", "do not rely on it", "undecided", "do it first", "not needed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured, in shares. `pass_low` and `pass_high` are the interval of pass@`k`, k the samples a task;
    `majority` is majority@k; `informative` the share of groups of `group_size` with right and wrong answers."""

    k: int
    pass_low: float
    pass_high: float
    pass_at_1: float
    majority: float
    informative: float
    group_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to expect of a trick."""

    trick: str
    word: Word
    why: str


def pair_of(figures: Figures) -> Pair:
    """Strong, weak, or not to be told apart from so many samples and tasks."""
    missing = max(1.0, REFERENCE_K / figures.k)
    if figures.pass_low >= STRONG_AT:
        return "strong"
    return "weak" if min(1.0, missing * figures.pass_high) < STRONG_AT else "undecided"


def advise(figures: Figures) -> Iterator[Advice]:
    """Every trick, the honest ones first."""
    pair = pair_of(figures)
    yield _teaching(figures)
    yield _verified(figures)
    yield _votes(figures, pair)
    cheap = {
        "spurious rewards (random, format alone, wrong labels)": "such rewards only draw out what the model can do",
        "one-shot RLVR (one or a few training tasks)": "a few tasks only draw out what the model can do",
        "negative samples alone": "pushing wrong answers down moves mass to right ones only where they are likely",
    }
    for trick, reason in cheap.items():
        yield Advice(trick=trick, word=_by_pair(pair), why=f"{reason}; {_said(figures, pair)}")


def _teaching(figures: Figures) -> Advice:
    trick = "supervised warm-up, demonstrations or hints before RL"
    share = f"{100 * figures.informative:.0f} % of groups of {figures.group_size} carry a signal"
    if figures.informative >= MIN_INFORMATIVE or figures.pass_at_1 >= MASTERED_AT:
        return Advice(trick=trick, word="not needed", why=share)
    return Advice(trick=trick, word="do it first", why=f"{share}, and pass@1 is {100 * figures.pass_at_1:.1f} %")


def _verified(figures: Figures) -> Advice:
    trick = "RL with verified rewards"
    if figures.pass_at_1 >= MASTERED_AT:
        why = f"pass@1 is {100 * figures.pass_at_1:.1f} % already, so take harder tasks"
        return Advice(trick=trick, word="do not rely on it", why=why)
    share = f"{100 * figures.informative:.0f} % of groups of {figures.group_size} carry a signal"
    if figures.informative >= MIN_INFORMATIVE:
        return Advice(trick=trick, word="can work", why=f"{share}; works in strong and weak pairs")
    remedy = "larger groups, easier tasks (a curriculum, sampling by difficulty), or a warm-up"
    return Advice(trick=trick, word="undecided", why=f"only {share}; {remedy}")


def _votes(figures: Figures, pair: Pair) -> Advice:
    trick = "self-rewards (majority vote as label, TTRL)"
    votes = (
        f"votes of {figures.k} are right for {100 * figures.majority:.1f} % of tasks, single answers for "
        f"{100 * figures.pass_at_1:.1f} %"
    )
    if pair == "strong" and figures.majority <= figures.pass_at_1:
        return Advice(trick=trick, word="do not rely on it", why=f"{votes}: a vote teaches nothing new")
    return Advice(trick=trick, word=_by_pair(pair), why=f"{votes}; {_said(figures, pair)}")


def _by_pair(pair: Pair) -> Word:
    words: dict[Pair, Word] = {"strong": "can work", "weak": "do not rely on it", "undecided": "undecided"}
    return words[pair]


def _said(figures: Figures, pair: Pair) -> str:
    between = f"pass@{figures.k} is between {100 * figures.pass_low:.1f} and {100 * figures.pass_high:.1f} %"
    if pair != "undecided":
        return f"{between}, so the pair is {pair}"
    more = "more samples" if figures.k < REFERENCE_K else "more tasks"
    return f"{between}, which decides nothing yet: take {more}"
