"""`ModelJudge`: an answer in, votes of a model asked for and counted, an outcome out.

Whatever goes wrong on the way to a grade is not the answer's fault: too few readable votes leave it unjudged.
"""

from __future__ import annotations

import asyncio
import random
import time

from cachetools import LRUCache

from rewards.llm_judge.port import ChatError, ChatModel, ChatRequest
from rewards.llm_judge.prompt import messages_for
from rewards.llm_judge.settings import ModelJudgeSettings
from rewards.llm_judge.verdict import MalformedVerdictError, Vote, aggregate, parse_vote, verdict_schema
from rewards.outcome import Sample, unjudged, unparseable
from rollout.schema import Message, Outcome, Status

_FIRST_PAUSE_S = 0.25
_MAX_PAUSE_S = 8.0
_Key = tuple[Message, ...]


class ModelJudge:
    """Grades with one model under one set of settings. Belongs to one event loop."""

    def __init__(self, settings: ModelJudgeSettings, model: ChatModel) -> None:
        self._settings = settings
        self._model = model
        self._schema = verdict_schema(settings.max_marks) if settings.guides_reply else None
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._cache: LRUCache[_Key, Outcome] = LRUCache(maxsize=settings.cache_size)
        self._under_way: dict[_Key, asyncio.Task[Outcome]] = {}

    async def judge(self, sample: Sample) -> Outcome:
        """The score, with the rationale as the reason; parts: `votes` counted and `agreement`, the share of the most
        frequent grade. Equal requests are made once: what is under way is waited for, what was graded is remembered."""
        answer = sample.answer.strip()
        if not answer:
            return unparseable("no answer")
        if len(answer) > self._settings.max_answer_chars:
            return unparseable(f"an answer of {len(answer)} characters, more than {self._settings.max_answer_chars}")
        key = messages_for(sample, self._settings)
        known = self._cache.get(key)
        if known is not None:
            return known
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._grade(key))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        # A caller that gives up must not take the grading away from another who waits for it.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up what is under way, and the connections."""
        for task in list(self._under_way.values()):
            task.cancel()
        await self._model.close()

    async def _grade(self, messages: _Key) -> Outcome:
        settings = self._settings
        deadline = time.monotonic() + settings.max_seconds
        asked = [self._vote(messages, number, deadline) for number in range(settings.votes)]
        results = await asyncio.gather(*asked)
        votes = [result for result in results if isinstance(result, Vote)]
        failures = [result for result in results if not isinstance(result, Vote)]
        if 2 * len(votes) <= settings.votes:
            late = time.monotonic() >= deadline
            text = f"{len(votes)} of {settings.votes} votes could be counted; {failures[0]}"
            return unjudged(Status.TIMEOUT if late else Status.CRASH, text)
        score, nearest = aggregate(votes, settings)
        marks = [vote.marks for vote in votes]
        parts = {"votes": float(len(votes)), "agreement": max(map(marks.count, marks)) / len(marks)}
        outcome = Outcome(status=Status.JUDGED, score=score, parts=parts, reason=nearest.rationale)
        if settings.cache_size:
            self._cache[messages] = outcome
        return outcome

    async def _vote(self, messages: _Key, number: int, deadline: float) -> Vote | str:
        """A vote, or why there is none. Each further try has a seed of its own: the same would fail the same way."""
        settings = self._settings
        failure = "no try was made"
        for attempt in range(settings.max_tries):
            seed = number * settings.max_tries + attempt
            request = ChatRequest(
                messages=messages,
                temperature=settings.temperature,
                max_tokens=settings.max_tokens,
                seed=seed,
                schema=self._schema,
            )
            pause = min(_FIRST_PAUSE_S * 2**attempt, _MAX_PAUSE_S) * random.uniform(0.5, 1.0)
            try:
                async with asyncio.timeout(deadline - time.monotonic()), self._places:
                    reply = await self._model.complete(request, within_s=max(deadline - time.monotonic(), 0.001))
                return parse_vote(reply, settings.max_marks)
            except TimeoutError:
                return f"no grade within {settings.max_seconds:g} s (last: {failure})"
            except MalformedVerdictError as error:
                failure, pause = str(error), 0.0
            except ChatError as error:
                failure = str(error)
                if not error.is_passing:
                    return failure
                pause = max(pause, error.retry_after_s or 0.0)
            if time.monotonic() + pause >= deadline:
                return f"{failure} (and no time for another try)"
            if attempt + 1 < settings.max_tries:
                await asyncio.sleep(pause)
        return f"{failure} ({settings.max_tries} tries)"
