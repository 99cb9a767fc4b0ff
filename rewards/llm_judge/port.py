"""What a judge asks: a chat model behind whatever wire. `rewards.llm_judge.http` is the wire of this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rollout.schema import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One completion. `seed` differs from vote to vote; the reply must fit the JSON schema, if one is given."""

    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    seed: int
    schema: Mapping[str, Any] | None = None


class ChatError(Exception):
    """The model did not answer. `is_passing`: asking again may help, after `retry_after_s` where that is known."""

    def __init__(self, text: str, *, is_passing: bool, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.is_passing = is_passing
        self.retry_after_s = retry_after_s


class ChatModel(Protocol):
    """Belongs to one event loop."""

    async def complete(self, request: ChatRequest, *, within_s: float) -> str:
        """The text of one completion. Raises ChatError."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...
