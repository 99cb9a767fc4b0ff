"""The engines of a run behind one object: routing, weights for all, and what happens when one of them dies.

A job goes to the engine with the fewest siblings pending. An engine that dies, or does not answer in time, is ended and
its jobs are issued once more, elsewhere; meanwhile it is started again and serves from the next publish on, for until
then it holds old weights. A second death under the same job, an error that is no death, or no engine left ends the run:
that failure is kept, and every later call repeats it, so all loops of a run report the same cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

import rollout.wire  # noqa: F401 - groups travel by it
from rollout.continuation import Continuation, Continued
from rollout.engine import EngineDeadError, EngineError, EngineTimeoutError
from rollout.schema import Float32Array, Group, Job, Metric

TokenLists = Sequence[Sequence[int]]
_NUMBERS = itertools.count()  # a process that is started again gets another one
DEATHS = (EngineDeadError, EngineTimeoutError)


class Member:
    """One engine as the pool sees it."""

    def __init__(self, name: str, actor: Any, log_path: str) -> None:
        self.name = name
        self.actor = actor
        self.log_path = log_path
        self.number = next(_NUMBERS)
        self.num_pending = 0  # siblings asked for and not yet returned
        self.is_buried = False
        self._idle_since: float | None = time.monotonic()
        self._idle_s = 0.0

    @contextlib.contextmanager
    def working(self, num_siblings: int) -> Iterator[None]:
        """Count siblings as pending, and the time without any as idle."""
        if self._idle_since is not None:
            self._idle_s += time.monotonic() - self._idle_since
            self._idle_since = None
        self.num_pending += num_siblings
        try:
            yield
        finally:
            self.num_pending -= num_siblings
            if not self.num_pending:
                self._idle_since = time.monotonic()

    def take_idle_s(self) -> float:
        """Seconds without a sibling to write since the last call."""
        now = time.monotonic()
        if self._idle_since is not None:
            self._idle_s += now - self._idle_since
            self._idle_since = now
        idle, self._idle_s = self._idle_s, 0.0
        return idle

    async def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method of the actor. Raises an EngineError that names the engine, the call and the log."""
        ref = getattr(self.actor, method).remote(*args)
        try:
            async with asyncio.timeout(timeout_s):  # without a task of its own, which `wait_for` would make
                return await ref
        except TimeoutError:
            ray.cancel(ref)
            raise EngineTimeoutError(
                f"engine {self.name} did not answer {method} within {timeout_s:g} s; its log: {self.log_path}. "
                "Raise rollout.call_timeout_s if it is only slow"
            ) from None
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        except (RayActorError, RayTaskError) as error:
            raise self.explain(error, method) from error

    def explain(self, error: Exception, method: str) -> Exception:
        """The error that a caller should see. A user's mistake keeps its type."""
        cause = error.cause if isinstance(error, RayTaskError) else error
        where = f"its log: {self.log_path}"
        if isinstance(cause, RayActorError):
            return EngineDeadError(f"engine {self.name} died during {method}: {_first_line(cause)}; {where}")
        if isinstance(cause, EngineDeadError):
            return EngineDeadError(f"engine {self.name} failed during {method}: {cause}; {where}")
        if isinstance(cause, ValueError):
            return ValueError(f"engine {self.name}: {cause}")
        return EngineError(f"engine {self.name} failed during {method}: {type(cause).__name__}: {cause}; {where}")


