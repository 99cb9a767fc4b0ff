"""One verdict out of several: the weighted mean of the components, with the parts kept beside it."""

from __future__ import annotations

from collections.abc import Mapping

from rollout.schema import SCORED_STATUSES, Outcome, Status

# When several components failed, the whole gets the status that asks for the more fundamental remedy.
_GRAVITY = (Status.SKIPPED, Status.BAD_REFERENCE, Status.CRASH, Status.TIMEOUT)


def compose(components: Mapping[str, Outcome], weights: Mapping[str, float]) -> Outcome:
    """score = sum_c w_c * s_c / sum_c w_c, in [0, 1] for positive weights.

    Any unjudged component leaves the whole unjudged: a mean over the rest would reward whatever made that one fail.
    `parts[c]` is the unweighted score of each component that has one, and `parts[c/p]` what the verifier itself kept.
    UNPARSEABLE_ANSWER on the whole means that at least one component found nothing to judge.
    """
    parts: dict[str, float] = {}
    for name, outcome in components.items():
        if outcome.score is not None:
            parts[name] = outcome.score
        if outcome.parts:
            parts |= {f"{name}/{part}": value for part, value in outcome.parts.items()}
    reason = "; ".join(f"{name}: {outcome.reason}" for name, outcome in components.items() if outcome.reason)
    found = {outcome.status for outcome in components.values()}
    if not found <= SCORED_STATUSES:
        worst = next(status for status in _GRAVITY if status in found)
        return Outcome(status=worst, score=None, parts=parts, reason=reason)
    total = sum(weights[name] for name in components)
    score = sum(weights[name] * parts[name] for name in components) / total
    whole = Status.UNPARSEABLE_ANSWER if Status.UNPARSEABLE_ANSWER in found else Status.JUDGED
    # Rounding may leave the mean of ones a hair above 1.
    return Outcome(status=whole, score=min(score, 1.0), parts=parts, reason=reason)
