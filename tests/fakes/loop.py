"""Stand-ins for the parts around the training loop, with scripted delays and faults. Fakes stand at ports only."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rl.batch import StepResult, TrainingBatch
from rl.checkpoint import Checkpointer
from rl.config import BufferConfig, EvaluateConfig, LoopConfig, SamplingConfig
from rl.credit.build import build_credit
from rl.credit.config import CreditConfig, DrGrpoCredit
from rl.evaluate import EvalResult, Evaluator
from rl.jobs import JobSource
from rl.learner.config import LearnerConfig, LossConfig
from rl.metrics import MetricsWriter
from rl.record import Fate, Recorder
from rl.run import Run
from rl.sampling.build import build_sampler
from rl.sampling.config import SamplerConfig, UniformSampling
from rl.sampling.gate import SignalGate
from rl.waits import Waits
from rollout.schema import (
    Finish,
    Float32Array,
    Group,
    Job,
    Message,
    Metric,
    Outcome,
    PolicySpan,
    Sampling,
    ScoredGroup,
    Status,
    StepScores,
    Task,
    TokenBudget,
    Trajectory,
    task_key,
)
from tests.fakes.clock import VirtualClockLoop as VirtualClockLoop
from tests.fakes.clock import inline as inline
from tests.fakes.clock import play as play

T = TypeVar("T")
Delay = Callable[[], float]
PROMPT_LEN = 2


def make_tasks(count: int) -> list[Task]:
    prompts = [(Message(role="user", content=f"{n} + 1 ="),) for n in range(count)]
    return [
        Task(key=task_key(p, str(n + 1)), prompt=p, answer=str(n + 1), verifier="exact", source="fake")
        for n, p in enumerate(prompts)
    ]


def make_trajectory(
    group_id: str,
    sibling: int,
    *,
    length: int = 4,
    version: int = 0,
    finish: Finish = Finish.STOP,
    versions: Sequence[int] = (),
) -> Trajectory:
    """`length` sampled tokens of one character each after a prompt of PROMPT_LEN tokens; all of it is thinking.

    `versions` are those of single tokens, in place of `version`.
    """
    total = PROMPT_LEN + length
    return Trajectory(
        group_id=group_id,
        sibling=sibling,
        token_ids=np.arange(total, dtype=np.int32),
        sampled=np.arange(total) >= PROMPT_LEN,
        sampler_logprobs=np.zeros(total, dtype=np.float32),
        char_ends=np.maximum(0, np.arange(total, dtype=np.int32) - PROMPT_LEN + 1),
        prompt_len=PROMPT_LEN,
        text="x" * length,
        thinking=(0, length),
        answer=None,
        finish=finish,
        policy=PolicySpan.of(versions, range(PROMPT_LEN, total))
        if versions
        else PolicySpan(start=version, end=version),
    )


def make_job(group_id: str = "g", *, num_siblings: int = 2, effort: str = "high", task: Task | None = None) -> Job:
    return Job(
        group_id=group_id,
        task=task or make_tasks(1)[0],
        num_siblings=num_siblings,
        budget=TokenBudget(effort=effort, max_prompt_tokens=8, max_thinking_tokens=8, max_answer_tokens=8),
        sampling=Sampling(),
    )


def outcome(score: float | None) -> Outcome:
    """A judged outcome, or a timeout for None."""
    return Outcome(status=Status.TIMEOUT if score is None else Status.JUDGED, score=score)


def make_scored(
    scores: Sequence[float | None],
    *,
    length: int = 4,
    steps: Sequence[StepScores | None] | None = None,
    shaped: Mapping[str, Sequence[float]] | None = None,
    job: Job | None = None,
) -> ScoredGroup:
    """A scored group with one sibling per score."""
    job = job or make_job(num_siblings=len(scores))
    trajectories = tuple(make_trajectory(job.group_id, i, length=length) for i in range(len(scores)))
    return ScoredGroup(
        group=Group(job=job, trajectories=trajectories),
        outcomes=tuple(outcome(s) for s in scores),
        steps=tuple(steps or (None,) * len(scores)),
        shaped={name: np.asarray(values, dtype=np.float32) for name, values in (shaped or {}).items()},
    )


@dataclass
class FakeEngines:
    """Generator and weight sync in one: `num_engines` engines, each with its own version and delays."""

    num_engines: int = 2
    delay: Delay = lambda: 1.0
    publish_delay: Delay = lambda: 1.0
    fault: Callable[[Job], Awaitable[None]] | None = None
    publish_fault: Callable[[int], Awaitable[None]] | None = None
    versions: list[int] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    in_flight: bool = False  # a publish changes the weights under responses that are being written

    def __post_init__(self) -> None:
        self.versions = [0] * self.num_engines

    async def generate(self, job: Job) -> Group:
        self.jobs.append(job)
        engine = len(self.jobs) % self.num_engines
        version = self.versions[engine]
        if self.fault is not None:
            await self.fault(job)
        if self.in_flight:
            siblings = await asyncio.gather(*(self._write(job, i, engine) for i in range(job.num_siblings)))
        else:
            await asyncio.sleep(self.delay())
            siblings = [make_trajectory(job.group_id, i, version=version) for i in range(job.num_siblings)]
        return Group(job=job, trajectories=tuple(siblings))

    async def _write(self, job: Job, sibling: int, engine: int) -> Trajectory:
        """Token by token, each from the weights that the engine has at that moment."""
        versions = []
        for _ in range(4):
            await asyncio.sleep(self.delay())
            versions.append(self.versions[engine])
        return make_trajectory(job.group_id, sibling, versions=versions)

    async def publish(self, version: int) -> list[Metric]:
        """Engines change over one after the other."""
        if self.publish_fault is not None:
            await self.publish_fault(version)
        for engine in range(self.num_engines):
            await asyncio.sleep(self.publish_delay())
            self.versions[engine] = version
        return [Metric(name="publish/version", value=version, reduce="last")]


@dataclass
class FakeJudge:
    """Half of every group is right, unless `verdict` says otherwise."""

    delay: Delay = lambda: 0.1
    verdict: Callable[[Job, int], float | None] = lambda job, sibling: float(sibling % 2)
    fault: Callable[[Group], Awaitable[None]] | None = None
    weights: list[Mapping[str, float]] = field(default_factory=list)  # every change of them

    def reweigh(self, weights: Mapping[str, float]) -> None:
        self.weights.append(dict(weights))

    async def judge(self, group: Group) -> tuple[Outcome, ...]:
        if self.fault is not None:
            await self.fault(group)
        await asyncio.sleep(self.delay())
        return tuple(outcome(self.verdict(group.job, i)) for i in range(group.job.num_siblings))


@dataclass
class FakeLearner:
    """Counts versions; checks on every step how many batches were published since each sample was drawn."""

    optimizer_steps: int = 1
    delay: Delay = lambda: 1.0
    fault: Callable[[TrainingBatch], Awaitable[None]] | None = None
    save_fault: Callable[[str], Awaitable[None]] | None = None
    version: int = 0
    published: list[int] = field(default_factory=list)  # versions before each batch, the first included
    lags: list[int] = field(default_factory=list)  # per batch, the largest lag in batches
    trained: list[TrainingBatch] = field(default_factory=list)
    adopted: list[tuple[int, float, float]] = field(default_factory=list)  # version, learning rate, temperature

    async def adopt(self, config: LearnerConfig, loss: LossConfig, *, temperature: float) -> None:
        self.adopted.append((self.version, config.lr, temperature))

    async def step(self, batch: TrainingBatch) -> StepResult:
        if self.fault is not None:
            await self.fault(batch)
        if not batch.label:
            self.published.append(self.version)
            drawn = {int(v) for s in batch.fresh for v in s.policy.at(np.flatnonzero(s.loss_mask))}  # of all tokens
            self.lags.append(max((sum(v > old for v in self.published) for old in drawn), default=0))
        await asyncio.sleep(self.delay())
        self.trained.append(batch)
        self.version += self.optimizer_steps
        return StepResult(version=self.version, seconds=1.0)

    async def save(self, path: str) -> None:
        if self.save_fault is not None:
            await self.save_fault(path)
        Path(path).mkdir(parents=True)
        (Path(path) / "version").write_text(str(self.version))

    async def load(self, path: str) -> None:
        self.version = int((Path(path) / "version").read_text())


@dataclass
class FakeReference:
    """Every sampled token has the log-probability `value`, until the learner's weights are taken: then 1 less."""

    value: float = -1.0
    sync_every: int = 0
    fault: Callable[[], Awaitable[None]] | None = None
    scored: list[list[Trajectory]] = field(default_factory=list)
    synced_step: int = 0
    loaded: list[str] = field(default_factory=list)

    async def score(self, trajectories: Sequence[Trajectory]) -> list[Float32Array]:
        if self.fault is not None:
            await self.fault()
        self.scored.append(list(trajectories))
        return [np.where(t.sampled, self.value - (self.synced_step > 0), 0.0).astype(np.float32) for t in trajectories]

    async def follow(self, step: int) -> bool:
        if self.sync_every == 0 or step % self.sync_every:
            return False
        self.synced_step = step
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"synced_step": self.synced_step}

    async def save(self, path: str) -> None:
        Path(path).mkdir()
        (Path(path) / "weights").write_text(str(self.synced_step))

    async def load(self, path: str, state: Mapping[str, Any]) -> None:
        self.loaded.append((Path(path) / "weights").read_text())
        self.synced_step = state["synced_step"]


