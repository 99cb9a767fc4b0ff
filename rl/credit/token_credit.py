"""Advantages that differ from token to token by themselves: the returns of REINFORCE++."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rl.credit.reinforce_pp import reinforce_pp_advantages
from rl.verdict import sequence_rewards
from rollout.schema import Float32Array, ScoredGroup


class ReturnCredit:
    """Implements `rl.ports.Credit`: a token reward stays at its token instead of joining the answer's reward."""

    needs_greedy_baseline = False

    def __init__(self, name: str, *, gamma: float) -> None:
        self.name = name
        self._gamma = gamma

    def __call__(self, groups: Sequence[ScoredGroup]) -> list[tuple[Float32Array | None, ...]]:
        rewards = [sequence_rewards(scored) for scored in groups]
        places = [(g, i) for g, values in enumerate(rewards) for i in np.flatnonzero(~np.isnan(values)).tolist()]
        found = reinforce_pp_advantages(
            [float(rewards[g][i]) for g, i in places],
            [_paid_at_tokens(groups[g], i) for g, i in places],
            gamma=self._gamma,
        )
        by_place = dict(zip(places, found, strict=True))
        return [
            tuple(
                _on_tokens(trajectory.sampled, by_place.get((g, i)))
                for i, trajectory in enumerate(scored.group.trajectories)
            )
            for g, scored in enumerate(groups)
        ]


def _paid_at_tokens(scored: ScoredGroup, sibling: int) -> npt.NDArray[np.float64]:
    sampled = scored.group.trajectories[sibling].sampled
    if not scored.token_rewards:
        return np.zeros(int(sampled.sum()))
    return scored.token_rewards[sibling][sampled].astype(np.float64)


def _on_tokens(sampled: npt.NDArray[np.bool_], values: npt.NDArray[np.float64] | None) -> Float32Array | None:
    if values is None:
        return None
    advantages = np.zeros(sampled.size, dtype=np.float32)
    advantages[sampled] = values
    return advantages
