"""The reference model's part in the loop: scores before credit, weights after a step, place in a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rl.assembly import ReferenceLogprobs
from rl.batch import TrainingBatch
from rl.buffer import Slot
from rl.ports import State
from rl.run import Run
from rollout.schema import Metric

FOLDER = "reference"  # beside the learner's, in a checkpoint


async def score_slots(run: Run, step: int, slots: Sequence[Slot]) -> ReferenceLogprobs | None:
    """Reference log-probabilities of all admitted groups of a step; None without a reference model."""
    if run.reference is None:
        return None
    groups = [scored.group for slot in slots for scored in slot.admitted]
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    with run.clock.phase("reference"):
        target = f"the reference model to score step {step}"
        scored = iter(await run.waits.outside("pack", target, run.reference.score(trajectories)))
    return {group.job.group_id: [next(scored) for _ in group.trajectories] for group in groups}


async def follow(run: Run, step: int) -> None:
    """Let the reference model take the learner's weights after `step`, if that is due."""
    if run.reference is not None:
        target = f"the reference model to take the weights of step {step}"
        await run.waits.outside("learn", target, run.reference.follow(step))


def state_of(run: Run) -> State | None:
    """The reference model's entry in the checkpoint; None without one."""
    return None if run.reference is None else run.reference.state_dict()


async def save(run: Run, learner_path: str) -> None:
    """Write the reference model's weights into the checkpoint that the learner saves itself in."""
    if run.reference is not None:
        path = str(Path(learner_path).parent / FOLDER)
        await run.waits.outside("learn", "the reference model to save itself", run.reference.save(path))


async def restore(run: Run, checkpoint: Path, state: State | None) -> None:
    """Put the reference model where the checkpoint left it."""
    if run.reference is not None and state is not None:
        call = run.reference.load(str(checkpoint / FOLDER), state)
        await run.waits.outside("resume", "the reference model to load its checkpoint", call)


def reference_metrics(batch: TrainingBatch) -> list[Metric]:
    """Mean distance of sampler and reference over the loss tokens: k1 (can be negative) and k3 (cannot)."""
    pairs = [
        (s.sampler_logprobs - s.reference_logprobs)[s.loss_mask]
        for s in batch.samples
        if s.reference_logprobs is not None
    ]
    if not pairs:
        return []
    k1 = np.concatenate(pairs).astype(np.float64)
    k3 = np.expm1(np.minimum(-k1, 20.0)) + k1
    values = {"reference/k1": k1.mean(), "reference/k3": k3.mean()}
    return [Metric(name=name, value=float(value), reduce="last") for name, value in values.items()]
