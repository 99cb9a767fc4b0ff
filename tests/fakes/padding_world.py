"""A world without a model, in which step rewards can be farmed: numpy, one token a step.

A task needs two steps of WORK. PAD says something true that leads nowhere, and scores like work. STOP ends the answer.
The policy is a softmax over the three actions in each state (WORK done so far), trained with the product's own credit
by plain policy gradient. The verdict does not look at padding, so nothing but the step scores can teach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from rl.credit.build import build_credit
from rl.credit.config import RlooCredit
from rl.ports import Credit
from rollout.schema import Float32Array, Group, ScoredGroup, ScoreKind, StepScores, StepSpan
from tests.fakes.loop import PROMPT_LEN, make_job, make_trajectory, outcome

WORK, PAD, STOP = range(3)
NEEDED = 2
MAX_STEPS = 12
GROUP_SIZE = 8
START = (0.5, 0.2, 0.3)  # chances of the actions before training


class Move(NamedTuple):
    state: int  # WORK done before
    action: int
    works: bool  # it was WORK and did not fail


@dataclass
class Summary:
    """What the trained policy does, over fresh answers."""

    accuracy: float
    pads: float  # per answer
    steps: float


class PaddingWorld:
    """`work_fails` is the chance that a step of WORK scores 0.1 and does not count; PAD never fails."""

    def __init__(self, *, seed: int, work_fails: float = 0.0) -> None:
        self._rng = np.random.default_rng(seed)
        self._work_fails = work_fails
        self.logits = np.tile(np.log(np.asarray(START)), (NEEDED + 1, 1))

    def train(self, credit: Credit, *, updates: int, groups: int = 6, lr: float = 1.0) -> None:
        for _ in range(updates):
            played = [self._play(f"g{i}") for i in range(groups)]
            advantages = credit([scored for scored, _ in played])
            gradient, count = np.zeros_like(self.logits), 0
            for (_, paths), values in zip(played, advantages, strict=True):
                for path, value in zip(paths, values, strict=True):
                    assert value is not None
                    for move, weight in zip(path, value[PROMPT_LEN:], strict=True):
                        gradient[move.state] += weight * (np.eye(3)[move.action] - self._chances(move.state))
                        count += 1
            self.logits += lr * gradient / count * len(START)

    def summary(self, answers: int = 200) -> Summary:
        paths = [self._path() for _ in range(answers)]
        return Summary(
            accuracy=float(np.mean([_is_right(path) for path in paths])),
            pads=float(np.mean([sum(move.action == PAD for move in path) for path in paths])),
            steps=float(np.mean([len(path) for path in paths])),
        )

    def _chances(self, state: int) -> np.ndarray:
        powers = np.exp(self.logits[state] - self.logits[state].max())
        return np.asarray(powers / powers.sum())

    def _path(self) -> list[Move]:
        path: list[Move] = []
        done = 0
        while len(path) < MAX_STEPS and (not path or path[-1].action != STOP):
            action = int(np.searchsorted(np.cumsum(self._chances(done)), self._rng.random()))
            works = action == WORK and self._rng.random() >= self._work_fails
            path.append(Move(done, min(action, STOP), works))
            done = min(NEEDED, done + works)
        return path

    def _play(self, group_id: str) -> tuple[ScoredGroup, list[list[Move]]]:
        paths = [self._path() for _ in range(GROUP_SIZE)]
        job = make_job(group_id, num_siblings=len(paths))
        trajectories = tuple(make_trajectory(group_id, i, length=len(path)) for i, path in enumerate(paths))
        scored = ScoredGroup(
            group=Group(job=job, trajectories=trajectories),
            outcomes=tuple(outcome(float(_is_right(path))) for path in paths),
            steps=tuple(self._scores(path) for path in paths),
        )
        return scored, paths

    def _scores(self, path: list[Move]) -> StepScores:
        spans = [i for i, move in enumerate(path) if move.action != STOP]
        good = np.asarray([0.9 if path[i].action == PAD or path[i].works else 0.1 for i in spans])
        return StepScores(
            spans=tuple(StepSpan(start=PROMPT_LEN + i, end=PROMPT_LEN + i + 1) for i in spans),
            scores=(good + self._rng.uniform(-0.05, 0.05, len(spans))).astype(np.float32),
            kind=ScoreKind.PROB,
            scorer="fake",
        )


def _is_right(path: list[Move]) -> bool:
    return sum(move.works for move in path) >= NEEDED


class SummedCredit:
    """What not to do: the sum of an answer's step scores joins its reward. Implements `rl.ports.Credit`."""

    name = "summed"
    needs_greedy_baseline = False

    def __call__(self, groups: Sequence[ScoredGroup]) -> list[tuple[Float32Array | None, ...]]:
        summed = [
            replace(g, shaped={"sum": np.asarray([s.scores.sum() for s in g.steps if s is not None], dtype=np.float32)})
            for g in groups
        ]
        found: list[tuple[Float32Array | None, ...]] = list(build_credit(RlooCredit())(summed))
        return found


def trained(credit: Credit, *, seed: int, updates: int = 60, work_fails: float = 0.0) -> Summary:
    world = PaddingWorld(seed=seed, work_fails=work_fails)
    world.train(credit, updates=updates)
    return world.summary()
