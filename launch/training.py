"""The training phase: the loop, and what brings it back after a death of the learner or of the reference model.

Both hold state that the others must agree with, so a new process alone would not do. Every rank is started again, the
engines drop what they are writing, and the loop is built anew from the newest checkpoint, as `--resume` would in a
new session: steps after it are set aside and trained again. Engines, judge and step scorers stay up.

Imported inside a cluster session only, like `launch/build.py`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from launch import build
from launch.build import Services
from launch.live.control import ControlService
from launch.live.settings import LiveSettings
from launch.reporting import PhaseReporter
from launch.work import Work
from rl import driver
from rl.control import Control
from rl.learner.errors import LearnerDiedError, ReferenceDiedError
from rl.resume import resume
from rl.run import Run, RunFailedError
from rollout.tasks.splits import TaskSplits

DEATHS = (LearnerDiedError, ReferenceDiedError)


async def train(job: Work, services: Services, tasks: TaskSplits) -> None:
    """Train to the last step. Raises what ended the run, a death beyond `loop.max_restarts` included."""
    allowed = job.config.loop.max_restarts
    while True:
        try:
            await _attempt(job, services, tasks)
            return
        except (RunFailedError, *DEATHS) as error:
            death = error.__cause__ if isinstance(error, RunFailedError) else error
            if not isinstance(death, DEATHS):
                raise
            if services.num_restarts >= allowed:
                error.add_note(
                    f"training was brought back {services.num_restarts} times: loop.max_restarts = {allowed}"
                )
                raise
            left = allowed - services.num_restarts - 1
            job.console.warning(f"{death}. All ranks are started again; of loop.max_restarts = {allowed}, {left} left")
        services = await _revived(job, services)


async def _attempt(job: Work, services: Services, tasks: TaskSplits) -> None:
    """From the newest checkpoint to the end, or to the first cause of a failure."""
    config, directory = job.config, job.directory
    reporter = PhaseReporter(job.console, job.log, num_steps=config.loop.num_steps)
    run = build.build_run(
        config,
        directory,
        services,
        tasks=tasks,
        probes=json.loads(directory.probes.read_text(encoding="utf-8")),
        geometry_prompts=json.loads(directory.geometry_prompts.read_text(encoding="utf-8")),
        reporter=reporter,
    )
    await resume(run)
    reporter.resumed(run.step)
    await _control(job, run)
    run.mirror = job.mirror
    run.mirror.begin()
    await driver.train(run)


async def _revived(job: Work, services: Services) -> Services:
    """The services with new learner ranks and a new reference model, and engines that take older weights."""
    for part in (services.learner, services.reference):
        if part is not None:
            part.close()
    learner, reference = build.start_weights(job.config, job.directory, job.directory.start_model, seats=services.seats)
    async with asyncio.timeout(job.config.cluster.start_deadline_s):
        await learner.ready()
        if reference is not None:
            await reference.ready()
        await services.engines.start_over()
    return replace(services, learner=learner, reference=reference, num_restarts=services.num_restarts + 1)


async def _control(job: Work, run: Run) -> None:
    """What people asked of this run before holds again, and they may ask for more."""
    settings = LiveSettings(job.config, run)
    run.control = Control(adopt=settings.adopt, log=job.directory.control_log)
    await run.control.resume(run.step)
    if not job.config.cluster.control:
        return
    try:
        service = ControlService(run, settings, place=job.directory.control, loop=asyncio.get_running_loop())
    except OSError as error:
        job.console.warning(f"`ponder ctl` will not reach this run: no port on the loopback interface ({error})")
        return
    service.start()
    run.closers = (*run.closers, service.close)
