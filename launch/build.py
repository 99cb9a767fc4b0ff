"""The composition root: settings in, services and a wired training run out. The only place that knows every room.

Imported inside a cluster session only: the actors' modules import Ray, which reads its environment at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from budgets.effort import EffortSchedule, token_budgets
from launch import plugins
from launch.batch_policies import build_allotters, build_policies, reweighed, stream_estimators
from launch.colocated import TakingTurns
from launch.config import RunConfig
from launch.gpu_publish import Ends, by_ipc, by_nccl
from launch.meter import Meter, MeteredScorer, ServiceMetricsWriter
from launch.plugin_section import PluginSection
from launch.prm_ports import critic_of
from launch.rundir import RunDirectory
from launch.seats import Seats, reserve
from prm.actor_model import ModelScorerClient
from prm.config import ExactPrmConfig
from prm.models.config import DiscriminativePrmConfig, GenerativePrmConfig, ImplicitPrmConfig, ValuePrmConfig
from rewards.actor import JudgeClient, start_judge
from rewards.config import SandboxConfig
from rewards.sandbox import WorkerPool
from rl.checkpoint import Checkpointer
from rl.credit.group_credit import GroupCredit
from rl.diagnostics.schedule import Diagnostics
from rl.evaluate import Evaluator
from rl.exploration.explorer import Explorer
from rl.hack_alarms import HackAlarms
from rl.hack_response import AlarmedCredit
from rl.jobs import JobSource
from rl.learner.actor import LearnerClient, start_learner
from rl.learner.reference_actor import ReferenceClient, start_reference
from rl.learner.representation_actor import RepresentationClient, start_representation
from rl.learning_scorer import OnlinePrm
from rl.losses.config import PluginLoss
from rl.phases import PhaseClock
from rl.ports import Credit, Generator, Judge, Shaper, TaskSampler
from rl.record import Recorder
from rl.reporter import Reporter
from rl.run import Run
from rl.sampling.gate import SignalGate
from rl.step_guard import StepGuard
from rl.sync import PublishAndProve
from rl.trace import Trace
from rl.waits import Waits
from rollout import weight_sides
from rollout.actor import start_engines
from rollout.pool import EnginePool
from rollout.schema import Metric, Sampling, Task
from rollout.tasks.splits import TaskSplits

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What runs in Ray for a training run. The session that started them ends them."""

    engines: EnginePool
    learner: LearnerClient
    judge: JudgeClient
    scorer: MeteredScorer
    reference: ReferenceClient | None
    representation: RepresentationClient | None = None
    seats: Seats = Seats()  # noqa: RUF009 - frozen
    num_restarts: int = 0  # of the learner, and the reference model with it

    def metrics(self) -> list[Metric]:
        return [Metric(name="learner/restarts", value=self.num_restarts, reduce="last")]


async def start_services(
    config: RunConfig, directory: RunDirectory, *, model_dir: Path, verifiers: Mapping[str, str]
) -> Services:
    """Start engines, learner, judge and step scorer at the same time; return when all of them answer."""
    seats = await in_thread(reserve, config)
    learner, reference = start_weights(config, directory, model_dir, seats=seats)
    representation = start_exploration(config, directory, model_dir)
    async with asyncio.timeout(config.cluster.start_deadline_s), asyncio.TaskGroup() as starts:
        starts.create_task(learner.ready())
        if reference is not None:
            starts.create_task(reference.ready())
        if representation is not None:
            starts.create_task(representation.ready())
        engines = starts.create_task(in_thread(partial(start_engine_pool, config, directory, model_dir, seats=seats)))
        judge = starts.create_task(in_thread(start_judge, config.rewards, verifiers, directory.reward_failures))
        scorer = starts.create_task(in_thread(start_scorer, config, directory, model_dir))
    return Services(
        engines=engines.result(),
        learner=learner,
        judge=judge.result(),
        scorer=scorer.result(),
        reference=reference,
        representation=representation,
        seats=seats,
    )


def start_exploration(config: RunConfig, directory: RunDirectory, model_dir: Path) -> RepresentationClient | None:
    """The frozen model of the exploration bonus, where the recipe asks for it; `ready` waits for it."""
    if config.sampling.exploration is None:
        return None
    return start_representation(
        config.sampling.exploration, config.learner, str(model_dir), log_dir=str(directory.logs)
    )


def start_weights(
    config: RunConfig, directory: RunDirectory, model_dir: Path, *, seats: Seats
) -> tuple[LearnerClient, ReferenceClient | None]:
    """Start the learner and, where the recipe has one, the reference model; their `ready` waits for them."""
    temperature, logs = config.rollout.temperature, str(directory.logs)
    learner = start_learner(
        config.learner,
        config.loss,
        str(model_dir),
        temperature=temperature,
        log_dir=logs,
        seed=config.run.seed,
        total_steps=config.loop.num_steps,
        load_loss=plugin_loss(config),
        streams=stream_estimators(config),
        seats=seats.ranks,
    )
    if config.reference is None:
        return learner, None
    reference = start_reference(
        config.reference, config.learner, learner, str(model_dir), temperature=temperature, log_dir=logs
    )
    return learner, reference


