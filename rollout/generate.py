"""One job becomes one group: which requests an engine gets, and what their tokens are as trajectories.

The thinking cap. With a cap of T tokens and a limit of A answer tokens, a response is drawn from this process: sample
until the thinking closes or T tokens of it are drawn; in the second case put the forced close there, unsampled,
whatever the model would have drawn next; then sample at most A more tokens. Forcing the close without asking the model
for its own next token keeps the policy gradient unbiased: a token that counts only when it happens to be the closing
mark would have a score of non-zero mean. Without a cap, A limits thinking and answer together. What a budget puts in
at the beginning of a response is unsampled too and counts towards no limit.

One request for both phases. Sampling may run past the end of the thinking in the same request, and what it drew beyond
a limit is dropped: a prefix of a sample is a sample of the prefix, so the distribution is that of two requests. It is
done while at most `RUN_ON_TOKENS` can be wasted on an answer that does not end; otherwise the first request stops at
the closing mark. An engine that closes the thinking itself (`rollout.thinking_cap = "engine"`) gets one request
whatever the limits are, and the mark it put in is recognized by its place.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rollout.engine import Completion, Engine, EngineError, Request, RequestError
from rollout.engine_close import end_of_cap, end_of_second_opening
from rollout.put_in import PutIn
from rollout.reading import read_response
from rollout.render import Renderer
from rollout.schema import Finish, Group, Job, PolicySpan, Trajectory

RUN_ON_TOKENS = 256


class ThinkingCapError(AssertionError):
    """A finished trajectory thinks longer than its budget allows: the enforcement is broken."""


def request_seed(job: Job, sibling: int, position: int) -> int | None:
    """Seed of the request that continues a sibling's response after `position` tokens; None if the job has none."""
    seed = job.sampling.seed
    if seed is None:
        return None
    return seed_of(f"{seed}/{job.task.key}/{sibling}/{position}")


