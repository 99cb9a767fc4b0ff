"""VADE: the tasks whose next group is expected to carry the most gradient, before paying for it (arXiv 2511.18902).

Per task two discounted counts, right a and wrong b, both 0 at first; the belief about its success rate p is
Beta(a + 1, b + 1). One draw p ~ belief per task and pick, worth

    I(p) = p (1 - p)^2        largest at p = 1/3: hard, but solvable

and the best are picked. Then, with lambda 1 = 0.2 and lambda 2 = 0.999,

    picked, s of n right:   a <- lambda 1 a + s,   b <- lambda 1 b + (n - s)     the policy was trained on it
    not picked:             a <- lambda 2 a,       b <- lambda 2 b               belief relaxes to the prior

Assumption: neighbouring policies solve a task about equally often. What it is not: an estimate of difficulty that
lasts; and no shaped reward enters, only right and wrong.

Ours, not the paper's. (1) lambda 2 is applied when a task is read, as lambda 2^(picks since it was counted), which is
the same number without touching every task. (2) A task whose group is under way cannot be picked. (3) The answers of a
group count 0.9^lag, lag being the batches published between its sampling and its training. (4) A share of each pick is
uniform. (5) In a pool larger than `candidates` only so many tasks compete: half of them tried before, half drawn from
all. Among ten million untried tasks some would outbid every known one by chance, and nothing learned would ever be
used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rl.ports import State
from rl.sampling.config import VadeSampling
from rl.sampling.known import Known
from rl.sampling.picker import Numbers, draw, generator, without
from rl.verdict import Tally
from rollout.schema import Metric

SURPRISE_MEMORY = 0.99
FloatArray = npt.NDArray[np.float64]


def worth_of(p: FloatArray, kind: str = "hard") -> FloatArray:
    """Expected use of a group at success rate `p`, elementwise."""
    return p * (1 - p) ** 2 if kind == "hard" else p * (1 - p)


class Vade:
    """Implements `rl.sampling.picker.Picker`. Per task 4 bytes of right, wrong, and the pick it was last counted at;
    a state holds those of the tasks that were tried, because the others are as they were at first."""

    def __init__(self, num_tasks: int, config: VadeSampling, *, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._right = np.zeros(num_tasks, dtype=np.float32)
        self._wrong = np.zeros(num_tasks, dtype=np.float32)
        self._counted_at = np.zeros(num_tasks, dtype=np.uint32)  # 0: never
        self._known = Known()
        self._num_picks = 0
        self._surprise = 0.0
        self._success = [0.5, 0.5]  # mean belief of the last pick: of what was picked, and of all that competed

    def pick(self, count: int, busy: Numbers) -> Numbers:
        rng = generator(self._seed, "vade", self._num_picks)
        candidates = self._candidates(rng, count, busy)
        right, wrong = self.belief(candidates)
        mean = right / (right + wrong)
        p = mean if self._config.draw == "mean" else rng.beta(right, wrong)
        worth = worth_of(p, self._config.worth)
        num_best = max(0, min(count, candidates.size) - int(self._config.uniform_share * count))
        order = np.argpartition(-worth, num_best - 1) if 0 < num_best < candidates.size else np.arange(candidates.size)
        best, rest = order[:num_best], order[num_best:]
        picked = np.concatenate([best, draw(rng, rest, count - num_best)])
        self._success = [float(mean[picked].mean()), float(mean.mean())]
        self._num_picks += 1
        return rng.permutation(candidates[picked])

    def update(self, number: int, tally: Tally) -> None:
        if tally.num_judged == 0:  # unjudged is not wrong, and nothing newer is known of the task
            return
        if not self._counted_at[number]:
            self._known.add(number)
        now = max(1, self._num_picks)
        idle = max(0, now - 1 - int(self._counted_at[number]))
        keep = self._config.selected_decay * self._config.idle_decay**idle
        weight = self._config.lag_decay**tally.lag
        right, wrong = float(self._right[number]), float(self._wrong[number])
        expected = (right + 1) / (right + wrong + 2)
        self._right[number] = keep * right + weight * tally.num_right
        self._wrong[number] = keep * wrong + weight * (tally.num_judged - tally.num_right)
        self._counted_at[number] = now
        surprise = abs(expected - tally.num_right / tally.num_judged)
        self._surprise = SURPRISE_MEMORY * self._surprise + (1 - SURPRISE_MEMORY) * surprise

    def belief(self, numbers: Numbers) -> tuple[FloatArray, FloatArray]:
        """Both parameters of the Beta beliefs about these tasks, as they are now."""
        idle = self._num_picks - self._counted_at[numbers].astype(np.int64)
        keep = self._config.idle_decay ** idle.astype(np.float64)
        return self._right[numbers] * keep + 1.0, self._wrong[numbers] * keep + 1.0

    def state_dict(self) -> State:
        return {
            "num_picks": self._num_picks,
            "surprise": self._surprise,
            "success": list(self._success),
            "known": (known := self._known.numbers().copy()),
            "right": self._right[known],
            "wrong": self._wrong[known],
            "counted_at": self._counted_at[known],
        }

    def load_state_dict(self, state: State) -> None:
        self._num_picks, self._surprise, self._success = state["num_picks"], state["surprise"], list(state["success"])
        known = state["known"]
        for mine, saved in ((self._right, "right"), (self._wrong, "wrong"), (self._counted_at, "counted_at")):
            mine[:] = 0
            mine[known] = state[saved]
        self._known.load(known)

    def metrics(self) -> list[Metric]:
        picked, pool = self._success
        found = {
            "sampler/known_share": len(self._known) / self._right.size,
            "sampler/surprise": self._surprise,
            "sampler/believed_success_picked": picked,
            "sampler/believed_success_pool": pool,
        }
        return [Metric(name=name, value=value, reduce="last") for name, value in found.items()]

    def _candidates(self, rng: np.random.Generator, count: int, busy: Numbers) -> Numbers:
        """The tasks that compete: all that are free, or a sample of the pool."""
        size, most = self._right.size, max(self._config.candidates, 2 * count)
        if size <= most + busy.size:
            return without(np.arange(size), busy)
        tried = draw(rng, self._known.numbers(), most // 2)
        drawn = rng.integers(size, size=most - tried.size)
        return without(np.unique(np.concatenate([tried, drawn])), busy)
