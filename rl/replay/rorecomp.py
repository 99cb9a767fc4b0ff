"""RoRecomp as a policy: the step's batch becomes a priority batch, left-over answers wait in the store.

The store is read first in, first out. A compensation batch is an update of its own behind the step's, before the
weights are published. Each answer is trained on at most once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rl.batch import StepResult, TrainingBatch, TrainingSample
from rl.plan import StepPlan
from rl.ports import State
from rl.replay.config import RoRecomp
from rl.replay.recompose import Answer, compensation_probability, divide
from rl.replay.store import Kept, TrajectoryStore
from rl.replay.verdicts import Verdict, name_of, verdicts
from rollout.schema import Metric

LABEL = "compensation"


class RoRecompPolicy:
    """Implements `rl.plan.BatchPolicy`. Draws are a function of seed and step."""

    name = "replay"

    def __init__(self, config: RoRecomp, store: TrajectoryStore, *, num_steps: int, seed: int) -> None:
        """`num_steps` is the length of the run, over which compensation fades."""
        self._config = config
        self._store = store
        self._num_steps = num_steps
        self._seed = seed
        self._metrics: dict[str, float] = {}
        self._state: State = {}

    async def plan(self, plan: StepPlan) -> StepPlan:
        """Priority batch, and behind it the compensation batches whose turn has come."""
        judged = verdicts(plan.groups)
        first, left = _divided(plan.batch.samples, judged, self._config.alpha)
        self._metrics = {
            "replay/priority_samples": len(first),
            "replay/left_over_samples": len(left),
            "replay/length_push_all": length_push(plan.batch.samples),
            "replay/length_push_priority": length_push(first),
        }
        more = await asyncio.to_thread(self._compensate, plan.batch, left, judged)
        return replace(plan, batch=replace(plan.batch, samples=tuple(first)), more=(*plan.more, *more))

    async def observe(self, plan: StepPlan, results: Sequence[StepResult]) -> None:
        """Note how far the compensation samples had drifted."""
        drift = [value for result in results for value in result.drift.values()]
        if drift:
            self._metrics["replay/drift"] = float(np.mean(drift))

    def metrics(self) -> list[Metric]:
        values = {**self._metrics, "replay/held": len(self._store)}
        return [Metric(name=name, value=value, reduce="last") for name, value in values.items()]

    def state_dict(self) -> State:
        return {"store": self._store.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self._state = state["store"]

    def save(self, folder: Path) -> None:
        self._store.save(folder)

    def restore(self, folder: Path | None) -> None:
        self._store.restore(folder, self._state)

    def _compensate(
        self, batch: TrainingBatch, left: Sequence[TrainingSample], judged: dict[str, Verdict]
    ) -> list[TrainingBatch]:
        store, step = self._store, batch.step
        if left:
            store.add(step, [_kept(s, judged[name_of(s)]) for s in left])
        held = store.held()
        store.release(held[store.index["step"][held] < step - self._config.max_age])
        size = self._config.batch_samples or max(1, len(batch.samples))
        rng = np.random.default_rng([self._seed, step])
        probability = compensation_probability(
            step, self._num_steps, p_start=self._config.p_start, p_end=self._config.p_end
        )
        batches, discarded = [], 0
        while (held := store.held()).size >= size:
            oldest = held[:size]
            if rng.random() < probability:
                batches.append(self._batch(batch, oldest))
            else:
                discarded += size
            store.release(oldest)
        self._metrics |= {
            "replay/p_comp": probability,
            "replay/compensation_samples": sum(len(b.samples) for b in batches),
            "replay/discarded_samples": discarded,
            "replay/length_push_compensation": length_push([s for b in batches for s in b.samples]),
        }
        return batches

    def _batch(self, batch: TrainingBatch, positions: npt.NDArray[np.int64]) -> TrainingBatch:
        samples = tuple(self._store.read(positions))
        return TrainingBatch(step=batch.step, version=batch.version, samples=samples, num_groups=0, label=LABEL)


def length_push(samples: Sequence[TrainingSample]) -> float:
    """Mean of advantage times length: below zero, training on these shortens answers."""
    if not samples:
        return 0.0
    return float(np.mean([s.advantages[s.loss_mask].mean() * s.loss_mask.sum() for s in samples]))


def _divided(
    samples: Sequence[TrainingSample], judged: dict[str, Verdict], alpha: float
) -> tuple[list[TrainingSample], list[TrainingSample]]:
    """Samples to train on at once, and those left over, both in the order in which they came."""
    groups: defaultdict[str, list[Answer]] = defaultdict(list)
    for sample in samples:
        name = name_of(sample)
        answer = Answer(name=name, length=int(sample.loss_mask.sum()), is_right=judged[name].is_right)
        groups[sample.group_id].append(answer)
    left = {name for answers in groups.values() for name in divide(answers, alpha)[1]}
    return [s for s in samples if name_of(s) not in left], [s for s in samples if name_of(s) in left]


def _kept(sample: TrainingSample, verdict: Verdict) -> Kept:
    return Kept(sample=sample, outcome=verdict.outcome, solved=verdict.solved)