class FakeEfforts:
    """low, high, low, high, ..."""

    def __init__(self) -> None:
        self.count = 0

    def next(self, step: int) -> TokenBudget:
        self.count += 1
        effort = "low" if self.count % 2 else "high"
        return TokenBudget(effort=effort, max_prompt_tokens=8, max_thinking_tokens=8, max_answer_tokens=8)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


@dataclass
class FakeReporter:
    """Remembers what it is told."""

    steps: list[tuple[int, StepResult | None]] = field(default_factory=list)
    metrics: list[Sequence[Metric]] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)
    evaluations: list[EvalResult] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def step(self, step: int, batch: TrainingBatch, result: StepResult | None, metrics: Sequence[Metric]) -> None:
        self.steps.append((step, result))
        self.metrics.append(metrics)

    def group(self, scored: ScoredGroup, fate: Fate) -> None:
        self.fates.append(fate)

    def evaluation(self, result: EvalResult) -> None:
        self.evaluations.append(result)

    def phase(self, name: str, seconds: float) -> None:
        self.phases.append(name)

    def warning(self, message: str) -> None:
        self.warnings.append(message)


@dataclass
class World:
    """A run among fakes. Change the parts before `train`."""

    run: Run
    engines: FakeEngines
    judge: FakeJudge
    learner: FakeLearner
    reporter: FakeReporter


