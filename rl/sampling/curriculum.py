"""From easy to hard in stages, as fast as the success rate allows.

Tasks have a difficulty; stage k holds the k-th smallest one (neighbours are put together if there are too many).
Training begins with stage 0. Over blocks of `window` groups of the current stage, the share of right answers s moves
the stage:

    s >= upper   the next stage begins
    s <  lower   the stage before comes back
    otherwise    the stage stays: it is in the band where it teaches

Of each pick a share `review` comes from the stages before, the rest from the current one. Groups of other stages,
among them those that were under way when the stage changed, do not enter s.
Assumption: the difficulties order the tasks as the policy finds them. Where the first stage is one that the policy
cannot do, while it can do later ones, training stays there: `sampler/block_success`, the success rate of the last whole
block, stays below `lower` in stage 0. What it is not: a method of one paper; target
bands and review are common practice, and the rule above is ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rl.ports import State
from rl.sampling.config import CurriculumSampling
from rl.sampling.picker import NO_TASKS, Numbers, draw_free, generator
from rl.verdict import Tally
from rollout.schema import Metric


def stages_of(difficulty: npt.NDArray[np.float64], max_stages: int) -> npt.NDArray[np.uint8]:
    """[N] stage of each task: by distinct difficulty, or by equal shares of the distinct ones where they are many."""
    levels, level_of = np.unique(difficulty, return_inverse=True)
    num_stages = min(max_stages, levels.size)
    stages: npt.NDArray[np.uint8] = (level_of * num_stages // levels.size).astype(np.uint8)
    return stages


class Curriculum:
    """Implements `rl.sampling.picker.Picker`."""

    def __init__(self, difficulty: npt.NDArray[np.float64], config: CurriculumSampling, *, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._stage_of = stages_of(difficulty, config.max_stages)
        self._num_stages = int(self._stage_of.max()) + 1
        self._order = np.argsort(self._stage_of, kind="stable")  # tasks stage by stage
        self._starts = np.searchsorted(self._stage_of[self._order], np.arange(self._num_stages + 1))
        self._stage = self._num_picks = 0
        self._num_groups = self._num_right = self._num_judged = 0  # of the block that is being filled
        self._success: float | None = None  # of the last whole block

    def pick(self, count: int, busy: Numbers) -> Numbers:
        rng = generator(self._seed, "curriculum", self._num_picks)
        self._num_picks += 1
        review = draw_free(rng, self._members(0, self._stage), int(self._config.review * count), busy)
        picked = [review, draw_free(rng, self._members(self._stage, self._stage + 1), count - review.size, busy)]
        missing = count - sum(map(len, picked))
        for stage in (*range(self._stage - 1, -1, -1), *range(self._stage + 1, self._num_stages)):
            if not missing:  # a stage with too few free tasks is filled up from its neighbours, easier ones first
                break
            taken = np.concatenate([busy, review])
            picked.append(draw_free(rng, self._members(stage, stage + 1), missing, taken))
            missing -= picked[-1].size
        return rng.permutation(np.concatenate([NO_TASKS, *picked]))

    def update(self, number: int, tally: Tally) -> None:
        if self._stage_of[number] != self._stage or tally.num_judged == 0:
            return
        self._num_groups += 1
        self._num_right += tally.num_right
        self._num_judged += tally.num_judged
        if self._num_groups < self._config.window:
            return
        rate = self._success = self._num_right / self._num_judged
        if rate >= self._config.upper:
            self._stage = min(self._stage + 1, self._num_stages - 1)
        elif rate < self._config.lower:
            self._stage = max(self._stage - 1, 0)
        self._num_groups = self._num_right = self._num_judged = 0

    def state_dict(self) -> State:
        return {
            "stage": self._stage,
            "num_picks": self._num_picks,
            "block": [self._num_groups, self._num_right, self._num_judged],
            "success": self._success,
        }

    def load_state_dict(self, state: State) -> None:
        self._stage, self._num_picks = state["stage"], state["num_picks"]
        self._num_groups, self._num_right, self._num_judged = state["block"]
        self._success = state["success"]

    def metrics(self) -> list[Metric]:
        found = {"sampler/stage": float(self._stage), "sampler/num_stages": float(self._num_stages)}
        if self._success is not None:
            found["sampler/block_success"] = self._success
        return [Metric(name=name, value=value, reduce="last") for name, value in found.items()]

    def _members(self, first: int, end: int) -> Numbers:
        """Tasks of the stages from `first` up to, not including, `end`."""
        return self._order[self._starts[first] : self._starts[end]]
