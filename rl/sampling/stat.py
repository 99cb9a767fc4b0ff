"""STAT: more of the skills that the policy lacks (after Skill-Targeted Adaptive Training).

A judged answer that is wrong counts as a missing skill for each skill of its task. The profile of missing skills is

    w_k = m_k / sum_j m_j        m_k: discounted count of wrong answers to tasks with skill k

taken anew every `refresh_every` picks, when old counts are multiplied by `memory`. A pick of B tasks draws for each of
its (1 - uniform_share) B places a skill from w and then a task with that skill; the other places draw their skill
evenly. Until a first wrong answer all places do.
Assumption: a task's skills are what its failure is about. What it is not: the paper's procedure. There a process
reward model finds the hard questions and a teacher model names the two or three skills that are missing in each
answer; here every skill of the task is blamed, which a plain verifier can say. A skill that is never learned keeps
drawing: the metrics name the most missing one, and `dropped/all_wrong` says if it teaches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rl.ports import State
from rl.sampling.config import StatSampling
from rl.sampling.picker import NO_TASKS, Numbers, draw_free, generator
from rl.verdict import Tally
from rollout.schema import Metric

MOST_REPORTED = 10
FloatArray = npt.NDArray[np.float64]


class Stat:
    """Implements `rl.sampling.picker.Picker`.

    Args:
        skills: names of the K skills.
        starts, skill_ids: tasks' skills as a sparse table: task i has `skill_ids[starts[i] : starts[i + 1]]`, at least
            one.
    """

    def __init__(
        self, skills: Sequence[str], starts: Numbers, skill_ids: Numbers, config: StatSampling, *, seed: int
    ) -> None:
        self._config = config
        self._seed = seed
        self._skills = tuple(skills)
        self._starts, self._skill_ids = starts, skill_ids
        tasks = np.repeat(np.arange(starts.size - 1), np.diff(starts))
        order = np.argsort(skill_ids, kind="stable")
        self._tasks_by_skill = tasks[order]
        self._skill_starts = np.searchsorted(skill_ids[order], np.arange(len(skills) + 1))
        self._wrong = np.zeros(len(skills))
        self._judged = np.zeros(len(skills))
        self._profile = np.full(len(skills), 1 / len(skills))
        self._num_picks = 0

    def pick(self, count: int, busy: Numbers) -> Numbers:
        if self._num_picks % self._config.refresh_every == 0:
            self._refresh()
        rng = generator(self._seed, "stat", self._num_picks)
        self._num_picks += 1
        num_even = round(self._config.uniform_share * count)
        even = np.full(len(self._skills), 1 / len(self._skills))
        places = rng.multinomial(count - num_even, self._profile) + rng.multinomial(num_even, even)
        picked = NO_TASKS
        for skill in np.flatnonzero(places):
            members = self._tasks_by_skill[self._skill_starts[skill] : self._skill_starts[skill + 1]]
            picked = np.concatenate([picked, draw_free(rng, members, int(places[skill]), np.append(busy, picked))])
        if missing := count - picked.size:  # a skill with fewer free tasks than places: from all tasks
            rest = np.arange(self._starts.size - 1)
            picked = np.concatenate([picked, draw_free(rng, rest, missing, np.append(busy, picked))])
        return rng.permutation(picked)

    def update(self, number: int, tally: Tally) -> None:
        for skill in self._skill_ids[self._starts[number] : self._starts[number + 1]].tolist():
            self._wrong[skill] += tally.num_judged - tally.num_right
            self._judged[skill] += tally.num_judged

    def state_dict(self) -> State:
        return {
            "num_picks": self._num_picks,
            "wrong": self._wrong.copy(),
            "judged": self._judged.copy(),
            "profile": self._profile.copy(),
        }

    def load_state_dict(self, state: State) -> None:
        self._num_picks = state["num_picks"]
        self._wrong, self._judged = state["wrong"].copy(), state["judged"].copy()
        self._profile = state["profile"].copy()

    def metrics(self) -> list[Metric]:
        used = self._profile[self._profile > 0]
        entropy = float(-(used * np.log(used)).sum())
        most = np.argsort(-self._profile, kind="stable")[:MOST_REPORTED]
        found = {"sampler/profile_entropy": entropy}
        for k in most:
            found[f"sampler/missing/{self._skills[k]}"] = float(self._profile[k])
            if self._judged[k]:
                found[f"sampler/success/{self._skills[k]}"] = 1 - float(self._wrong[k] / self._judged[k])
        return [Metric(name=name, value=value, reduce="last") for name, value in found.items()]

    def _refresh(self) -> None:
        if self._wrong.sum() > 0:
            self._profile = self._wrong / self._wrong.sum()
        self._wrong *= self._config.memory
        self._judged *= self._config.memory
