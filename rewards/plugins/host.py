"""A plugin inside its worker process: loaded once, described, and called. Imported by no one, named as a target."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rewards.outcome import Sample, unjudged
from rewards.plugins.adapters import Adapter, adapt
from rewards.plugins.contract import Capabilities, declared_by
from rewards.plugins.remote import remote_reward
from rewards.plugins.returns import NotANumberError, to_outcome
from rewards.plugins.shapes import detect
from rewards.plugins.spec import MAKER, PluginSpec
from rewards.worker import load_target
from rollout.schema import Outcome, Status

DESCRIBE = "describe"


class RewardRaisedError(Exception):
    """The plugin's own exception, with the place in its file."""


def bind(text: str) -> Bound:
    """The plugin that a worker target names after its mark."""
    spec = PluginSpec.of_target(MAKER + text)
    assert spec is not None, "the text comes from PluginSpec.target"
    return Bound(spec)


class Bound:
    """A plugin with its adapter. Called with DESCRIBE it tells what it is, with samples it gives their outcomes."""

    def __init__(self, spec: PluginSpec) -> None:
        """Raises whatever importing raises, and ShapeError."""
        self._spec = spec
        self._function = load_function(spec.place)
        name = spec.adapter or ("openrlhf_http" if is_address(spec.place) else detect(self._function))
        self._adapter: Adapter = adapt(name, self._function)
        self.capabilities = _capabilities(self._function, self._adapter, spec)
        self._runner = asyncio.Runner() if self.capabilities.is_async else None  # one loop: clients stay open in it

    def __call__(self, payload: Any) -> Any:
        if payload == DESCRIBE:
            return {
                "adapter": self._adapter.name,
                "picklable": _is_picklable(self._function),
                **dataclasses.asdict(self.capabilities),
            }
        outcomes = self._outcomes(payload)
        return [dataclasses.asdict(outcome) | {"parts": dict(outcome.parts)} for outcome in outcomes]

    def _outcomes(self, samples: Sequence[Sample]) -> list[Outcome]:
        calls = [[sample] for sample in samples] if self._adapter.form == "sample" else [list(samples)]
        if self._runner is not None:
            answered = self._runner.run(self._together(calls))
        else:
            answered = [self._settle(self._guarded(call), call) for call in calls]
        return [outcome for outcomes in answered for outcome in outcomes]

    def _guarded(self, call: Sequence[Sample]) -> Any:
        try:
            return self._adapter.call(call)
        except MemoryError:
            raise  # the worker is not used again
        except Exception as error:  # the boundary to the plugin's code
            raise RewardRaisedError(described(error, self._spec.place)) from error

    def _settle(self, value: Any, call: Sequence[Sample]) -> list[Outcome]:
        try:
            values = self._adapter.split(value, len(call))
        except NotANumberError as error:
            return [unjudged(Status.CRASH, f"the plugin returned {error}")] * len(call)
        spec = self._spec
        return [to_outcome(item, low=spec.low, high=spec.high, none=self._adapter.none) for item in values]

    async def _together(self, calls: Sequence[Sequence[Sample]]) -> list[list[Outcome]]:
        return list(await asyncio.gather(*(self._awaited(call) for call in calls)))

    async def _awaited(self, call: Sequence[Sample]) -> list[Outcome]:
        limit = self.capabilities.max_seconds
        try:
            return self._settle(await asyncio.wait_for(self._adapter.call(call), limit), call)
        except TimeoutError:
            return [unjudged(Status.TIMEOUT, f"the plugin took over {limit:g} s")] * len(call)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary to the plugin's code; the other calls go on
            return [unjudged(Status.CRASH, described(error, self._spec.place))] * len(call)


def _is_picklable(function: Callable[..., Any]) -> bool:
    try:
        pickle.dumps(function)
    except Exception:  # noqa: BLE001 - pickling runs the object's own code
        return False
    return True


def is_address(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def load_function(place: str) -> Callable[..., Any]:
    """Import a plugin. A file may import its neighbors, as it does when Python runs it."""
    if is_address(place):
        return remote_reward(place)
    where = place.rpartition(":")[0]
    if where.endswith(".py"):
        sys.path.insert(0, str(Path(where).resolve().parent))
    return load_target(place)


def described(error: Exception, place: str) -> str:
    """Type and message of an exception, and the deepest line that it passed in the plugin's own file."""
    where = place.rpartition(":")[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.endswith(where if where.endswith(".py") else _as_path(where))]
    place_in_file = f" ({os.path.basename(own[-1].filename)}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place_in_file}"


def _as_path(module: str) -> str:
    return module.replace(".", os.sep) + ".py"


def _capabilities(function: Callable[..., Any], adapter: Adapter, spec: PluginSpec) -> Capabilities:
    """Settings go before what the plugin declares, and that before what its adapter usually has."""
    declared = declared_by(function)
    reads_thinking = spec.reads_thinking if spec.reads_thinking is not None else declared.reads_thinking
    return Capabilities(
        form=adapter.form,
        is_async=inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__),
        batch_size=spec.batch_size or declared.batch_size or adapter.batch_size,
        deterministic=declared.deterministic is not False,
        reads_thinking=reads_thinking is not False,
        max_seconds=spec.max_seconds or declared.max_seconds or spec.default_seconds,
    )
