"""A step scorer that learns from the run: trained on each batch of rollouts, with the verdicts as labels (PRIME).

    before   a batch's groups train the scorer, then are scored by it, then get credit; one scorer version a batch
    after    groups are scored as they come; once the policy has trained on them, they train the scorer

Only admitted groups with right and wrong answers teach: groups of one kind would teach the share of right answers
instead of what makes one right. An unjudged answer teaches nothing.

The scorer is saved with the learner, and beside it the step of its last update: with "before" the loop may have gone
one update ahead of the checkpoint, which a resumed run then does not make twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rl.buffer import Slot
from rl.learning_scorer import OnlinePrm
from rl.run import Run
from rl.verdict import is_correct
from rollout.schema import ScoredGroup, StepScores, Trajectory

FOLDER = "online_prm"  # beside the learner's, in a checkpoint
_PLACE = "updated_step.json"


async def before_credit(run: Run, step: int, slots: Sequence[Slot]) -> None:
    """With "before": train on the admitted groups of a step, then score them in their slots."""
    online = run.online_prm
    if online is None or online.order != "before":
        return
    await _update(run, online, step, [scored for slot in slots for scored in slot.admitted])
    places = [(slot, at) for slot in slots for at, reason in enumerate(slot.drop_reasons) if reason is None]
    with run.clock.phase("score_steps"):
        found = await asyncio.gather(*(_score(run, slot.attempts[at]) for slot, at in places))
    for (slot, at), steps in zip(places, found, strict=True):
        slot.attempts[at] = replace(slot.attempts[at], steps=steps)


async def after_training(run: Run, step: int, groups: Sequence[ScoredGroup]) -> None:
    """With "after": train on the groups that the policy has just trained on."""
    online = run.online_prm
    if online is not None and online.order == "after":
        await _update(run, online, step, groups)


async def save(run: Run, learner_path: str) -> None:
    """Write the scorer into the checkpoint that the learner saves itself in."""
    online = run.online_prm
    if online is None:
        return
    folder = Path(learner_path).parent / FOLDER
    async with online.lock:
        await run.waits.outside("learn", "the step scorer to save itself", online.scorer.save(str(folder)))
        place = json.dumps({"updated_step": online.updated_step})
        await asyncio.to_thread((folder / _PLACE).write_text, place, encoding="utf-8")


async def restore(run: Run, checkpoint: Path) -> None:
    """Put the scorer where the checkpoint left it."""
    online = run.online_prm
    if online is None:
        return
    folder = checkpoint / FOLDER
    await run.waits.outside("resume", "the step scorer to load its checkpoint", online.scorer.load(str(folder)))
    online.updated_step = json.loads((folder / _PLACE).read_text(encoding="utf-8"))["updated_step"]


async def _update(run: Run, online: OnlinePrm, step: int, groups: Sequence[ScoredGroup]) -> None:
    trajectories, labels = lessons(groups)
    async with online.lock:
        if step <= online.updated_step:
            return
        if trajectories:
            with run.clock.phase("train_prm"):
                call = online.scorer.update(trajectories, labels)
                await run.waits.outside("pack", f"the step scorer to learn from step {step}", call)
        online.updated_step = step


def lessons(groups: Sequence[ScoredGroup]) -> tuple[list[Trajectory], list[float]]:
    """Answers that teach, and their labels: 1 right, 0 wrong."""
    trajectories: list[Trajectory] = []
    labels: list[float] = []
    for scored in groups:
        verdicts = [is_correct(outcome) for outcome in scored.outcomes]
        if not {True, False} <= set(verdicts):
            continue
        for trajectory, verdict in zip(scored.group.trajectories, verdicts, strict=True):
            if verdict is not None and trajectory.sampled.any():
                trajectories.append(trajectory)
                labels.append(float(verdict))
    return trajectories, labels


async def _score(run: Run, scored: ScoredGroup) -> tuple[StepScores | None, ...]:
    assert run.step_scorer is not None
    call = run.step_scorer.score(scored.group)
    return await run.waits.outside(f"pack of group {scored.group.job.group_id}", "the step scorer", call)
