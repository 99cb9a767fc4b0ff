"""One job, from the engine to its scored group."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rl.run import Run
from rollout.schema import Float32Array, Group, Job, Outcome, Purpose, ScoredGroup, StepScores


async def scored_group(run: Run, job: Job) -> ScoredGroup:
    """One job with verdicts and step scores, and beside it the greedy attempt where credit asks for one."""
    if not run.credit.needs_greedy_baseline:
        return await _scored(run, job)
    async with asyncio.TaskGroup() as both:
        siblings = both.create_task(_scored(run, job))
        greedy = both.create_task(_scored(run, greedy_job(job)))
    return replace(siblings.result(), greedy=greedy.result())


def greedy_job(job: Job) -> Job:
    """The same task under the same budget, once and without chance."""
    return replace(
        job,
        group_id=f"{job.group_id}-greedy",
        num_siblings=1,
        sampling=replace(job.sampling, temperature=0.0),
        purpose=Purpose.BASELINE,
    )


async def _scored(run: Run, job: Job) -> ScoredGroup:
    """Generate, then judge and score the steps side by side, then add the shaping terms."""
    owner = f"roll of group {job.group_id}"
    with run.clock.phase("generate", job.group_id):
        group = await run.waits.outside(owner, "the generator", run.generator.generate(job))
    run.clock.sampled(sum(int(np.count_nonzero(t.sampled)) for t in group.trajectories))
    async with asyncio.TaskGroup() as services:
        scoring = services.create_task(_score_steps(run, owner, group))
        outcomes = await _judge(run, owner, group)
    shaped = {**_shaped(run, group, outcomes), **await _explored(run, owner, group, outcomes)}
    return ScoredGroup(group=group, outcomes=outcomes, steps=scoring.result(), shaped=shaped)


async def _judge(run: Run, owner: str, group: Group) -> tuple[Outcome, ...]:
    with run.clock.phase("judge", group.job.group_id):
        return await run.waits.outside(owner, "the judge", run.judge.judge(group))


async def _score_steps(run: Run, owner: str, group: Group) -> tuple[StepScores | None, ...]:
    is_late = run.online_prm is not None and run.online_prm.scores_late  # scored when the batch is packed
    # The steps of a baseline are read by nobody.
    if run.step_scorer is None or is_late or group.job.purpose is Purpose.BASELINE:
        return (None,) * len(group.trajectories)
    with run.clock.phase("score_steps", group.job.group_id):
        return await run.waits.outside(owner, "the step scorer", run.step_scorer.score(group))


async def _explored(run: Run, owner: str, group: Group, outcomes: tuple[Outcome, ...]) -> Mapping[str, Float32Array]:
    """The exploration bonus. A baseline is not paid for being different."""
    if run.explorer is None or group.job.purpose is Purpose.BASELINE:
        return {}
    with run.clock.phase("explore", group.job.group_id):
        return await run.waits.outside(owner, "the exploration bonus", run.explorer.term(group, outcomes))


def _shaped(run: Run, group: Group, outcomes: tuple[Outcome, ...]) -> dict[str, Float32Array]:
    """All components of all shapers. Raises ValueError when two share a name or one is not finite."""
    terms: dict[str, Float32Array] = {}
    for shaper in run.shapers:
        for name, values in shaper(group, outcomes).items():
            if name in terms:
                raise ValueError(
                    f"shaping components need distinct names, got {name!r} again from shaper {shaper.name!r}"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"shaper {shaper.name!r} must give finite numbers, got {name} = {values}")
            terms[name] = values
    return terms
