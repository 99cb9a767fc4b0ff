"""The world of scale_sim.py: simulated engines and learner ranks behind the real clients, and a virtual clock.

Everything of the driver process is real and wired by `launch.build.build_run`: loops, buffer, sampler, gate, engine
pool, publish and proof, verdicts and step checks that the driver settles itself, credit, packing, metrics, Parquet
records. What other processes do is a delay drawn from a stored measurement (latencies.json).

The clock runs by itself as long as the driver computes, as fast as this machine does, and jumps when it waits. So a
driver that is busy makes its steps longer here as it would elsewhere. What the simulation itself computes, such as the
texts of answers, does not move the clock; what a call through Ray costs the driver is added, as it was measured.
"""

from __future__ import annotations

import asyncio
import pickle
import random
import selectors
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rl.batch import StepResult, TrainingBatch
from rl.learner.actor import LearnerClient
from rl.learner.result import RankInfo
from rollout.schema import Finish, Group, Job, Metric, PolicySpan, Trajectory

Quantiles = Sequence[float]
TEXT_TOKEN = 3  # characters of a token of a real vocabulary, about


@dataclass
class Meter:
    """Seconds of processor time that are the simulation's own, and those of calls that are only simulated."""

    simulated_s: float = 0.0
    charged_s: float = 0.0
    clock_s: float = field(default_factory=lambda: _cost_of_the_clock())

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Work that another process would do."""
        start = time.thread_time()
        try:
            yield
        finally:
            self.simulated_s += time.thread_time() - start + 2 * self.clock_s

    def driver_s(self) -> float:
        """Processor time of the driver since this thread began."""
        self.simulated_s += self.clock_s
        return time.thread_time() - self.simulated_s + self.charged_s


def _cost_of_the_clock(calls: int = 2000) -> float:
    """A system call, which on a virtual machine takes long enough to be counted."""
    start = time.thread_time()
    for _ in range(calls):
        time.thread_time()
    return (time.thread_time() - start) / calls


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Moves with the driver's processor time up to when it last looked for events, and jumps over waiting."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._jumped = 0.0
        self._now = 0.0
        super().__init__(_Jumper(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._jumped += seconds
        self._now = self._jumped + self._meter.driver_s()


class _Jumper(selectors.DefaultSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits and no timer is set: a deadlock")
        self._loop.jump(max(0.0, timeout))
        return super().select(0)


@dataclass(kw_only=True)
class Latencies:
    """Seconds of every kind of call, as quantiles from 0 to 1, and processor seconds of one call through Ray."""

    seconds: Mapping[str, Quantiles]
    ray_call_s: float
    stretch: float = 1.0  # of a generation: an engine that holds more groups at once takes longer for each
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def draw(self, kind: str) -> float:
        quantiles = self.seconds[kind]
        place = self.random.random() * (len(quantiles) - 1)
        low = min(int(place), len(quantiles) - 2)
        return quantiles[low] + (place - low) * (quantiles[low + 1] - quantiles[low])


class Answers:
    """Groups as an engine would send them: worked solutions of the task, some of them wrong, pickled."""

    def __init__(self, *, is_text: bool, seed: int = 0) -> None:
        self._is_text = is_text
        self._random = random.Random(seed)
        self._ids = np.random.default_rng(seed).integers(7, 507, 65_536).astype(np.int32)
        self._logprobs = np.random.default_rng(seed).uniform(-2, 0, 4096).astype(np.float32)

    def group(self, job: Job, version: int) -> Group:
        siblings = [self._trajectory(job, sibling, version) for sibling in range(job.num_siblings)]
        return Group(job=job, trajectories=tuple(siblings))

    def _trajectory(self, job: Job, sibling: int, version: int) -> Trajectory:
        shown = job.task.meta["demonstrations"]
        said = shown.get(job.budget.effort) or next(iter(shown.values()))
        answer = job.task.answer if self._random.random() < 0.5 else str(self._random.randrange(100))
        text = f"{said['thinking']}</think>{answer}"
        prompt_len = 12 if not self._is_text else 110
        step = TEXT_TOKEN if self._is_text else 1
        ends = np.arange(step, len(text) + step, step).clip(max=len(text))
        length = prompt_len + len(ends)
        cut = len(said["thinking"])
        return Trajectory(
            group_id=job.group_id,
            sibling=sibling,
            token_ids=self._tokens(length),
            sampled=np.arange(length) >= prompt_len,
            sampler_logprobs=self._logprobs[:length].copy(),
            char_ends=np.concatenate([np.zeros(prompt_len), ends]).astype(np.int32),
            prompt_len=prompt_len,
            text=text,
            thinking=(0, cut),
            answer=(cut + len("</think>"), len(text)),
            finish=Finish.STOP,
            policy=PolicySpan(start=version, end=version),
        )

    def _tokens(self, length: int) -> Any:
        start = self._random.randrange(self._ids.size - length)
        return self._ids[start : start + length].copy()


class Handle:
    """Stands where a Ray actor's handle would: `handle.method.remote(...)` gives something to await."""

    def __init__(self, call: Callable[..., Any], latencies: Latencies, meter: Meter) -> None:
        self._call, self._latencies, self._meter = call, latencies, meter

    def __getattr__(self, method: str) -> Any:
        return _Method(self, method)

    async def run(self, method: str, args: tuple[Any, ...]) -> Any:
        """The answer after its latency; unpickled by the driver, as Ray does it."""
        with self._meter.outside():
            answer, seconds = self._call(method, args, self._latencies)
            packed = pickle.dumps(answer, protocol=5)
        self._meter.charged_s += self._latencies.ray_call_s
        await asyncio.sleep(seconds)
        return pickle.loads(packed)


