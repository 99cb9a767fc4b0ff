"""RMT's entropy curriculum: each task is drawn from a tier of difficulty, and the shares of the tiers move once.

    p(t) = p1                    t <  t1
           (1 - a) p1 + a p2     a = (t - t1) / (t2 - t1)
           p2                    t >= t2

A pick draws a tier from p(t) for each of its tasks, and then a task of that tier uniformly. t counts picks, which are
training steps where dropped groups are not replaced.
Source: Reinforcement Mid-Training (arXiv 2509.24375), whose tiers are the entropies of next tokens, with t1 = 0.3 T
and t2 = 0.7 T; its shares are not published, and (0.6, 0.3, 0.1) to (0.1, 0.3, 0.6) are this project's.

Assumption: the entry of the tasks' meta has one value per tier, larger for harder tasks. What it is not: adaptive; the
shares are a function of the step alone, and the success rate moves nothing (for that see `curriculum`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rl.ports import State
from rl.sampling.config import TierSampling
from rl.sampling.picker import NO_TASKS, Numbers, draw_free, generator
from rl.verdict import Tally
from rollout.schema import Metric


def shares_at(
    part: float, shares: tuple[Sequence[float], Sequence[float]], moves: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """p at t = `part` * T for (p1, p2) and (t1, t2) as parts of T; sums to 1 where p1 and p2 do."""
    a = min(max((part - moves[0]) / (moves[1] - moves[0]), 0.0), 1.0)
    p1, p2 = (np.asarray(p, dtype=np.float64) for p in shares)
    return np.asarray((1.0 - a) * p1 + a * p2, dtype=np.float64)


class Tiers:
    """Implements `rl.sampling.picker.Picker`."""

    def __init__(self, difficulty: npt.NDArray[np.float64], config: TierSampling, *, seed: int) -> None:
        """Raises ValueError when the tasks have another number of tiers than the settings."""
        levels, tier_of = np.unique(difficulty, return_inverse=True)
        if levels.size != len(config.shares[0]):
            raise ValueError(
                f"sampling.sampler has shares for {len(config.shares[0])} tiers, and meta[{config.difficulty!r}] of "
                f"the tasks has {levels.size} different values; give one share per value"
            )
        self._config = config
        self._seed = seed
        self._members = [np.flatnonzero(tier_of == tier).astype(np.int64) for tier in range(levels.size)]
        self._num_picks = 0
        self._drawn = [0] * levels.size

    def pick(self, count: int, busy: Numbers) -> Numbers:
        rng = generator(self._seed, "tiers", self._num_picks)
        wanted = rng.multinomial(count, self._shares())
        self._num_picks += 1
        picked = NO_TASKS
        for tier, size in enumerate(wanted):
            picked = np.concatenate([picked, draw_free(rng, self._members[tier], int(size), busy)])
        for members in self._members:  # a tier with too few free tasks is made up from the others, easier ones first
            if missing := count - picked.size:
                picked = np.concatenate([picked, draw_free(rng, members, missing, np.concatenate([busy, picked]))])
        for tier, members in enumerate(self._members):
            self._drawn[tier] += int(np.isin(picked, members).sum())
        return rng.permutation(picked)

    def update(self, number: int, tally: Tally) -> None:
        """Nothing to learn: the shares are a function of the step."""

    def state_dict(self) -> State:
        return {"num_picks": self._num_picks, "drawn": list(self._drawn)}

    def load_state_dict(self, state: State) -> None:
        self._num_picks, self._drawn = state["num_picks"], list(state["drawn"])

    def metrics(self) -> list[Metric]:
        """The shares as they are now, and those of all tasks picked so far."""
        total = max(1, sum(self._drawn))
        found = {f"sampler/tier_{n}": float(p) for n, p in enumerate(self._shares())}
        found |= {f"sampler/tier_{n}_drawn": count / total for n, count in enumerate(self._drawn)}
        return [Metric(name=name, value=value, reduce="last") for name, value in found.items()]

    def _shares(self) -> npt.NDArray[np.float64]:
        p = shares_at(self._num_picks / self._config.steps, self._config.shares, self._config.moves)
        return np.asarray(p / p.sum(), dtype=np.float64)