def plugin_loss(config: RunConfig) -> Callable[[], Any] | None:
    """A picklable loader of the recipe's own loss. Raises PluginError here when there is none of that name."""
    if not isinstance(config.loss, PluginLoss):
        return None
    place = plugins.target("ponder.losses", config.loss.name)  # a file's path is absolute from here on
    return partial(plugins.load, "ponder.losses", place)


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Run a blocking call in a thread that nobody waits for: Ctrl-C during a slow start must not wait for the start."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(method: Callable[[Any], None], value: Any) -> None:
        if not future.done():  # cancelled meanwhile
            method(value)

    def work() -> None:
        try:
            outcome: tuple[Any, Any] = (future.set_result, function(*args))
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: raised again where it is awaited
            outcome = (future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run was given up
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, name="ponder-start", daemon=True).start()
    return await future


def start_engine_pool(
    config: RunConfig, directory: RunDirectory, model_dir: Path, *, seats: Seats | None = None
) -> EnginePool:
    """`seats` None reserves those of the engines alone."""
    seats = reserve(config, engines_only=True) if seats is None else seats
    return start_engines(
        config.rollout,
        config.format,
        str(model_dir),
        log_dir=str(directory.logs),
        seed=config.run.seed,
        seats=seats.engines,
    )


def start_scorer(config: RunConfig, directory: RunDirectory, model_dir: Path) -> MeteredScorer:
    """The step scorer that the prm section names, by the registry: built-in or plugin."""
    return start_scorer_of(config.prm, model_dir=model_dir, state_dir=directory.root / "prm")


def start_scorer_of(section: Any, *, model_dir: Path, state_dir: Path) -> MeteredScorer:
    """The step scorer of a prm section, also without a run."""
    name, settings = _choice(section)
    place: dict[str, Any] = {}
    if isinstance(section, ImplicitPrmConfig | DiscriminativePrmConfig | ValuePrmConfig):
        place = {"start_model": str(model_dir), "state_dir": str(state_dir)}
    elif isinstance(section, GenerativePrmConfig):
        place = {"critic": critic_of(section)}
    scorer: MeteredScorer = plugins.load("ponder.steps", name)(settings, _scorer_pool(section), **place)
    return scorer


def _scorer_pool(section: Any) -> Any:
    """A picklable maker of the killable processes in which step claims are checked, within the section's limits."""
    limits: ExactPrmConfig | SandboxConfig = section if isinstance(section, ExactPrmConfig) else SandboxConfig()
    return partial(
        WorkerPool,
        num_workers=limits.num_workers,
        max_seconds=limits.max_seconds,
        max_memory_mib=limits.max_memory_mib,
    )


def _choice(section: Any) -> tuple[str, Any]:
    """The registered name of a section's part and what it is built from."""
    return (section.name, section.params) if isinstance(section, PluginSection) else (section.type, section)


def build_evaluator(
    config: RunConfig, *, held_out: Sequence[Task], generator: Generator, judge: Judge, waits: Waits
) -> Evaluator:
    return Evaluator(
        config.evaluate,
        tasks=held_out,
        budgets=list(token_budgets(config.budgets).values()),
        generator=generator,
        judge=judge,
        waits=waits,
    )


def build_run(
    config: RunConfig,
    directory: RunDirectory,
    services: Services,
    *,
    tasks: TaskSplits,
    probes: Sequence[Sequence[int]],
    geometry_prompts: Sequence[Sequence[int]],
    reporter: Reporter,
) -> Run:
    """Wire a training run that starts at step 0; `rl.resume` moves it on."""
    waits = Waits(config.loop.wait_deadline_s)
    if warning := small_pool(config, len(tasks.train)):
        reporter.warning(warning)
    learner: Any = services.learner
    if services.seats.takes_turns:
        learner = TakingTurns(services.learner, services.engines)
    meter = Meter(services.engines, services.judge, config.budgets.ceilings, path=directory.ledger)
    policies = build_policies(config, directory, services.learner, reporter, tasks.train)
    alarms = HackAlarms(reporter.warning)
    credit = build_credit(config, alarms)
    services.engines.notify = reporter.warning
    explorer = build_explorer(config, services)
    parts = (services, services.engines, services.judge, services.scorer, meter)
    sources = [part.metrics for part in parts]
    sources += [part.metrics for part in (credit, explorer) if isinstance(part, GroupCredit | AlarmedCredit | Explorer)]
    return Run(
        loop=config.loop,
        sampling=config.sampling,
        lag=config.buffer,
        jobs=_job_source(config, tasks.train),
        generator=meter,
        judge=meter,
        step_scorer=StepGuard(services.scorer, reporter.warning),
        online_prm=_online_prm(config, services),
        shapers=_shapers(config),
        gate=SignalGate(config.sampling),
        credit=reweighed(credit, policies),
        learner=learner,
        sync=_sync(config, services, probes),
        recorder=Recorder(directory.groups),
        metrics=ServiceMetricsWriter(directory.root, sources, alarms=alarms),
        reporter=reporter,
        checkpointer=_checkpointer(config, directory),
        evaluator=build_evaluator(config, held_out=tasks.held_out, generator=meter, judge=meter, waits=waits),
        waits=waits,
        reference=services.reference,
        kl_in_reward=config.loss.reward_kl_coefficient,
        diagnostics=Diagnostics(config.diagnostics, services.learner, geometry_prompts, waits=waits),
        policies=policies,
        explorer=explorer,
        clock=_clock(config, directory, services, reporter),
        closers=(meter.close,),
    )