class _Method:
    def __init__(self, handle: Handle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *args: Any) -> Any:
        return self._handle.run(self._name, args)


class Engine:
    """What one rollout actor answers."""

    def __init__(self, answers: Answers, probe: Sequence[Any]) -> None:
        self._answers, self._probe = answers, probe
        self._version = 0

    def __call__(self, method: str, args: tuple[Any, ...], latencies: Latencies) -> tuple[Any, float]:
        seconds = latencies.draw(method)
        if method == "generate":
            return self._answers.group(args[0], self._version), seconds * latencies.stretch
        if method == "finish_update":
            self._version = args[0]
        answers = {"version": self._version, "probe": self._probe}
        return answers.get(method), seconds


class SimulatedLearner(LearnerClient):
    """The real client without its ranks: packing is the driver's own work, the update is a delay."""

    def __init__(self, config: Any, loss: Any, latencies: Latencies, probe: Sequence[Any]) -> None:
        super().__init__([], [], config, loss, log_dir="")
        self._latencies, self._probe = latencies, probe
        self._version = 0
        self._info = RankInfo(layout="buckets", row_tokens=None, num_parameters=1, num_chunks=1)

    async def ready(self) -> RankInfo:
        return self._info

    async def step(self, batch: TrainingBatch) -> StepResult:
        packed = self._pack(self._info, batch.samples, ranks=1, steps=self._config.num_optimizer_steps)
        seconds = self._latencies.draw("learn")
        await asyncio.sleep(seconds)
        self._version += self._config.num_optimizer_steps
        metrics = (Metric(name="learner/padding_share", value=packed.padding_share),)
        return StepResult(version=self._version, seconds=seconds, metrics=metrics)

    async def version(self) -> int:
        return self._version

    async def export(self) -> Any:
        yield "chunk"

    async def probe(self, token_ids: list[list[int]]) -> list[Any]:
        return list(self._probe)

    def close(self) -> None:
        pass


class Nobody:
    """A handle that must not be called: what the driver settles itself never needs the service."""

    def __getattr__(self, method: str) -> Any:
        raise AssertionError(f"the driver asked a service for {method}, which this model does not simulate")
