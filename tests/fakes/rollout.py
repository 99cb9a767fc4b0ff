"""Stand-ins for the engine of `rollout`."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from rollout.engine import Completion, Request, RequestError

Policy = Callable[[tuple[int, ...]], int]  # all tokens so far, the prompt's included -> the next one


class ScriptedEngine:
    """Draws from a policy that is a function of the whole context, so what is drawn twice comes out the same.

    The log-probability of a token is minus its position in the sequence; weights change before every request of
    `new_versions`, which counts requests from 0. With `marks`, the ids that open and close the thinking, it closes the
    thinking by itself as vLLM does.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        decode: Callable[[list[int]], str] | None = None,
        max_model_len: int = 1000,
        new_versions: Sequence[int] = (),
        fails_on: Callable[[Request], bool] = lambda request: False,
        marks: tuple[int, int] | None = None,
    ) -> None:
        self.policy = policy
        self.decode = decode
        self.max_model_len = max_model_len
        self.requests: list[Request] = []
        self.version = 0
        self._new_versions = new_versions
        self._fails_on = fails_on
        self._marks = marks
        self.closes_thinking = marks is not None

    async def complete(self, request: Request) -> Completion:
        assert 0 < request.max_tokens <= self.max_model_len - len(request.prompt_ids)
        self.version += len(self.requests) in self._new_versions
        self.requests.append(request)
        await asyncio.sleep(0)
        if self._fails_on(request):
            raise RequestError("refused on purpose")
        context = list(request.prompt_ids)
        start, finish = len(context), "length"
        while len(context) - start < request.max_tokens:
            forced = self._forced(context, request.thinking_budget)
            context.append(self.policy(tuple(context)) if forced is None else forced)
            text = self.decode(context[start:]) if self.decode and request.stop_texts else ""
            if context[-1] in request.stop_ids or any(stop in text for stop in request.stop_texts):
                finish = "stop"
                break
        size = len(context) - start
        return Completion(
            token_ids=np.asarray(context[start:], dtype=np.int32),
            logprobs=-np.arange(start, len(context), dtype=np.float32),
            versions=np.full(size, self.version, dtype=np.int32),
            finish="stop" if finish == "stop" else "length",
        )

    def _forced(self, context: list[int], budget: int | None) -> int | None:
        """The closing mark where the thinking since the last opening mark has used its budget up."""
        if self._marks is None or budget is None:
            return None
        opening, closing = self._marks
        after_close = len(context) - context[::-1].index(closing) if closing in context else 0
        if opening not in context[after_close:]:
            return None
        return closing if len(context) - context.index(opening, after_close) - 1 >= budget else None
