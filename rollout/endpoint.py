"""A policy behind an OpenAI-compatible server: jobs in, groups out, as from an engine of our own.

The server writes the prompt with its own template and stops where it likes, so what comes back has text and no tokens:
`token_ids` are all -1, probabilities are 0.0, and such a trajectory can be read and judged but never trained on. Token
counts are the server's own (`usage`); where it does not report its reasoning tokens, thinking and answer share the sum
in proportion to their characters.

Thinking is taken from `reasoning_content` or `reasoning` of the message, or from between the marks in its content. A
numeric budget is asked for in the prompt and as a limit on all tokens; closing the thinking by force is not part of the
protocol. A server that can do it, or that has efforts of its own, is told so by fields of the request, per mode.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from rollout.config import FormatConfig
from rollout.render import with_instruction
from rollout.schema import CharSpan, Finish, Group, Job, PolicySpan, Trajectory
from rollout.token_counts import TokenCounts

RETRIED_STATUSES = frozenset({408, 409, 425, 429})  # and all from 500
REFUSALS = {
    401: "check the key",
    403: "check the key",
    404: "check the URL (it usually ends in /v1) and the model's name",
}
LONGEST_PAUSE_S = 30.0


class EndpointError(ValueError):
    """A server that cannot be used as it was named: address, key or model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the server is and how it is asked. `fields` maps a mode to what its requests say beyond the usual; a value
    None takes a usual field away."""

    url: str
    model: str | None = None  # None: the first that the server lists
    api_key: str | None = field(default=None, repr=False)
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timeout_s: float = 600.0
    max_tries: int = 6
    first_pause_s: float = 0.5


class EndpointPolicy:
    """Client of one server. Belongs to one event loop; `close` it."""

    def __init__(self, endpoint: Endpoint, format: FormatConfig, *, max_connections: int = 64) -> None:
        headers = {} if endpoint.api_key is None else {"Authorization": f"Bearer {endpoint.api_key}"}
        self._endpoint = endpoint
        self._format = format
        self._client = httpx.AsyncClient(
            base_url=endpoint.url.rstrip("/") + "/",
            headers=headers,
            timeout=endpoint.timeout_s,
            limits=httpx.Limits(max_connections=max_connections),
        )
        self.model = endpoint.model or ""

    async def start(self) -> None:
        """Find out the model's name. Raises EndpointError when the server cannot be used."""
        try:
            reply = await self._client.get("models")
        except httpx.HTTPError as error:
            raise EndpointError(
                f"no server answers at {self._endpoint.url}: {error or type(error).__name__}"
            ) from error
        if self.model:
            return  # a server need not list its models
        _raise_refusal(reply, self._endpoint.url)
        listed = [str(entry["id"]) for entry in reply.json().get("data", [])] if reply.is_success else []
        if not listed:
            raise EndpointError(f"the server at {self._endpoint.url} lists no model; name it with --model")
        self.model = listed[0]

    async def close(self) -> None:
        await self._client.aclose()

    async def sample(self, job: Job) -> tuple[Group, tuple[TokenCounts, ...]]:
        """The group of a job, with the counts of its siblings. A sibling that failed has finish ERROR."""
        answers = await asyncio.gather(*(self._sibling(job, sibling) for sibling in range(job.num_siblings)))
        return Group(job=job, trajectories=tuple(t for t, _ in answers)), tuple(c for _, c in answers)

    async def generate(self, job: Job) -> Group:
        """The group alone: what an engine pool offers."""
        return (await self.sample(job))[0]

    async def _sibling(self, job: Job, sibling: int) -> tuple[Trajectory, TokenCounts]:
        reply = await self._ask(self._body(job, sibling))
        if isinstance(reply, str):
            return _failed(job, sibling, reply)
        try:
            choice, usage = reply["choices"][0], reply["usage"]
            message = choice["message"]
            thought = message.get("reasoning_content") or message.get("reasoning") or ""
            text, thinking, answer = read_reply(thought, message.get("content") or "", self._format)
            total = int(usage["completion_tokens"])
            reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return _failed(job, sibling, f"the reply is no chat completion with usage: {type(error).__name__} {error}")
        was_cut = choice.get("finish_reason") == "length"
        if was_cut and answer is not None and answer[0] == answer[1]:
            answer = None  # cut inside the thinking, which the server has moved out of the content
        finish = Finish.LENGTH if was_cut else Finish.STOP
        trajectory = _trajectory(job, sibling, text, thinking, answer, finish=finish, total=total)
        return trajectory, split_tokens(total, reasoning, len(text), thinking, answer)

    def _body(self, job: Job, sibling: int) -> dict[str, Any]:
        budget, sampling = job.budget, job.sampling
        messages = with_instruction(job.task.prompt, budget.instruction)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "max_tokens": (budget.max_thinking_tokens or 0) + budget.max_answer_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.seed is not None:
            name = f"{sampling.seed}/{job.task.key}/{sibling}"
            body["seed"] = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 1
        if budget.opens_thinking or budget.max_thinking_tokens == 0:
            body["chat_template_kwargs"] = {"enable_thinking": budget.opens_thinking}
        body |= self._endpoint.fields.get(budget.effort, {})
        return {name: value for name, value in body.items() if value is not None}

    async def _ask(self, body: Mapping[str, Any]) -> dict[str, Any] | str:
        """The reply, or why there is none after all tries. Raises EndpointError where no request can succeed."""
        problem = ""
        for number in range(self._endpoint.max_tries):
            pause = min(self._endpoint.first_pause_s * 2**number, LONGEST_PAUSE_S)
            try:
                reply = await self._client.post("chat/completions", json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if reply.is_success:
                    return _json(reply)
                _raise_refusal(reply, self._endpoint.url)
                problem = f"status {reply.status_code}: {reply.text[:300]}"
                if reply.status_code < 500 and reply.status_code not in RETRIED_STATUSES:
                    return problem
                pause = _asked_pause(reply) or pause
            if number + 1 < self._endpoint.max_tries:
                await asyncio.sleep(pause)
        return f"no reply in {self._endpoint.max_tries} tries, the last: {problem}"


def read_reply(thought: str, content: str, format: FormatConfig) -> tuple[str, CharSpan | None, CharSpan | None]:
    """Text of a response with the spans of its thinking and its answer; None for a part that is not there."""
    opening, closing = format.thinking_open, format.thinking_close
    if thought:
        start = len(opening)
        text = f"{opening}{thought}{closing}{content}"
        return text, (start, start + len(thought)), (len(text) - len(content), len(text))
    if not format.has_thinking:
        return content, None, (0, len(content))
    opened, closed = content.find(opening), content.find(closing)
    if opened < 0 and closed < 0:
        return content, None, (0, len(content))
    start = opened + len(opening) if opened >= 0 and not 0 <= closed < opened else 0
    closed = content.find(closing, start)
    if closed < 0:
        return content, (start, len(content)), None
    return content, (start, closed), (closed + len(closing), len(content))


def split_tokens(
    total: int, reasoning: int | None, length: int, thinking: CharSpan | None, answer: CharSpan | None
) -> TokenCounts:
    """The server's counts where it gives them, else the total in proportion to characters."""
    if reasoning is not None:
        return TokenCounts(thinking=reasoning, answer=max(0, total - reasoning), response=total)
    if thinking is None or not length:
        return TokenCounts(thinking=0, answer=total, response=total)
    thought = round(total * (thinking[1] - thinking[0]) / length)
    rest = 0 if answer is None else round(total * (answer[1] - answer[0]) / length)
    return TokenCounts(thinking=thought, answer=rest, response=total, is_estimated=True)


def _trajectory(
    job: Job,
    sibling: int,
    text: str,
    thinking: CharSpan | None,
    answer: CharSpan | None,
    *,
    finish: Finish,
    total: int,
    error: str | None = None,
) -> Trajectory:
    """Text with as many unknown tokens as the server counted, laid evenly over it."""
    ends = np.floor(np.arange(1, total + 1) * (len(text) / max(total, 1)) + 1e-9).astype(np.int32)
    return Trajectory(
        group_id=job.group_id,
        sibling=sibling,
        token_ids=np.full(total, -1, dtype=np.int32),
        sampled=np.ones(total, dtype=np.bool_),
        sampler_logprobs=np.zeros(total, dtype=np.float32),
        char_ends=ends,
        prompt_len=0,
        text=text,
        thinking=thinking,
        answer=answer,
        finish=finish,
        policy=PolicySpan(start=0, end=0),
        error=error,
    )


def _failed(job: Job, sibling: int, reason: str) -> tuple[Trajectory, TokenCounts]:
    trajectory = _trajectory(job, sibling, "", None, None, finish=Finish.ERROR, total=0, error=reason)
    return trajectory, TokenCounts(thinking=0, answer=0, response=0)


def _raise_refusal(reply: httpx.Response, url: str) -> None:
    if reply.status_code in REFUSALS:
        raise EndpointError(
            f"the server at {url} refuses with status {reply.status_code}: {reply.text[:200]}; "
            f"{REFUSALS[reply.status_code]}"
        )


def _json(reply: httpx.Response) -> dict[str, Any] | str:
    try:
        value = reply.json()
    except json.JSONDecodeError:
        return f"the reply is no JSON: {reply.text[:200]!r}"
    return value if isinstance(value, dict) else f"the reply is no object: {reply.text[:200]!r}"


def _asked_pause(reply: httpx.Response) -> float | None:
    """Seconds that the server asks to wait."""
    try:
        return min(float(reply.headers["retry-after"]), LONGEST_PAUSE_S)
    except (KeyError, ValueError):
        return None
