"""What an inference engine is asked and what it answers, without naming one.

`rollout/vllm_engine.py` implements `Engine`; `rollout/generate.py` turns jobs into requests of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rollout.schema import Float32Array, Int32Array


class EngineError(RuntimeError):
    """An engine broke one of its promises."""


class RequestError(EngineError):
    """The engine refused or failed one request; the others are unharmed."""


class EngineDeadError(EngineError):
    """The engine cannot serve anything any more: its process ended, or a step of it failed."""


class EngineTimeoutError(EngineError):
    """An engine did not answer within the deadline of the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Continue `prompt_ids` by at most `max_tokens` sampled tokens.

    Sampling ends after the first token of `stop_ids`, or with the token that completes one of `stop_texts`; that token
    is kept. Model and tokenizer settings add no stop of their own.
    """

    prompt_ids: Sequence[int]
    max_tokens: int
    stop_ids: tuple[int, ...]
    stop_texts: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    thinking_budget: int | None = None  # only for an engine that closes the thinking itself


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """Sampled tokens with their natural-log probabilities under the distribution they were drawn from.

    `versions` are the versions of the weights that each token was drawn from.
    """

    token_ids: Int32Array  # [N]
    logprobs: Float32Array  # [N]
    versions: Int32Array  # [N]
    finish: Literal["stop", "length", "abort"]


class Engine(Protocol):
    """A continuously batching sampler. All methods are called from one event loop."""

    @property
    def max_model_len(self) -> int:
        """Longest sequence, prompt and sampled tokens together."""
        ...

    @property
    def version(self) -> int:
        """Version of the weights that the next token is drawn from."""
        ...

    @property
    def closes_thinking(self) -> bool:
        """Whether it puts the closing mark in by itself once `Request.thinking_budget` tokens of thinking are drawn,
        those in the prompt after its last opening mark included."""
        ...

    async def complete(self, request: Request) -> Completion:
        """Sample. Raises RequestError when this request fails and EngineDeadError when the engine does."""
        ...