def seed_of(name: str) -> int:
    """63 bits that depend on a name alone."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


async def generate_group(job: Job, engine: Engine, renderer: Renderer) -> Group:
    """Run every sibling of a job at the same time.

    A sibling that the engine refuses or that cannot be rendered becomes a trajectory with finish ERROR; the others are
    unharmed. An engine that died raises EngineDeadError.
    """
    try:
        prompt = renderer.prompt_ids(job.task.prompt, job.budget.instruction)
        put_in = PutIn.of(job, renderer)
    except ValueError as error:
        failed = (_empty(job, s, (), Finish.ERROR, engine.version, str(error)) for s in range(job.num_siblings))
        return Group(job=job, trajectories=tuple(failed))
    siblings = (_sibling(job, sibling, prompt, put_in, engine, renderer) for sibling in range(job.num_siblings))
    return Group(job=job, trajectories=tuple(await asyncio.gather(*siblings)))


async def _sibling(
    job: Job, sibling: int, prompt: list[int], put_in: PutIn, engine: Engine, renderer: Renderer
) -> Trajectory:
    limit = min(job.budget.max_prompt_tokens, engine.max_model_len - 1)
    if len(prompt) > limit:
        reason = f"the prompt has {len(prompt)} tokens, the limit is {limit}"
        return _empty(job, sibling, prompt, Finish.PROMPT_TOO_LONG, engine.version, reason)
    attempt = Attempt(job, sibling, prompt, put_in, renderer, room=engine.max_model_len - len(prompt))
    try:
        finish = await attempt.run(engine)
    except RequestError as error:
        return _empty(job, sibling, prompt, Finish.ERROR, engine.version, str(error))
    trajectory = attempt.trajectory(finish, engine.version)
    cap = job.budget.max_thinking_tokens
    if renderer.format.has_thinking and cap is not None and trajectory.num_thinking_tokens > cap:
        raise ThinkingCapError(
            f"sibling {sibling} of group {job.group_id} has {trajectory.num_thinking_tokens} thinking tokens, "
            f"effort {job.budget.effort!r} allows {cap}"
        )
    return trajectory


def _empty(job: Job, sibling: int, prompt: Sequence[int], finish: Finish, version: int, reason: str) -> Trajectory:
    """A trajectory without a response."""
    size = len(prompt)
    return Trajectory(
        group_id=job.group_id,
        sibling=sibling,
        token_ids=np.asarray(prompt, dtype=np.int32),
        sampled=np.zeros(size, dtype=np.bool_),
        sampler_logprobs=np.zeros(size, dtype=np.float32),
        char_ends=np.zeros(size, dtype=np.int32),
        prompt_len=size,
        text="",
        thinking=None,
        answer=None,
        finish=finish,
        policy=PolicySpan(start=version, end=version),
        error=reason,
    )


# ------------------------------------------------------------------------------------------------ one attempt


class Attempt:
    """One sibling: the response so far, and what to do next."""

    def __init__(
        self, job: Job, sibling: int, prompt: list[int], put_in: PutIn, renderer: Renderer, *, room: int
    ) -> None:
        self._job = job
        self._sibling = sibling
        self._prompt = prompt
        self._put_in = put_in
        self._renderer = renderer
        self._room = room  # longest response that the model has positions for
        self._cap = job.budget.max_thinking_tokens if renderer.format.has_thinking else None
        self._is_cut = False
        self.seed: int | None = None  # of every request, in place of the job's own
        self._ids: list[int] = []
        self._sampled: list[bool] = []
        self._logprobs: list[float] = []
        self._versions: list[int] = []
        self._reading = read_response((), renderer)

    @property
    def num_sampled(self) -> int:
        return sum(self._sampled)

    def go_on_from(self, written: Trajectory) -> None:
        """Take over the response of an earlier trajectory on the same prompt. Raises ValueError on another prompt."""
        if written.token_ids[: written.prompt_len].tolist() != self._prompt:
            raise ValueError(f"a trajectory of task {self._job.task.key} can only be continued after its own prompt")
        start = written.prompt_len
        self._ids = written.token_ids[start:].tolist()
        self._sampled = written.sampled[start:].tolist()
        self._logprobs = written.sampler_logprobs[start:].tolist()
        self._versions = written.policy.at(np.flatnonzero(written.sampled)).tolist()
        self._reading = read_response(self._ids, self._renderer)
        self._is_cut = self._was_forced_shut()

    async def run(self, engine: Engine) -> Finish:
        """Sample, apply the limits to what came, and go on until the response has ended."""
        finish = self._start()
        while finish is None:
            whole = self._whole_request() if engine.closes_thinking else None
            finish = await self._sample(engine, whole or self._request())
        return finish

    async def run_step(self, engine: Engine, stop: str, max_tokens: int | None) -> Finish | None:
        """Sample to the end of a step of the thinking, which `stop` ends; None: there is more to come."""
        finish, first = self._start(), len(self._ids)
        while finish is None:
            request = self._request()
            if self._reading.closed is None:
                left = request.max_tokens if max_tokens is None else max_tokens - (len(self._ids) - first)
                request = replace(
                    request, max_tokens=min(request.max_tokens, left), stop_texts=(*request.stop_texts, stop)
                )
            finish = await self._sample(engine, request)
            if finish is None and self._reading.closed is None and self._has_step(first, stop, max_tokens):
                return None
        return finish

    def _has_step(self, first: int, stop: str, max_tokens: int | None) -> bool:
        """Whether the tokens from `first` on complete a step."""
        if max_tokens is not None and len(self._ids) - first >= max_tokens:
            return True
        ends = self._reading.char_ends
        start = int(ends[first - 1]) if first else 0
        return stop in self._reading.text[max(0, start - len(stop) + 1) :]

    def _start(self) -> Finish | None:
        if not self._ids:
            self._force(self._put_in.beginning[: self._room])
        return self._settle()

    async def _sample(self, engine: Engine, request: Request) -> Finish | None:
        completion = await engine.complete(request)
        self._append(completion)
        if request.thinking_budget is not None:
            self._own_the_close()
        return Finish.ABORTED if completion.finish == "abort" else self._settle()

    def _was_forced_shut(self) -> bool:
        """Whether the closing mark was put in at the cap: not sampled, and no part of the beginning."""
        closed = self._reading.closed
        return closed is not None and len(self._put_in.beginning) < closed.after and not self._sampled[closed.after - 1]

    def trajectory(self, finish: Finish, version: int) -> Trajectory:
        """`version` stands in for the policy where nothing was sampled."""
        padding = len(self._prompt)
        places = [padding + i for i, is_sampled in enumerate(self._sampled) if is_sampled]
        reading = self._reading
        return Trajectory(
            group_id=self._job.group_id,
            sibling=self._sibling,
            token_ids=np.asarray([*self._prompt, *self._ids], dtype=np.int32),
            sampled=np.asarray([False] * padding + self._sampled, dtype=np.bool_),
            sampler_logprobs=np.asarray([0.0] * padding + self._logprobs, dtype=np.float32),
            char_ends=np.concatenate([np.zeros(padding, dtype=np.int32), reading.char_ends]),
            prompt_len=padding,
            text=reading.text,
            thinking=reading.thinking,
            answer=reading.answer,
            finish=finish,
            policy=PolicySpan.of(self._versions or [version], places or [0]),
        )

    def _settle(self) -> Finish | None:
        """Cut what lies beyond a limit and force the close where the cap says so; None: sample on."""
        limit = self._job.budget.max_answer_tokens
        if self._cap is not None and self._num_before >= limit:  # the thinking was not opened in time
            self._truncate(min(len(self._put_in.beginning), self._reading.num_before) + limit)
        elif not self._enforce_cap():
            return Finish.LENGTH
        if self._num_outside > limit:
            self._truncate(len(self._ids) - (self._num_outside - limit))
        has_ended = self._cut_after_answer()
        if has_ended or (self._sampled and self._sampled[-1] and self._ids[-1] in self._renderer.eos_ids):
            return Finish.THINKING_CUT if self._is_cut else Finish.STOP
        if self._num_outside == limit or len(self._ids) >= self._room:
            return Finish.LENGTH
        return None

    def _cut_after_answer(self) -> bool:
        """Drop what follows the text that ends an answer; whether it is there."""
        mark, reading = self._renderer.format.answer_close, self._reading
        at = reading.text.find(mark, *reading.answer) if mark and reading.answer is not None else -1
        if at >= 0:
            self._truncate(int(np.searchsorted(reading.char_ends, at + len(mark), side="left")) + 1)
        return at >= 0

    def _enforce_cap(self) -> bool:
        """Put the forced close after the last allowed thinking token, if the thinking is still open there.

        Return False when no position is left for an answer after it.
        """
        cap, reading = self._cap, self._reading
        if cap is None or self._is_cut:
            return True
        forced = list(self._put_in.close)
        if reading.opened is None:
            if cap > 0:
                return True
            forced = [*self._renderer.opening.ids, *forced]
        elif self._num_thinking < cap:
            return True
        else:
            self._truncate(reading.opened.after + reading.num_thinking - self._num_thinking + cap)
        if len(self._ids) + len(forced) >= self._room:
            return False
        self._force(forced)
        self._is_cut = True
        return True

    def _force(self, ids: Sequence[int]) -> None:
        """Put tokens in that the policy did not draw."""
        if not ids:
            return
        self._ids += ids
        self._sampled += [False] * len(ids)
        self._logprobs += [0.0] * len(ids)
        self._reading = read_response(self._ids, self._renderer)

    def _request(self) -> Request:
        """Ask for as many tokens as can be used before the next limit."""
        cap, reading = self._cap, self._reading
        answer_left = self._job.budget.max_answer_tokens - self._num_outside
        if cap is None or reading.closed is not None:
            wanted = answer_left
        elif reading.opened is not None:
            wanted = cap - self._num_thinking
        else:
            wanted = cap + len(self._renderer.opening.ids)  # the usual response opens its thinking at once
            if self._ids:
                wanted = max(wanted, answer_left)
        sampling = self._job.sampling
        stop_ids, stop_texts = self._stops()
        return Request(
            prompt_ids=[*self._prompt, *self._ids],
            max_tokens=min(wanted, self._room - len(self._ids)),
            stop_ids=stop_ids,
            stop_texts=stop_texts,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=self._seed(),
        )

    def _whole_request(self) -> Request | None:
        """Thinking, close and answer in one request, for an engine that closes the thinking; None where it cannot."""
        cap, reading, opening = self._cap, self._reading, self._renderer.opening.ids
        if not cap or self._is_cut or reading.closed is not None or self._put_in.close != self._renderer.closing.ids:
            return None
        if reading.opened is None and opening[0] in self._prompt:  # it would count from there
            return None
        left = cap - self._num_thinking
        limit = self._job.budget.max_answer_tokens - self._num_outside
        wanted = len(opening) + left + len(self._put_in.close) + limit
        return replace(
            self._request(),
            max_tokens=min(wanted, self._room - len(self._ids)),
            stop_ids=self._renderer.eos_ids,
            stop_texts=tuple(text for text in (self._renderer.format.answer_close,) if text),
            thinking_budget=left + reading.num_thinking,
        )

    def _own_the_close(self) -> None:
        """What the engine put in is marked as such. Raises EngineError where it let the thinking go on."""
        cap, close = self._cap or 0, list(self._put_in.close)
        again = end_of_second_opening(self._reading, self._renderer.opening.text)
        if again is not None:
            self._truncate(again)
        at = end_of_cap(self._reading, self._sampled, cap)
        if at is None or at == len(self._ids):
            return
        if at + len(close) >= self._room:
            return self._truncate(at)  # no position is left for an answer
        if self._ids[at : at + len(close)] != close:
            raise EngineError(f"the engine was to close the thinking after {cap} tokens, and wrote on")
        first = sum(self._sampled[:at])
        del self._versions[first : first + len(close)]
        for place in range(at, at + len(close)):
            self._sampled[place], self._logprobs[place] = False, 0.0
        self._is_cut = True

    def _stops(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """End of sequence, end of an answer, and the closing mark where running on after it could waste too much."""
        eos_ids, closing = self._renderer.eos_ids, self._renderer.closing
        texts = (self._renderer.format.answer_close,) if self._renderer.format.answer_close else ()
        run_on = 0 if self._cap is None else self._cap - self._job.budget.max_answer_tokens
        if run_on <= RUN_ON_TOKENS or self._reading.closed is not None:
            return eos_ids, texts
        if closing.token_id is None:
            return eos_ids, (closing.text, *texts)
        return (*eos_ids, closing.token_id), texts

    def _seed(self) -> int | None:
        """A seed of its own for each request of each sibling, the same in every run."""
        if self.seed is not None:
            return seed_of(f"{self.seed}/{len(self._ids)}")
        return request_seed(self._job, self._sibling, len(self._ids))

    @property
    def _num_before(self) -> int:
        """Sampled tokens before the thinking is opened."""
        return sum(self._sampled[: self._reading.num_before])

    @property
    def _num_thinking(self) -> int:
        """Sampled tokens of the thinking, before a forced close."""
        opened = self._reading.opened
        if opened is None:
            return 0
        return sum(self._sampled[opened.after : opened.after + self._reading.num_thinking])

    @property
    def _num_outside(self) -> int:
        """Sampled tokens that the answer limit counts: those outside the marks, or all if there is no separate cap."""
        if self._cap is None:
            return sum(self._sampled)
        closed = self._reading.closed
        return self._num_before + (0 if closed is None else sum(self._sampled[closed.after :]))

    def _append(self, completion: Completion) -> None:
        if not len(completion.token_ids):
            raise RequestError(f"the engine ended a request with {completion.finish!r} and no token")
        self._ids += completion.token_ids.tolist()
        self._sampled += [True] * len(completion.token_ids)
        self._logprobs += completion.logprobs.tolist()
        self._versions += completion.versions.tolist()
        self._reading = read_response(self._ids, self._renderer)

    def _truncate(self, size: int) -> None:
        """Drop sampled tokens from the end: what stays is a sample of its own distribution."""
        num_dropped = len(self._ids) - size
        if not num_dropped:
            return
        assert num_dropped > 0 and all(self._sampled[size:]), "only sampled tokens can be dropped"
        del self._ids[size:], self._sampled[size:], self._logprobs[size:]
        del self._versions[len(self._versions) - num_dropped :]
        self._reading = read_response(self._ids, self._renderer)