def _checkpointer(config: RunConfig, directory: RunDirectory) -> Checkpointer:
    return Checkpointer(directory.checkpoints, keep=config.loop.keep_checkpoints, keep_best=config.loop.keep_best)


def _clock(config: RunConfig, directory: RunDirectory, services: Services, reporter: Reporter) -> PhaseClock:
    """The clock of the loop's phases, with the timelines of the steps that the recipe wants."""
    clock = PhaseClock()
    clock.trace = Trace(directory.traces, steps=config.run.trace_steps, warn=reporter.warning)
    services.engines.observe = clock.trace.span
    return clock


def _sampling(config: RunConfig) -> Sampling:
    rollout = config.rollout
    return Sampling(temperature=rollout.temperature, top_p=rollout.top_p, top_k=rollout.top_k)


def _job_source(config: RunConfig, tasks: Sequence[Task]) -> JobSource:
    seed, rollout = config.run.seed, config.rollout
    return JobSource(
        build_sampler(config, tasks),
        EffortSchedule(config.budgets, seed=seed),
        tasks=tasks,
        num_siblings=rollout.group_size,
        sampling=_sampling(config),
        seed=seed,
        allotters=build_allotters(config),
    )


def _sync(config: RunConfig, services: Services, probes: Sequence[Sequence[int]]) -> PublishAndProve:
    """Publish and prove, by the way that the seats allow."""
    ends = Ends(source=services.learner, sink=services.engines)
    if services.seats.transfer == "nccl":
        width = config.rollout.tensor_parallel
        ends = by_nccl(services.learner, services.engines, make_sender=weight_sides.make_nccl_sender, width=width)
    elif services.seats.transfer == "ipc":
        ends = by_ipc(services.learner, services.engines, share=weight_sides.share_by_ipc, merge=weight_sides.merge_ipc)
    return PublishAndProve(ends.source, ends.sink, probes, config.learner.probe_tolerance)


def _online_prm(config: RunConfig, services: Services) -> OnlinePrm | None:
    """The part that trains the step scorer, where the recipe asks for it."""
    if not isinstance(config.prm, ImplicitPrmConfig) or config.prm.online is None:
        return None
    assert isinstance(services.scorer, ModelScorerClient)
    return OnlinePrm(scorer=services.scorer, order=config.prm.online.order)


def build_explorer(config: RunConfig, services: Services) -> Explorer | None:
    """The exploration bonus on its service; None without one."""
    if config.sampling.exploration is None or services.representation is None:
        return None
    return Explorer(config.sampling.exploration, services.representation)


def _shapers(config: RunConfig) -> list[Shaper]:
    sections = (config.budgets.shaping, *config.budgets.penalties)
    return [plugins.load("ponder.shaping", s.type)(s) for s in sections if s.type != "none"]


def build_credit(config: RunConfig, alarms: HackAlarms | None = None) -> Credit:
    """The credit rule that the recipe names: built-in or plugin. With `alarms` it does about them what it says."""
    name, settings = _choice(config.credit)
    make = plugins.load("ponder.credit", name)
    credit: Credit = make(settings)
    process = getattr(config.credit, "process", None)
    if alarms is None or process is None or process.on_alarm == "warn":
        return credit
    outcome = make(settings.model_copy(update={"process": None}))
    return AlarmedCredit(credit, outcome, alarms, stops=process.on_alarm == "stop")


def small_pool(config: RunConfig, num_tasks: int) -> str:
    """A warning where the training tasks are fewer than the groups under way at a time; else nothing."""
    num_slots = config.loop.groups_per_step * (config.buffer.max_lag + 1)
    if num_tasks >= num_slots:
        return ""
    return (
        f"{num_tasks} training tasks are fewer than the {num_slots} groups under way at a time (loop.groups_per_step x "
        f"(buffer.max_lag + 1)), so tasks are sampled twice under the same weights; add tasks or lower one of the two"
    )


def build_sampler(config: RunConfig, tasks: Sequence[Task]) -> TaskSampler:
    """The sampler that the recipe names: built-in or plugin."""
    name, settings = _choice(config.sampling.sampler)
    make = plugins.load("ponder.samplers", name)
    sampler: TaskSampler = make(settings, tasks, batch_size=config.loop.groups_per_step, seed=config.run.seed)
    return sampler
