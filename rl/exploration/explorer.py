"""The exploration bonus in the loop: features of a judged group in, a reward term out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from rl.exploration.bonus import bonus, sparse_projection
from rl.exploration.config import ExplorationConfig
from rl.ports import Representer
from rl.verdict import is_correct
from rollout.schema import Float32Array, Group, Metric, Outcome

TERM = "exploration"
FLAT = 0.01  # a deviation of the bonus within a group below which it tells nothing apart


class Explorer:
    """Pays the bonus. Its figures are those since the last call of `metrics`."""

    def __init__(self, config: ExplorationConfig, representer: Representer) -> None:
        self._config = config
        self._representer = representer
        self._sums: dict[str, list[float]] = {}
        self._num_flat = self._num_paid = 0

    async def term(self, group: Group, outcomes: Sequence[Outcome]) -> Mapping[str, Float32Array]:
        """{"exploration": [G]}: 0 everywhere in a group without a right answer, for siblings without a verdict or a
        response, and in a group that is all right unless the settings pay there, too."""
        paid = np.zeros(len(outcomes), dtype=np.float32)
        verdicts = [is_correct(outcome) for outcome in outcomes]
        places = [i for i, t in enumerate(group.trajectories) if verdicts[i] is not None and t.sampled.any()]
        right = [bool(verdicts[i]) for i in places]
        if len(places) < 2 or not any(right) or (all(right) and not self._config.all_right):
            return {TERM: paid}
        hidden = await self._representer.features([group.trajectories[i] for i in places])
        seed = int.from_bytes(hashlib.blake2b(group.job.group_id.encode(), digest_size=7).digest(), "big")
        features = hidden @ sparse_projection(hidden.shape[1], self._config.dimension, seed=seed)
        config = self._config
        values = bonus(features, ridge=config.ridge, form=config.form, scale=config.scale)
        paid[places] = config.weight * values
        self._count(values, features, right, [group.trajectories[i].num_response_tokens for i in places])
        return {TERM: paid}

    def metrics(self) -> list[Metric]:
        """Sum and deviation of the bonus in a group, norm of the centred features, correlation with being right and
        with length, share of groups in which it is flat; nothing where no bonus was paid."""
        found = [
            Metric(name=f"explore/{name}", value=math.fsum(values) / len(values), weight=len(values))
            for name, values in self._sums.items()
        ]
        if self._num_paid:
            found.append(
                Metric(name="explore/flat_share", value=self._num_flat / self._num_paid, weight=self._num_paid)
            )
        self._sums.clear()
        self._num_flat = self._num_paid = 0
        return found

    def _count(self, values: np.ndarray, features: np.ndarray, right: Sequence[bool], lengths: Sequence[int]) -> None:
        norms = np.linalg.norm(features - features.mean(axis=0), axis=1)
        figures = {
            "sum": float(values.sum()),
            "std": float(values.std()),
            "norm": float(norms.mean()),
            "with_right": _correlation(values, np.asarray(right, dtype=np.float64)),
            "with_length": _correlation(values, np.asarray(lengths, dtype=np.float64)),
        }
        for name, value in figures.items():
            if not math.isnan(value):
                self._sums.setdefault(name, []).append(value)
        self._num_paid += 1
        self._num_flat += values.std() < FLAT


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else math.nan