Revive = Callable[[Member], Awaitable[Member]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What an engine has done since it started."""

    version: int
    num_groups: int
    num_sampled_tokens: int
    num_prompt_tokens: int = 0  # of all requests, what they went on from included
    num_cached_tokens: int = 0  # of these, found in the prefix cache


class EnginePool:
    """All engines of a run: generation goes to the least loaded one, weights and probes go to all."""

    def __init__(
        self, members: Sequence[Member], *, call_timeout_s: float, revive: Revive | None = None, max_restarts: int = 0
    ) -> None:
        """`revive` starts a dead engine again; it may be called `max_restarts` times."""
        self._serving = list(members)
        self._by_load = [(m.num_pending, m.number, m) for m in members]  # a heap; entries may be out of date
        heapq.heapify(self._by_load)
        self._returned: list[Member] = []  # started again, without the current weights
        self._call_timeout_s = call_timeout_s
        self._revive = revive
        self._restarts_left = max_restarts
        self._revivals: set[asyncio.Task[None]] = set()
        self._failure: EngineError | None = None
        self._num_lost = self._num_reissued = 0
        self._metered_at = time.monotonic()
        self.notify: Callable[[str], None] = lambda message: None  # told what the run survives
        self.observe: Callable[[str, str], AbstractContextManager[None]] = lambda engine, method: nullcontext()

    @property
    def num_engines(self) -> int:
        """Engines that serve now."""
        return len(self._serving)

    async def generate(self, job: Job) -> Group:
        """Run one job on the engine with the fewest siblings pending."""
        group = await self._on_one(job.num_siblings, "generate", job)
        assert isinstance(group, Group)
        return group

    async def write_on(self, continuation: Continuation) -> tuple[Continued, ...]:
        """Continue responses, in sibling order, on the engine with the fewest siblings pending."""
        return tuple(await self._on_one(continuation.job.num_siblings, "write_on", continuation))

    async def begin_update(self, version: int) -> None:
        """Hold generation everywhere and prepare for the weights of `version`; engines that came back join."""
        for member in self._returned:
            self._serving.append(member)
            self._order(member)
        self._returned.clear()
        await self._on_all("begin_update", version)

    @property
    def member_ids(self) -> tuple[int, ...]:
        """Which processes serve now: an engine that was started again is another one."""
        return tuple(member.number for member in self._serving)

    async def join(self, meetings: Sequence[Any]) -> None:
        """Tell each serving engine, in the order of `member_ids`, where it meets the sender of the weights."""
        pairs = zip(tuple(self._serving), meetings, strict=True)
        await asyncio.gather(*(self._call(member, "join", meeting) for member, meeting in pairs))

    async def receive(self, chunk: Any, *more: Any) -> None:
        """Load one chunk everywhere: a Ray reference to a list of (name, tensor), which the driver never reads; or its
        announcement, where the tensors come by way of the GPUs, with how to merge handles and references to them."""
        await self._on_all("receive", chunk, *more)

    async def finish_update(self, version: int) -> None:
        """Serve `version` everywhere from the next sampled token on."""
        await self._on_all("finish_update", version)

    async def sleep(self) -> None:
        """Give the memory back, everywhere, until the next update."""
        await self._on_all("sleep")

    async def start_over(self) -> None:
        """Drop everything under way, everywhere: the next update may be of an older version."""
        await self._on_all("start_over")

    async def versions(self) -> list[int]:
        """The version that each engine says it serves."""
        return list(await self._on_all("version"))

    async def probe(self, token_ids: TokenLists) -> list[list[Float32Array]]:
        """Per engine and sequence [L]: log-probability of each token given its prefix, at temperature 1."""
        return list(await self._on_all("probe", [list(map(int, ids)) for ids in token_ids]))

    async def stats(self) -> list[EngineStats]:
        """What each engine has done since it started."""
        return list(await self._on_all("stats"))

    def metrics(self) -> list[Metric]:
        """Also the share of the time since the last call in which an engine had nothing to write: mean and largest."""
        now = time.monotonic()
        seconds, self._metered_at = max(now - self._metered_at, 1e-9), now
        idle = [min(member.take_idle_s() / seconds, 1.0) for member in self._serving]
        return [
            Metric(name="engines/idle_mean", value=sum(idle) / max(len(idle), 1), reduce="last"),
            Metric(name="engines/idle_most", value=max(idle, default=0.0), reduce="last"),
            Metric(name="engines/serving", value=len(self._serving), reduce="last"),
            Metric(name="engines/lost", value=self._num_lost, reduce="last"),
            Metric(name="engines/jobs_reissued", value=self._num_reissued, reduce="last"),
        ]

    def close(self) -> None:
        """End every engine's process. Safe to call again, and while calls are pending."""
        self._restarts_left = 0
        for task in self._revivals:
            with contextlib.suppress(RuntimeError):  # its event loop is gone, and the task with it
                task.cancel()
        for member in (*self._serving, *self._returned):
            ray.kill(member.actor)

    async def _on_one(self, size: int, method: str, argument: Any) -> Any:
        """Call the least loaded engine; another one, once, if it dies of it."""
        for is_last in (False, True):
            if self._failure is not None:
                raise self._failure
            member = self._least_loaded()
            try:
                with member.working(size):
                    self._order(member)
                    return await self._call(member, method, argument)
            except DEATHS as error:
                if is_last or not self._serving:
                    self._failure = self._failure or error
                    raise self._failure from error.__cause__
                self._num_reissued += 1
            finally:
                self._order(member)
        raise AssertionError("the second attempt returns or raises")

    def _least_loaded(self) -> Member:
        """The engine with the fewest siblings pending, of several the oldest. Of a thousand engines it is found in the
        time of a few: only what changed since it was last in order is looked at."""
        while True:
            load, _, member = self._by_load[0]
            if load == member.num_pending and not member.is_buried:
                return member
            heapq.heappop(self._by_load)

    def _order(self, member: Member) -> None:
        """Note the load of an engine, which has just changed."""
        if len(self._by_load) > 4 * len(self._serving) + 64:  # what is out of date sinks and stays
            self._by_load = [(m.num_pending, m.number, m) for m in self._serving]
            heapq.heapify(self._by_load)
        elif not member.is_buried:
            heapq.heappush(self._by_load, (member.num_pending, member.number, member))

    async def _on_all(self, method: str, *args: Any) -> list[Any]:
        """Call every engine. One that dies of it is left behind with what it missed."""
        if self._failure is not None:
            raise self._failure
        calls = (self._call(member, method, *args) for member in tuple(self._serving))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, DEATHS):
                raise answer
        if self._failure is not None:  # the last engine died
            raise self._failure
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _call(self, member: Member, method: str, *args: Any) -> Any:
        try:
            with self.observe(member.name, method):
                return await member.call(method, *args, timeout_s=self._call_timeout_s)
        except DEATHS as error:
            self._bury(member, error)
            raise
        except EngineError as error:
            self._failure = self._failure or error
            raise self._failure from error.__cause__

    def _bury(self, member: Member, error: EngineError) -> None:
        """Take a dead engine out, once however many calls it took with it, and start it again if that may be."""
        if member.is_buried:
            if not self._serving:
                self._failure = self._failure or error
            return
        member.is_buried = True
        self._num_lost += 1
        self._serving.remove(member)
        ray.kill(member.actor)
        if not self._serving:
            self._failure = self._failure or error
            return
        can_return = self._revive is not None and self._restarts_left > 0
        what = "it is being started again" if can_return else "it is not started again"
        self.notify(f"{error}. Its jobs go to the other {len(self._serving)}; {what}")
        if can_return:
            self._restarts_left -= 1
            task = asyncio.get_running_loop().create_task(self._bring_back(member))
            self._revivals.add(task)
            task.add_done_callback(self._revivals.discard)

    async def _bring_back(self, member: Member) -> None:
        assert self._revive is not None
        try:
            returned = await self._revive(member)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on with the engines it has
            self.notify(f"engine {member.name} could not be started again: {error}")
            return
        self._returned.append(returned)
        self.notify(f"engine {member.name} is back and serves from the next publish on")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
