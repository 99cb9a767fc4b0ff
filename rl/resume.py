"""What a run writes into a checkpoint, and how it goes on from one."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path

from rl import online_prm, plan, reference
from rl.checkpoint import Checkpoint, CheckpointError
from rl.ports import State
from rl.run import Drought, Run

POLICIES = "policies"  # folder of a checkpoint


def driver_state(run: Run) -> State:
    """All state of the loop, JSON-able, at one moment between two steps."""
    return {
        "step": run.step,
        "version": run.version,
        "evaluated_step": run.evaluated_step,
        "drought": {"length": run.drought.length, "reasons": dict(run.drought.reasons)},
        "gate": run.gate.state_dict(),
        "jobs": run.jobs.state_dict(),
        "reference": reference.state_of(run),
        "policies": plan.states(run.policies),
    }


async def save(run: Run) -> None:
    """Write a checkpoint of the last whole step. Raises CheckpointError."""

    async def save_learner(path: str) -> None:
        await run.waits.outside("learn", "the learner to save itself", run.learner.save(path))
        await reference.save(run, path)
        await online_prm.save(run, path)
        await asyncio.to_thread(plan.save, run.policies, Path(path).parent / POLICIES)

    await run.checkpointer.save(run.step, save_learner=save_learner, state=driver_state(run), score=_score(run))
    run.saved_step = run.step
    if run.mirror is not None:
        run.mirror.begin()


def _score(run: Run) -> float | None:
    """How good the weights are by `loop.best_metric`; higher is better. None where the step has no such number."""
    name = run.loop.best_metric
    value = run.metrics.value(run.step, name.removeprefix("-")) if name else None
    if value is None or not math.isfinite(value):
        return None
    return -value if name.startswith("-") else value


async def save_or_warn(run: Run) -> None:
    """Write a checkpoint; a failure is a warning, because the run is sound and tries again after the next step."""
    try:
        await save(run)
    except CheckpointError as error:
        run.reporter.warning(str(error))


async def resume(run: Run) -> Checkpoint | None:
    """Put `run` where its newest whole checkpoint left it; without one, at the very start.

    Records and metrics beyond that point are set aside first, so that nothing is counted twice. Call before `train`.
    """
    checkpoint = run.checkpointer.latest(run.reporter.warning)
    step = -1 if checkpoint is None else checkpoint.step
    run.recorder.set_aside(after_step=step)
    run.metrics.set_aside(after_step=step)
    if checkpoint is None:
        plan.restore(run.policies, {}, None)
        return None
    state = checkpoint.state
    run.jobs.load_state_dict(state["jobs"])
    run.gate.load_state_dict(state["gate"])
    run.drought = Drought(state["drought"]["length"], Counter(state["drought"]["reasons"]))
    run.step, run.version, run.saved_step = state["step"], state["version"], state["step"]
    run.evaluated_step = state["evaluated_step"]
    plan.restore(run.policies, state.get("policies", {}), checkpoint.path / POLICIES)
    await run.waits.outside(
        "resume", "the learner to load its checkpoint", run.learner.load(str(checkpoint.learner_path))
    )
    await reference.restore(run, checkpoint.path, state["reference"])
    await online_prm.restore(run, checkpoint.path)
    return checkpoint
