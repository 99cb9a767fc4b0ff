"""UFT: how much of the solution a response begins with.

    l ~ Binomial(chunks, p(t)),   p(t) = end + (start - end) (1 + cos(pi t / (T - 1))) / 2,   t = 0 .. T - 1; then none
    L = L_RL over what the policy draws after the hint + coefficient * L_SFT over the hint

Source: UFT, Liu et al. 2025 (arXiv 2505.16984). Hint tokens are unsampled: no loss and no ratio in the first term. The
published second term is a sum over hint tokens; here it is their mean, as of every stream (`rl.packing.weigh`).

Assumption: parts are cut by characters of the thinking, at the same places for all siblings, and become tokens on their
own; what is trained on is exactly what was put in. l = chunks leaves only the answer to the policy.

What it is not: a change of the task. Baselines compare siblings with one hint.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rl.hybrid.config import HintsConfig
from rl.ports import State
from rl.verdict import Tally
from rollout.schema import Job, Metric, Task

HINT_DRAWS = 7  # tells these draws from others of the same seed


def hint_probability(config: HintsConfig, step: int) -> float:
    """p at training step `step`, from 1; 0 after the last step with hints."""
    if step > config.steps:
        return 0.0
    progress = (step - 1) / max(1, config.steps - 1)
    return config.end + (config.start - config.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def hint(thinking: str, num_chunks: int, chunks: int) -> str:
    """The first `num_chunks` of `chunks` equal parts."""
    return thinking[: round(len(thinking) * num_chunks / chunks)]


class Hints:
    """Implements `rl.ports.Allotter`: the budget of a job gets the beginning of its task's solution. The draw is a
    function of the job's seed, so a job that is issued again has the hint it had."""

    def __init__(self, config: HintsConfig, *, opening: str) -> None:
        """`opening` is the mark that the response must write first, where the prompt does not end with it."""
        self._config = config
        self._opening = opening

    def allot(self, job: Job, step: int) -> Job:
        shown = (job.task.meta.get("demonstrations") or {}).get(job.budget.effort)
        if shown is None:
            return job
        rng = np.random.default_rng([HINT_DRAWS, job.sampling.seed or 0])
        count = int(rng.binomial(self._config.chunks, hint_probability(self._config, step)))
        text = hint(str(shown["thinking"]), count, self._config.chunks)
        if not text:
            return job
        prefix = job.budget.prefix + self._opening + text
        return replace(job, budget=replace(job.budget, prefix=prefix, opens_thinking=False))

    def observe(self, task: Task, tally: Tally) -> None:
        """Nothing to learn: the schedule is fixed."""

    def metrics(self) -> list[Metric]:
        return []

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to load."""
