"""Hybrid updates as policies: demonstrations where the policy fails, and the supervised term of hints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rl.batch import Stream, TrainingSample
from rl.hybrid.config import DemonstrationsConfig
from rl.hybrid.teach import group_advantage, learns_from_demonstration
from rl.plan import Stateless, StepPlan
from rl.verdict import is_correct
from rollout.schema import BoolArray, Int32Array, Job, Metric, PolicySpan, ScoredGroup


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demonstration:
    """A worked solution, rendered as a response of the policy would be."""

    token_ids: Int32Array  # [L] prompt and response
    num_given: int  # tokens that are not learned: the prompt and what the effort puts in
    is_right: bool  # it arrives at the task's answer


Demonstrations = Mapping[tuple[str, str], Demonstration]
"""By task key and effort."""


class DemonstrationPolicy(Stateless):
    """Implements `rl.plan.BatchPolicy`."""

    name = "demonstrations"

    def __init__(self, config: DemonstrationsConfig, demonstrations: Demonstrations) -> None:
        self._config = config
        self._demonstrations = demonstrations
        self._metrics: list[Metric] = []

    async def plan(self, plan: StepPlan) -> StepPlan:
        """Add the solutions of groups at or below their gate, and take their own answers out where HPT does."""
        shown: list[TrainingSample] = []
        taught: set[str] = set()
        missing = 0
        for settled in plan.groups:
            scored = settled.scored
            job = scored.group.job
            if job.group_id in taught or not self._fails(scored):
                continue
            demonstration = self._demonstrations.get((job.task.key, job.budget.effort))
            weight = 0.0 if demonstration is None else self._weight(scored, demonstration)
            missing += demonstration is None
            if demonstration is None or weight == 0.0:
                continue
            shown.append(_sample(job, demonstration, weight, version=plan.batch.version))
            if demonstration.is_right:
                taught.add(job.group_id)
        total = max(1, len(plan.groups))
        values = {
            "taught": len(taught) / total,
            "negative": (len(shown) - len(taught)) / total,
            "missing": missing / total,
        }
        self._metrics = [Metric(name=f"demonstrations/{n}", value=v, reduce="last") for n, v in values.items()]
        dropped = taught if self._config.rollouts == "drop" else set()
        own = [s for s in plan.batch.samples if s.stream is not Stream.FRESH or s.group_id not in dropped]
        batch = replace(plan.batch, samples=(*own, *shown))
        return replace(plan, batch=batch, taught=plan.taught | taught)

    def metrics(self) -> list[Metric]:
        return self._metrics

    def _fails(self, scored: ScoredGroup) -> bool:
        verdicts = [v for v in map(is_correct, scored.outcomes) if v is not None]
        gate = self._config.gates.get(scored.group.job.task.source, self._config.gate)
        return bool(verdicts) and learns_from_demonstration(sum(verdicts), gate)

    def _weight(self, scored: ScoredGroup, demonstration: Demonstration) -> float:
        if not demonstration.is_right:
            return -self._config.negative
        if self._config.advantage == "constant":
            return self._config.coefficient
        scores = [outcome.score for outcome in scored.outcomes if outcome.score is not None]
        return self._config.coefficient * group_advantage(scores)


class HintPolicy(Stateless):
    """Implements `rl.plan.BatchPolicy`: the text that responses were given to begin with is learned as well."""

    name = "hints"

    def __init__(self, coefficient: float) -> None:
        self._coefficient = coefficient
        self._metrics: list[Metric] = []

    async def plan(self, plan: StepPlan) -> StepPlan:
        """One sample a group: all its siblings begin alike."""
        added: list[TrainingSample] = []
        tokens = 0
        for settled in plan.groups:
            trajectory = settled.scored.group.trajectories[0]
            given = given_tokens(trajectory.sampled, trajectory.prompt_len)
            tokens += int(given.sum())
            job = settled.scored.group.job
            if job.budget.prefix and given.any() and trajectory.sampled.any() and self._coefficient > 0:
                end = int(np.flatnonzero(given)[-1]) + 1
                added.append(
                    _taught(
                        job, trajectory.token_ids[:end], given[:end], self._coefficient, plan.batch.version, place=1
                    )
                )
        mean = tokens / max(1, len(plan.groups))
        self._metrics = [Metric(name="hints/tokens", value=mean, reduce="last")]
        return replace(plan, batch=replace(plan.batch, samples=(*plan.batch.samples, *added)))

    def metrics(self) -> list[Metric]:
        return self._metrics


def given_tokens(sampled: BoolArray, prompt_len: int) -> BoolArray:
    """[L] response tokens before the first sampled one."""
    given = np.zeros_like(sampled)
    drawn = np.flatnonzero(sampled)
    given[prompt_len : int(drawn[0]) if drawn.size else prompt_len] = True
    return given


def _sample(job: Job, demonstration: Demonstration, weight: float, *, version: int) -> TrainingSample:
    learned = np.arange(demonstration.token_ids.size) >= demonstration.num_given
    return _taught(job, demonstration.token_ids, learned, weight, version, place=0)


def _taught(
    job: Job, token_ids: Int32Array, learned: BoolArray, weight: float, version: int, *, place: int
) -> TrainingSample:
    """`place` tells the samples of one group apart, behind its siblings."""
    return TrainingSample(
        group_id=job.group_id,
        sibling=job.num_siblings + place,
        effort=job.budget.effort,
        token_ids=token_ids,
        loss_mask=learned,
        advantages=np.where(learned, np.float32(weight), np.float32(0)),
        sampler_logprobs=np.zeros(token_ids.size, dtype=np.float32),
        policy=PolicySpan(start=version, end=version),
        source=job.task.source,
        stream=Stream.DEMONSTRATION,
    )