def make_world(
    directory: Path,
    *,
    num_steps: int = 4,
    groups_per_step: int = 3,
    max_lag: int = 1,
    num_tasks: int = 100,
    sampling: SamplingConfig | None = None,
    evaluate: EvaluateConfig | None = None,
    credit: CreditConfig | None = None,
    sampler: SamplerConfig | None = None,
    num_siblings: int = 2,
    seed: int = 0,
    **loop: Any,
) -> World:
    """Everything real that needs no engine: buffer, sampler, gate, credit, record, metrics, checkpoints."""
    settings = LoopConfig(num_steps=num_steps, groups_per_step=groups_per_step, **loop)
    sampling = sampling or SamplingConfig()
    tasks = make_tasks(num_tasks)
    engines, judge, learner, reporter = FakeEngines(), FakeJudge(), FakeLearner(), FakeReporter()
    waits = Waits(settings.wait_deadline_s)
    budgets = [TokenBudget(effort="high", max_prompt_tokens=8, max_thinking_tokens=8, max_answer_tokens=8)]
    evaluator = evaluate and Evaluator(
        evaluate, tasks=make_tasks(4), budgets=budgets, generator=engines, judge=judge, waits=waits
    )
    chosen = build_sampler(sampler or UniformSampling(), tasks, batch_size=groups_per_step, seed=seed)
    jobs = JobSource(chosen, FakeEfforts(), tasks=tasks, num_siblings=num_siblings, sampling=Sampling(), seed=seed)
    run = Run(
        loop=settings,
        sampling=sampling,
        lag=BufferConfig(max_lag=max_lag),
        jobs=jobs,
        generator=engines,
        judge=judge,
        step_scorer=None,
        shapers=(),
        gate=SignalGate(sampling),
        credit=build_credit(credit or DrGrpoCredit()),
        learner=learner,
        sync=engines,
        recorder=Recorder(directory / "groups"),
        metrics=MetricsWriter(directory),
        reporter=reporter,
        checkpointer=Checkpointer(
            directory / "checkpoints", keep=settings.keep_checkpoints, keep_best=settings.keep_best
        ),
        evaluator=evaluator,
        waits=waits,
    )
    return World(run=run, engines=engines, judge=judge, learner=learner, reporter=reporter)


def random_delay(seed: int, longest: float) -> Delay:
    """Delays between 0 and `longest`, now and then ten times that."""
    source = random.Random(seed)
    return lambda: source.random() * longest * (10 if source.random() < 0.1 else 1)
