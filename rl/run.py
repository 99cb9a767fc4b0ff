"""Everything one run of the loop holds: its parts, its settings, and the few numbers that change."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rl.assembly import Packed
from rl.batch import TrainingBatch
from rl.buffer import Buffer, Slot
from rl.checkpoint import Checkpointer
from rl.config import BufferConfig, LoopConfig, SamplingConfig
from rl.control import Control
from rl.diagnostics.schedule import Diagnostics
from rl.evaluate import Evaluator
from rl.jobs import JobSource
from rl.learning_scorer import OnlinePrm
from rl.metrics import MetricsWriter
from rl.phases import PhaseClock
from rl.plan import BatchPolicy
from rl.ports import (
    Credit,
    Gate,
    Generator,
    GroupTerm,
    Judge,
    Learner,
    Mirror,
    Reference,
    Shaper,
    StepScorer,
    WeightSync,
)
from rl.record import Recorder, Settled
from rl.reporter import Reporter
from rl.spares import Spares
from rl.staleness import oldest_lag
from rl.waits import Waits
from rollout.schema import Job

Closer = Callable[[], Awaitable[None]]


class RunFailedError(RuntimeError):
    """A loop died and took the run with it. Chained to the first cause."""


class PlannedStop(Exception):
    """Raised by a part to end the run in order, as its user asked: no failure, and what is whole is saved."""


class DroughtError(RuntimeError):
    """Too many groups in a row carried no training signal."""


class StalenessError(RuntimeError):
    """A batch holds samples older than max_lag allows: an engine served weights that it should have replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Which loop died first, at what, and of what."""

    loop: str
    subject: str
    error: BaseException


@dataclass(slots=True)
class Drought:
    """Groups in a row without a training signal, and why."""

    length: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def observe(self, drop_reason: str | None) -> None:
        if drop_reason is None:
            self.length = 0
            self.reasons.clear()
        else:
            self.length += 1
            self.reasons[drop_reason] += 1

    def check(self, limit: int) -> None:
        """Raises DroughtError at `limit` groups in a row."""
        if self.length >= limit:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
            raise DroughtError(
                f"{self.length} groups in a row gave no training signal (loop.drought_limit = {limit}): {reasons}. "
                "All right: use harder tasks; all wrong: use easier ones or a longer cold start; too few judged: look "
                "at the verifier's log"
            )


@dataclass(kw_only=True, eq=False)
class Run:
    """The parts that `launch/build.py` wires, and the state of the loop between them."""

    loop: LoopConfig
    sampling: SamplingConfig
    lag: BufferConfig
    jobs: JobSource
    generator: Generator
    judge: Judge
    step_scorer: StepScorer | None
    shapers: Sequence[Shaper]
    gate: Gate
    credit: Credit
    learner: Learner
    sync: WeightSync
    recorder: Recorder
    metrics: MetricsWriter
    reporter: Reporter
    checkpointer: Checkpointer
    evaluator: Evaluator | None
    waits: Waits
    reference: Reference | None = None
    kl_in_reward: float = 0.0  # coefficient of the KL penalty that is paid as a reward
    diagnostics: Diagnostics | None = None
    policies: Sequence[BatchPolicy] = ()  # replay, re-weighting and demonstrations, in the order of their acting
    online_prm: OnlinePrm | None = None  # where the step scorer learns from the run
    control: Control | None = None  # what people ask of the run while it goes on
    explorer: GroupTerm | None = None
    mirror: Mirror | None = None  # told of every checkpoint
    closers: Sequence[Closer] = ()  # called in reverse order when the run ends, however it ends
    clock: PhaseClock = field(default_factory=PhaseClock)

    step: int = 0  # last step that is trained, published and recorded
    version: int = 0  # optimizer steps in the learner's weights
    saved_step: int = 0  # step of the newest checkpoint
    evaluated_step: int | None = None
    drought: Drought = field(default_factory=Drought)
    is_whole: bool = True  # False from the start of a training step to its end, when learner and ledger may disagree
    published: list[int] = field(init=False)  # versions that went live in this process, ascending
    failure: Failure | None = field(default=None, init=False)
    _has_begun: bool = field(default=False, init=False)
    buffer: Buffer = field(init=False)
    spares: Spares = field(init=False)
    batches: asyncio.Queue[Packed] = field(init=False)

    def begin(self) -> None:
        """Make the empty buffer and queue for the steps that are left."""
        self.published = [self.version]
        self.batches = asyncio.Queue(maxsize=1)
        self.spares = Spares(self.sampling.surplus)
        self.buffer = Buffer(
            groups_per_step=self.loop.groups_per_step,
            max_lag=self.lag.max_lag - self._reserved_lag,
            first_step=self.step + 1,
        )
        self._has_begun = True

    @property
    def _reserved_lag(self) -> int:
        """A batch of lag is left for groups that are carried over, where there are any."""
        return 1 if self.sampling.surplus else 0

    def change_lag(self, max_lag: int) -> None:
        """Let generation run this far ahead of training from now on; what is under way keeps its bound."""
        self.lag = self.lag.model_copy(update={"max_lag": max_lag})
        if self._has_begun:
            self.buffer.resize(max_lag - self._reserved_lag)

    def turn_trace(self, step: int) -> None:
        """The slots of `step` are about to be free: its trace ends, and the next one's begins."""
        if self.clock.trace is None:
            return
        self.clock.trace.turn(step)
        if self.control is not None and self.control.wants_trace:
            self.clock.trace.want(step + 1)
            self.control.wants_trace = False

    @property
    def steps_left(self) -> range:
        return range(self.step + 1, self.loop.num_steps + 1)

    async def free_slot(self) -> Slot:
        """Hold the next slot once one is free. Raises WaitTimeoutError when the whole run stands still."""
        await asyncio.sleep(0)  # the other loops have their turn
        if self.buffer.has_room:  # most often, and a wait costs more than a slot
            return self.buffer.admit_now()
        return await self.waits.inside("feed", "a free buffer slot", self.buffer.admit())

    def may_refill(self, slot: Slot) -> bool:
        """Whether a slot whose group was dropped gets a fresh task. max_refills is 0 unless on_drop is "replace"."""
        return slot.num_rolled <= self.sampling.max_refills

    def may_begin_spare(self, slot: Slot) -> bool:
        """Whether a group is sampled ahead after `slot`: once a step's own are under way, and not for no step."""
        is_last = (slot.index + 1) % self.loop.groups_per_step == 0
        return is_last and slot.step < self.loop.num_steps and self.spares.may_begin()

    def lags(self, batch: TrainingBatch) -> list[int]:
        """Per fresh sample, batches published between its oldest token and now. Raises StalenessError above max_lag."""
        lags = [oldest_lag(s, self.published) for s in batch.fresh]
        oldest = min((s.policy.start for s in batch.fresh), default=self.version)
        bound = max(self.lag.max_lag, self.buffer.bound(batch.step) + self._reserved_lag)
        if max(lags, default=0) > bound or oldest < self.published[0]:
            raise StalenessError(
                f"step {batch.step} holds a sample of version {oldest}, {max(lags)} batches behind version "
                f"{self.version}, but buffer.max_lag = {bound}: an engine did not take the weights that it "
                f"reported"
            )
        return lags

    def retire(self, groups: Sequence[Settled], *, num_published: int, taught: frozenset[str] = frozenset()) -> None:
        """The fate of these groups is final: tell the policies, in the order of training.

        `num_published` is how many versions were live when their batch was trained. A dropped group that is `taught` in
        another way, such as by a demonstration, is no drought.
        """
        for settled in groups:
            reason = settled.fate.reason if settled.fate.name == "dropped" else None
            sampled_by = max(t.policy.start for t in settled.scored.group.trajectories)  # one that failed may say 0
            lag = num_published - bisect_right(self.published, sampled_by, hi=num_published)
            if warning := self.jobs.retire(settled.scored, lag=lag):
                self.reporter.warning(warning)
            self.gate.observe(settled.scored, reason)
            self.drought.observe(None if settled.scored.group.job.group_id in taught else reason)
            self.reporter.group(settled.scored, settled.fate)

    def is_evaluation_due(self) -> bool:
        """Whether the weights after `step` are to be evaluated and have not been."""
        if self.evaluator is None or self.evaluated_step == self.step:
            return False
        if self.control is not None and self.control.wants_evaluation:
            return True
        if self.step == 0:
            return self.evaluator.config.at_start
        is_last = self.step == self.loop.num_steps
        is_regular = self.loop.eval_every > 0 and self.step % self.loop.eval_every == 0
        return is_regular or (is_last and self.evaluator.config.at_end)

    def is_checkpoint_due(self) -> bool:
        """Whether `checkpoint_every` steps are unsaved; so one that failed is tried again after the next step."""
        if self.control is not None and self.control.wants_checkpoint:
            return self.saved_step != self.step
        every = self.loop.checkpoint_every
        return every > 0 and self.step // every > self.saved_step // every

    @contextmanager
    def blame(self, loop: str, subject: str | Job) -> Iterator[None]:
        """Note the first failure of the run, with the loop and the work it died of; it then travels on."""
        try:
            yield
        except PlannedStop:
            raise
        except Exception as error:  # a boundary: every failure of a loop passes here once, and is raised again
            if self.failure is None:
                if isinstance(subject, Job):
                    subject = f"group {subject.group_id}, task {subject.task.key}, effort {subject.budget.effort}"
                cause: BaseException = error
                while isinstance(cause, BaseExceptionGroup):
                    cause = cause.exceptions[0]
                self.failure = Failure(loop=loop, subject=subject, error=cause)
                self.reporter.warning(f"{loop} failed at {subject}; ending the run")
            raise
