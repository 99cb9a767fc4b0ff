"""One plugin as the service sees it: its own workers, its capabilities, samples in and outcomes out."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.config import SandboxConfig
from rewards.lanes import Lanes
from rewards.outcome import Sample, unjudged
from rewards.plugins.contract import Capabilities
from rewards.plugins.spec import PluginSpec
from rewards.replies import outcomes_of
from rewards.sandbox import Reply, ReplyStatus, SandboxLoadError
from rollout.schema import Outcome, Status

_DESCRIBE = "describe"
_ASYNC_GRACE_S = 1.0  # past the deadline that an async plugin keeps by itself: by then its event loop is blocked
_LOG = logging.getLogger("ponder.rewards")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a loaded plugin turned out to be."""

    adapter: str
    capabilities: Capabilities
    picklable: bool


class PluginLoadError(SandboxLoadError):
    """A plugin that cannot be used: no such function, an import that fails, an unknown call shape."""


class PluginRunner:
    """Runs one plugin in workers of its own, so that one that hangs or hoards cannot keep the others from theirs."""

    def __init__(self, spec: PluginSpec, limits: SandboxConfig) -> None:
        self.spec = spec
        self.target = spec.target()
        self.lanes = Lanes(limits)
        self.description: Description | None = None  # None until it is loaded
        self._describing = asyncio.Lock()

    async def describe(self) -> Description:
        """Load the plugin and say what it is; the adapter that was chosen is logged. Raises PluginLoadError."""
        async with self._describing:
            if self.description is None:
                self.description = await self._load()
            return self.description

    async def score(self, samples: Sequence[Sample], *, within_s: float = math.inf) -> list[Outcome]:
        """One outcome per sample, in order. A failure of the plugin is an unjudged outcome that says which.

        A batch that fails as a whole is asked again one by one, so that one sample cannot unjudge its neighbors. A
        worker that died is given one more try: the sample may not have been the cause.
        """
        started = time.monotonic()
        try:
            capabilities = (await self.describe()).capabilities
        except PluginLoadError as error:
            return [unjudged(Status.CRASH, str(error))] * len(samples)
        shown = list(samples) if capabilities.reads_thinking else [sample.answer_only() for sample in samples]
        outcomes = await self._units(_cut(samples, capabilities), shown, started + within_s, capabilities)
        again = [index for index, (_, retry) in sorted(outcomes.items()) if retry]
        if capabilities.form != "group":
            outcomes |= await self._units([[index] for index in again], shown, started + within_s, capabilities)
        return [self._named(outcomes[index][0]) for index in range(len(samples))]

    def close(self) -> None:
        self.lanes.close()

    async def _load(self) -> Description:
        try:
            await self.lanes.load(self.target)
        except SandboxLoadError as error:
            cause = str(error).partition("cannot be loaded in a worker: ")[2]
            raise PluginLoadError(f"plugin {self.spec.name!r} ({self.spec.place}) cannot be used: {cause}") from error
        (reply,) = await self.lanes.call(self.target, [_DESCRIBE])
        if reply.status is not ReplyStatus.OK:
            raise PluginLoadError(f"plugin {self.spec.name!r} ({self.spec.place}) cannot be used: {reply.detail}")
        found = _description(reply.value)
        _LOG.info("plugin %s (%s): adapter %s", self.spec.name, self.spec.place, found.adapter)
        return found

    async def _units(
        self, units: Sequence[Sequence[int]], samples: Sequence[Sample], expires: float, capabilities: Capabilities
    ) -> dict[int, tuple[Outcome, bool]]:
        """Outcome of every sample in the units, and whether a further try may change it."""
        payloads = [tuple(samples[index] for index in unit) for unit in units]
        limit = capabilities.max_seconds + (_ASYNC_GRACE_S if capabilities.is_async else 0)
        within_s = expires - time.monotonic()
        replies = await self.lanes.call(self.target, payloads, within_s=within_s, max_seconds=limit)
        found: dict[int, tuple[Outcome, bool]] = {}
        for unit, reply in zip(units, replies, strict=True):
            retry = _worth_another_try(reply, len(unit))
            for index, outcome in zip(unit, outcomes_of(reply, len(unit)), strict=True):
                found[index] = (outcome, retry)
        return found

    def _named(self, outcome: Outcome) -> Outcome:
        """A failure says whose it is: the reason travels into the record and the log."""
        if outcome.is_scored or outcome.reason.startswith("plugin "):
            return outcome
        return unjudged(outcome.status, f"plugin {self.spec.name!r}: {outcome.reason}")


def _worth_another_try(reply: Reply, size: int) -> bool:
    if reply.status is ReplyStatus.OK:
        return False
    return size > 1 or reply.status in (ReplyStatus.CRASH, ReplyStatus.MEMORY)


def _cut(samples: Sequence[Sample], capabilities: Capabilities) -> list[list[int]]:
    """Indices of the samples of each call, in order: whole groups, batches, or one by one."""
    if capabilities.form == "group":
        groups: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            groups.setdefault(sample.group_id, []).append(index)
        return list(groups.values())
    size = capabilities.batch_size if capabilities.form == "batch" or capabilities.is_async else 1
    return [list(range(start, min(start + size, len(samples)))) for start in range(0, len(samples), size)]


def _description(value: Mapping[str, Any]) -> Description:
    fields = {field.name: value[field.name] for field in dataclasses.fields(Capabilities)}
    return Description(adapter=value["adapter"], capabilities=Capabilities(**fields), picklable=value["picklable"])
