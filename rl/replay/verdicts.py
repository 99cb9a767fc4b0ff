"""What became of the samples of a step, by their names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rl.batch import TrainingSample
from rl.record import Settled
from rl.verdict import is_correct


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one answer: right or wrong, its outcome score, and the share of right answers in its group."""

    is_right: bool
    outcome: float
    solved: float


def name_of(sample: TrainingSample) -> str:
    """As the learner names it."""
    return f"{sample.group_id}/{sample.sibling}"


def verdicts(groups: Iterable[Settled]) -> dict[str, Verdict]:
    """Verdicts of all judged answers of the groups that train."""
    found = {}
    for settled in groups:
        if settled.fate.name != "trained":
            continue
        scored = settled.scored
        right = [is_correct(outcome) for outcome in scored.outcomes]
        solved = float(np.mean([r for r in right if r is not None] or [False]))
        for sibling, (is_right, outcome) in enumerate(zip(right, scored.outcomes, strict=True)):
            if is_right is not None and outcome.score is not None:
                name = f"{scored.group.job.group_id}/{sibling}"
                found[name] = Verdict(is_right=is_right, outcome=outcome.score, solved=solved)
    return found
