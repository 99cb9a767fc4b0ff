"""What a plugin is, and what it may declare of itself.

A plugin of one's own is a function with one parameter, whose name says what one call takes:

    def verify(sample): ...       one attempt, a `rewards.outcome.Sample`
    def verify(samples): ...      a batch of attempts, of any tasks; returns one value each
    def verify(group): ...        all siblings of one task and effort; returns one value each

It may be `async`: then many calls wait together in one process. For each attempt it returns a `rollout.schema.Outcome`
(`judged`, `unparseable` and `unjudged` in `rewards.outcome` make them), a number or bool in the range of the plugin,
or a dict with "score" and further numbers, which are kept as parts. Whatever else comes back, and whatever is raised,
leaves the attempt unjudged, with the reason.

`declare` is optional. What is not declared is not assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

Form = Literal["sample", "batch", "group"]
FORM_OF_PARAMETER: dict[str, Form] = {"sample": "sample", "samples": "batch", "group": "group"}
DEFAULT_BATCH = 32

_DECLARED = "__ponder_declared__"
Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the author says of a plugin. None: nothing was said, so the shape of the function or the settings decide."""

    needs_group: bool | None = None
    batch_size: int | None = None
    deterministic: bool | None = None
    reads_thinking: bool | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the service goes by. A verdict is reused only for a deterministic plugin that reads no thinking."""

    form: Form
    is_async: bool
    batch_size: int
    deterministic: bool
    reads_thinking: bool
    max_seconds: float

    @property
    def reusable(self) -> bool:
        return self.deterministic and not self.reads_thinking and self.form != "group"


def declare(
    *,
    needs_group: bool | None = None,
    batch_size: int | None = None,
    deterministic: bool | None = None,
    reads_thinking: bool | None = None,
    max_seconds: float | None = None,
) -> Callable[[Function], Function]:
    """Decorator that states what a plugin needs and promises; the function itself stays as it is.

    needs_group: one call gets all siblings of a group, whatever the parameter is called.
    batch_size: most attempts in one call; for an async plugin, most calls waiting at once.
    deterministic: equal attempts get equal verdicts.
    reads_thinking: False hides the thinking from it, so that an answer in the thoughts cannot be rewarded.
    max_seconds: wall time of one call, in place of `rewards.sandbox.max_seconds`.

    Raises ValueError for a batch size below 1 or a time that is not positive.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds must be positive, got {max_seconds}")
    declared = Declared(
        needs_group=needs_group,
        batch_size=batch_size,
        deterministic=deterministic,
        reads_thinking=reads_thinking,
        max_seconds=max_seconds,
    )

    def attach(function: Function) -> Function:
        setattr(function, _DECLARED, declared)
        return function

    return attach


def declared_by(function: object) -> Declared:
    found = getattr(function, _DECLARED, None)
    return found if isinstance(found, Declared) else Declared()
