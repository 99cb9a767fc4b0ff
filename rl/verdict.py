"""What the loop reads out of a scored group: who is right, and which reward credit is computed from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout.schema import BoolArray, Outcome, ScoredGroup

CORRECT_AT = 0.5
"""Outcome score from which an answer counts as right. Weighted judges give a right answer in a clumsy format less than
1, and some scorers give a well-formed wrong answer more than 0, so neither end of the scale will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a sampler is told of a group: right and judged answers, never a shaped reward, and the group's age.

    `lag` is the number of batches published between the group's sampling and the batch it belongs to.
    """

    num_right: int
    num_judged: int
    lag: int = 0

    @property
    def is_informative(self) -> bool:
        """Whether right and wrong answers are among it."""
        return 0 < self.num_right < self.num_judged


def tally(scored: ScoredGroup, *, lag: int = 0) -> Tally:
    """Count the right ones among the judged answers."""
    verdicts = [v for v in map(is_correct, scored.outcomes) if v is not None]
    return Tally(num_right=sum(verdicts), num_judged=len(verdicts), lag=lag)


def is_correct(outcome: Outcome) -> bool | None:
    """Right, wrong, or None when the trajectory could not be judged."""
    return None if outcome.score is None else outcome.score >= CORRECT_AT


def judged(scored: ScoredGroup) -> BoolArray:
    """[G] True where the outcome carries a score."""
    return np.asarray([o.is_scored for o in scored.outcomes], dtype=np.bool_)


def final_rewards(scored: ScoredGroup) -> npt.NDArray[np.float64]:
    """[G] outcome score plus every shaping term and the sum of the token rewards, NaN where unjudged."""
    rewards = sequence_rewards(scored)
    if not scored.token_rewards:
        return rewards
    paid: npt.NDArray[np.float64] = np.asarray([v.sum(dtype=np.float64) for v in scored.token_rewards])
    return np.add(rewards, paid, dtype=np.float64)


def sequence_rewards(scored: ScoredGroup) -> npt.NDArray[np.float64]:
    """[G] outcome score plus every shaping term, without what is paid at single tokens; NaN where unjudged.

    Raises ValueError when a shaping term is not finite on a judged trajectory: NaN would silently unjudge it.
    """
    rewards = scored.outcome_scores.astype(np.float64)
    is_judged = judged(scored)
    for name, values in scored.shaped.items():
        if not np.isfinite(values[is_judged]).all():
            group_id = scored.group.job.group_id
            raise ValueError(f"shaping term {name!r} must be finite on judged trajectories of {group_id}, got {values}")
        rewards = rewards + np.where(is_judged, values, 0.0)
    return rewards
