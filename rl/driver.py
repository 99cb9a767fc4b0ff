"""READ FIRST: the training loop. Four coroutines around one buffer and one queue.

    feed --admits a slot--> roll (one per slot) --settles it--> [buffer] --> pack --> [queue] --> learn
      ^                                                                                             |
      +----------------------- slots are freed once the weights trained on them are live -----------+

    feed    waits for a free slot, takes the next job, starts a roll
    roll    job -> group -> verdicts and step scores -> admitted or dropped
    pack    waits for the slots of a step in order of admission, gives credit, makes a batch
    learn   batch -> new weights -> live on every engine -> slots freed -> fates recorded; evaluates and saves when due;
            what else a step trains on (replay, demonstrations) joins here, see `rl/plan.py`

A slot is held from admission until the weights trained on it are live, so nothing trained on is more than `max_lag`
batches old (proof in `rl/buffer.py`) and `max_lag = 0` is the synchronous algorithm. A loop that dies takes the run
with it; every wait has an owner and a deadline (`rl/waits.py`); how a run ends is in `rl/ending.py`, what it saves in
`rl/resume.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from rl import online_prm
from rl.assembly import Packed, assemble
from rl.batch import StepResult, TrainingBatch
from rl.buffer import Slot
from rl.ending import orderly_end, uninterrupted
from rl.garbage import seldom_collected
from rl.late_scores import score_slots
from rl.plan import make_plan
from rl.reference import follow, reference_metrics
from rl.resume import save_or_warn
from rl.run import Run
from rl.scoring import scored_group
from rl.spares import Spare
from rl.staleness import token_metrics
from rl.step_metrics import batch_metrics, group_metrics, labelled, time_metrics
from rollout.schema import Job, Metric


async def train(run: Run) -> None:
    """Train from the step after `run.step` to the last. Raises RunFailedError from the first cause of a failure."""
    run.begin()
    with seldom_collected():
        await _train(run)


async def _train(run: Run) -> None:
    async with orderly_end(run):
        await start(run)
        async with asyncio.TaskGroup() as loops:
            loops.create_task(feed(run, loops))
            loops.create_task(pack(run))
            loops.create_task(learn(run))


async def feed(run: Run, loops: asyncio.TaskGroup) -> None:
    for _ in range(len(run.steps_left) * run.loop.groups_per_step):
        with run.blame("feed", "admission"):
            slot = await run.free_slot()
            if run.spares.fill(slot, max_lag=run.lag.max_lag):
                slot.is_settled.set()
            else:
                loops.create_task(roll(run, slot, run.jobs.next(slot.step)))
            while run.may_begin_spare(slot):
                run.spares.begin()
                loops.create_task(roll_spare(run, run.jobs.next(slot.step + 1), run.step))


async def roll(run: Run, slot: Slot, job: Job) -> None:
    with run.blame("roll", job):
        scored = await scored_group(run, job)
        reason = run.gate.reject(scored)
        slot.add(scored, reason)
        if reason is None or run.spares.fill(slot, max_lag=run.lag.max_lag) or not run.may_refill(slot):
            slot.is_settled.set()
            return
        replacement = run.jobs.next(slot.step)
    await roll(run, slot, replacement)


async def roll_spare(run: Run, job: Job, born: int) -> None:
    """A group ahead of need (`rl/spares.py`), admitted when `born` was the last batch trained."""
    with run.blame("roll", job):
        scored = await scored_group(run, job)
        run.spares.finish(Spare(scored=scored, born=born, drop_reason=run.gate.reject(scored)))


async def pack(run: Run) -> None:
    for step in run.steps_left:
        with run.blame("pack", f"step {step}"):
            slots = await run.waits.inside("pack", f"the groups of step {step}", run.buffer.take())
            reference = await score_slots(run, step, slots)
            packed = assemble(run.credit, step, slots, reference=reference, kl_in_reward=run.kl_in_reward)
            await run.waits.inside("pack", "room in the batch queue", run.batches.put(packed))


async def learn(run: Run) -> None:
    for step in run.steps_left:
        with run.blame("learn", f"step {step}"):
            with run.clock.phase("starve"):
                packed = await run.waits.inside("learn", f"the batch of step {step}", run.batches.get())
            await uninterrupted(train_step(run, packed))
            run.drought.check(run.loop.drought_limit)
            await between_steps(run)


async def between_steps(run: Run) -> None:
    """Evaluate and save where that is due, and, while someone holds the run, whenever they ask."""
    while True:
        if run.is_evaluation_due():
            await evaluate(run)
        if run.is_checkpoint_due():
            await uninterrupted(save_or_warn(run))
        if run.control is None:
            return
        run.control.orders_done()
        if not run.control.is_paused:
            return
        await run.waits.held("learn", "someone to resume the run", run.control.next_order())


async def train_step(run: Run, packed: Packed) -> None:
    """One step, from update to record. Without a sample to train on it updates nothing and counts as drought."""
    batch, num_published = packed.batch(run.version), len(run.published)
    results: list[StepResult] = []
    metrics = [*batch_metrics(batch, run.lags(batch)), *reference_metrics(batch)]
    metrics += token_metrics(batch.fresh, run.published)
    if run.diagnostics is not None:
        metrics += await run.diagnostics.of_batch(batch, run.clock)
    run.is_whole = False
    plan = await make_plan(run.policies, packed.groups, batch)
    if plan.batches:
        results, more = await update(run, plan.batches)
        metrics += more
    for policy in run.policies:
        await policy.observe(plan, results)
    await follow(run, packed.step)
    await online_prm.after_training(run, packed.step, [g.scored for g in packed.groups if g.fate.name == "trained"])
    if run.control is not None:
        await run.control.at_boundary(packed.step)
    run.turn_trace(packed.step)
    run.buffer.release(packed.num_slots)
    run.retire(packed.groups, num_published=num_published, taught=plan.taught)
    with run.clock.phase("record"):
        await run.recorder.write(packed.step, packed.groups)
    run.step, run.is_whole = packed.step, True
    if run.diagnostics is not None:
        metrics += await run.diagnostics.of_weights(run.step, run.clock)
    metrics += [*group_metrics(packed.groups), *run.jobs.metrics(), *run.gate.metrics(), *run.buffer.metrics()]
    metrics += [*run.spares.metrics(), *(metric for policy in run.policies for metric in policy.metrics())]
    metrics += time_metrics(run.clock.lap(), sum(b.num_loss_tokens for b in plan.batches))
    run.metrics.write(packed.step, metrics)
    run.reporter.step(packed.step, batch, results[0] if results else None, metrics)


async def update(run: Run, batches: Sequence[TrainingBatch]) -> tuple[list[StepResult], list[Metric]]:
    """Train on the batches of a step, one after the other, and put the new weights live on every engine."""
    results: list[StepResult] = []
    metrics: list[Metric] = []
    version = run.version
    for batch in batches:
        with run.clock.phase("learn", f"step {batch.step}"):
            result = await run.waits.outside("learn", f"the learner at step {batch.step}", run.learner.step(batch))
        if result.version <= version:
            raise RuntimeError(f"a training step must raise the version above {version}, got {result.version}")
        version = result.version
        results.append(result)
        metrics += labelled(batch, result.metrics)
        if run.clock.trace is not None:
            for role, spans in result.spans.items():
                run.clock.trace.add(role, spans)
    with run.clock.phase("publish", f"version {version}"):
        target = f"the engines to serve version {version}"
        metrics += await run.waits.outside("learn", target, run.sync.publish(version))
    run.version = version
    run.published.append(version)
    return results, metrics


async def start(run: Run) -> None:
    """Prove that the engines serve the learner's weights, and evaluate these if that is due."""
    started = time.perf_counter()
    with run.blame("start", f"publication of version {run.version}"):
        target = f"the engines to serve version {run.version}"
        await run.waits.outside("start", target, run.sync.publish(run.version))
    run.reporter.phase("start", time.perf_counter() - started)
    if run.diagnostics is not None and run.step == 0:
        with run.blame("start", "diagnostics before training"):
            if before := await run.diagnostics.of_weights(0, run.clock):
                run.metrics.write(0, before)
    if run.is_evaluation_due():
        with run.blame("start", f"evaluation after step {run.step}"):
            await evaluate(run)
    run.clock.lap()


async def evaluate(run: Run) -> None:
    """Evaluate the weights that are live; training groups go on being generated meanwhile."""
    assert run.evaluator is not None
    with run.clock.phase("evaluation"):
        result, groups = await run.evaluator.run(step=run.step, version=run.version)
    await run.recorder.write_evaluation(run.step, groups)
    run.evaluated_step = run.step
    run.metrics.write(run.step, result.metrics())
    run.reporter.evaluation(result)
    run.reporter.phase("evaluate", result.seconds)
