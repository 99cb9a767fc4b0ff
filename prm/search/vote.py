"""Which of several finished solutions is given as the answer.

    majority            the most frequent answer
    best_of_n           the solution with the highest score
    weighted_best_of_n  the answer with the largest sum of scores                     (Snell et al., arXiv 2408.03314)
    weighted_majority   the answer with the largest sum of weights, w = s for probabilities, else sigmoid(s)

The last two are the same for probabilities; for other scores a raw sum punishes an answer for being frequent while its
scores are negative, and the sigmoid does not. Equal answers are equal keys: who calls decides what counts as equal.
An empty key is no answer and never wins by votes. A solution without a score (NaN) has no weight.

Ties are not broken here: all tied solutions are returned, and an accuracy counts the share of them that is right, the
mean over drawing lots. No solution at all is returned when nothing can be compared: that is unjudged, not wrong.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, get_args

Rule = Literal["majority", "best_of_n", "weighted_best_of_n", "weighted_majority"]
RULES: tuple[Rule, ...] = get_args(Rule)
READS_SCORES: frozenset[Rule] = frozenset(RULES) - {"majority"}


def winners(answers: Sequence[str], scores: Sequence[float], rule: Rule, *, are_probabilities: bool) -> tuple[int, ...]:
    """Places of the tied winners; () when there is no vote, or no score where the rule needs one."""
    if rule == "best_of_n":
        known = [score for score in scores if not math.isnan(score)]
        return tuple(i for i, score in enumerate(scores) if known and score == max(known))
    weights = _weights(scores, rule, are_probabilities)
    totals: defaultdict[str, list[float]] = defaultdict(list)
    for answer, weight in zip(answers, weights, strict=True):
        if answer and not math.isnan(weight):
            totals[answer].append(weight)
    sums = {answer: math.fsum(parts) for answer, parts in totals.items()}
    if not sums:
        return ()
    best = max(sums.values())
    chosen = {answer for answer, total in sums.items() if math.isclose(total, best, rel_tol=1e-9, abs_tol=1e-12)}
    return tuple(i for i, answer in enumerate(answers) if answer in chosen)


def _weights(scores: Sequence[float], rule: Rule, are_probabilities: bool) -> list[float]:
    if rule == "majority":
        return [1.0] * len(scores)
    if rule == "weighted_best_of_n" or are_probabilities:
        return list(scores)
    return [_sigmoid(score) for score in scores]


def _sigmoid(x: float) -> float:
    """Without overflow at either end; NaN stays NaN."""
    return 1 / (1 + math.exp(-x)) if x >= 0 or math.isnan(x) else math.exp(x) / (1 + math.exp(x))


def share_right(places: Sequence[int], correct: Sequence[bool | None], answers: Sequence[str]) -> float:
    """How often drawing lots among the tied answers gives a right one; NaN when nothing was chosen or judged.

    Lots are drawn among answers, not solutions: of two tied answers each counts half, however often it was given.
    """
    rates: dict[str, list[bool]] = {}
    for i in places:
        verdict = correct[i]
        if verdict is not None:
            rates.setdefault(answers[i], []).append(verdict)
    if not rates:
        return math.nan
    return sum(sum(found) / len(found) for found in rates.values()) / len(rates)
