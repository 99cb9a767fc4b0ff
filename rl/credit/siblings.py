"""What the estimators read of a scored group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rl.verdict import final_rewards, is_correct
from rollout.schema import ScoredGroup

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Siblings:
    """One group. NaN marks unjudged siblings in every float array."""

    rewards: FloatArray  # [G] final reward: outcome, shaping terms and token rewards together
    correct: FloatArray  # [G] 1 right, 0 wrong
    lengths: npt.NDArray[np.int64]  # [G] loss tokens
    greedy: float  # final reward of the group's greedy attempt; NaN where there is none or it could not be judged


def siblings_of(scored: ScoredGroup) -> Siblings:
    """Read one group."""
    verdicts = [is_correct(outcome) for outcome in scored.outcomes]
    return Siblings(
        rewards=final_rewards(scored),
        correct=np.asarray([np.nan if v is None else float(v) for v in verdicts], dtype=np.float64),
        lengths=np.asarray([np.count_nonzero(t.sampled) for t in scored.group.trajectories], dtype=np.int64),
        greedy=np.nan if scored.greedy is None else float(final_rewards(scored.greedy)[0]),
    )


def components_of(scored: ScoredGroup, names: frozenset[str], *, process_on_all_wrong: bool) -> dict[str, FloatArray]:
    """The reward components of a group by name, [G] each, `outcome` always among them.

    Raises ValueError for a name that is neither built in, nor a shaping term, nor a part of the outcomes.
    """
    outcome = scored.outcome_scores.astype(np.float64)
    return {"outcome": outcome} | {name: _component(scored, name, process_on_all_wrong) for name in names - {"outcome"}}


def _component(scored: ScoredGroup, name: str, process_on_all_wrong: bool) -> FloatArray:
    size = len(scored.outcomes)
    if name == "process":
        if not process_on_all_wrong and not any(is_correct(outcome) for outcome in scored.outcomes):
            return np.zeros(size)
        return np.asarray([_mean_score(scored, i) for i in range(size)], dtype=np.float64)
    if name in scored.shaped:
        return scored.shaped[name].astype(np.float64)
    judged = [outcome for outcome in scored.outcomes if outcome.is_scored]
    known = {part for outcome in judged for part in outcome.parts}
    if judged and name not in known:
        choice = sorted({"outcome", "process", *scored.shaped, *known})
        raise ValueError(
            f"credit.weights names {name!r}, which group {scored.group.job.group_id} has no reward for; it has "
            f"{choice}: rename or remove the weight"
        )
    return np.asarray([outcome.parts.get(name, np.nan) for outcome in scored.outcomes], dtype=np.float64)


def _mean_score(scored: ScoredGroup, sibling: int) -> float:
    steps = scored.steps[sibling]
    scores = np.zeros(0) if steps is None else steps.scores[~np.isnan(steps.scores)]
    return float(scores.mean(dtype=np.float64)) if scores.size else np.nan
