"""A chat model that reads one step after the other: is this step right, given the problem and the steps before it?

    score(step) = share of votes that say "right" among those that say anything       NaN without a vote

Source: verification as generation (GenRM, arXiv 2408.15240) with critiques in words and a vote over samples; there the
score is the probability of "Yes" after a critique, which a chat service does not tell, so votes are counted here.
With `stops_at_error` the steps after the first one below 0.5 are not asked about and stay NaN.
Assumption: the model is able to check a step. What it is not: fast. It costs `votes` replies a step.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from prm.label.ports import Critic
from prm.models.config import GenerativePrmConfig
from prm.steps import cut_steps
from rollout.schema import Group, Message, Metric, ScoreKind, StepScores

_SYSTEM = (
    "You check one step of a solution. The problem, the earlier steps and the step to check are given as JSON. Say "
    "briefly what the step claims and whether it follows and is computed right. End with a line that holds nothing but "
    '"verdict: right" or "verdict: wrong".'
)
_VERDICT = re.compile(r"verdict\W{0,6}(right|wrong)\W*\Z", re.IGNORECASE)
_HALF = 0.5


def messages_for(question: str, steps: Sequence[str], index: int) -> tuple[Message, ...]:
    """What is asked about one step. Texts are quoted as JSON, so that none can pose as another part."""
    shown = {"problem": question, "earlier_steps": list(steps[:index]), "step_to_check": steps[index]}
    return (
        Message(role="system", content=_SYSTEM),
        Message(role="user", content=json.dumps(shown, ensure_ascii=False, indent=1)),
    )


def read_verdict(reply: str | None) -> bool | None:
    """The verdict at the end of a reply; None when it does not end with one, as a reply that was cut off."""
    found = _VERDICT.search((reply or "").strip()[-200:])
    return None if found is None else found.group(1).lower() == "right"


class GenerativeScorer:
    """Implements `rl.ports.StepScorer` over a chat service. Belongs to one event loop."""

    def __init__(self, config: GenerativePrmConfig, critic: Critic) -> None:
        self._config = config
        self._critic = critic
        self._places = asyncio.Semaphore(config.max_pending_groups)
        self._counts: Counter[str] = Counter()

    async def score(self, group: Group) -> tuple[StepScores | None, ...]:
        """Step scores in sibling order; None where no step of a trajectory got a verdict in time."""
        question = "\n\n".join(message.content for message in group.job.task.prompt)
        cuts = [
            cut_steps(t, self._config.splitter, include_answer=self._config.include_answer) for t in group.trajectories
        ]
        async with self._places:
            try:
                async with asyncio.timeout(self._config.deadline_s):
                    found = await asyncio.gather(*(self.score_texts(question, [s.text for s in cut]) for cut in cuts))
            except TimeoutError:
                self._counts["failed"] += len(cuts)
                return (None,) * len(cuts)
        answers: list[StepScores | None] = []
        for cut, scores in zip(cuts, found, strict=True):
            is_failed = bool(len(cut)) and bool(np.isnan(scores).all())
            self._counts["failed" if is_failed else "scored"] += 1
            self._counts["steps"] += len(cut)
            answers.append(
                None
                if is_failed
                else StepScores(
                    spans=tuple(step.span for step in cut), scores=scores, kind=ScoreKind.PROB, scorer="generative"
                )
            )
        return tuple(answers)

    async def score_texts(self, question: str, steps: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """[S] scores of one solution."""
        scores = np.full(len(steps), np.nan, np.float32)
        for index in range(len(steps)):
            scores[index] = await self._ask(question, steps, index)
            if self._config.stops_at_error and scores[index] < _HALF:
                break
        return scores

    async def _ask(self, question: str, steps: Sequence[str], index: int) -> float:
        messages, config = messages_for(question, steps, index), self._config
        replies = await asyncio.gather(
            *(self._critic.ask(messages, temperature=config.temperature, seed=seed) for seed in range(config.votes))
        )
        votes = [vote for vote in map(read_verdict, replies) if vote is not None]
        self._counts.update(asked=len(replies), unread=len(replies) - len(votes))
        return sum(votes) / len(votes) if votes else math.nan

    def metrics(self) -> list[Metric]:
        """Since the last call: shares of trajectories without scores and of replies without a verdict; mean steps."""
        metrics = []
        total = self._counts["scored"] + self._counts["failed"]
        if total:
            metrics.append(Metric(name="prm/failed", value=self._counts["failed"] / total, weight=total))
            metrics.append(Metric(name="prm/steps", value=self._counts["steps"] / total, weight=total))
        if self._counts["asked"]:
            unread = self._counts["unread"] / self._counts["asked"]
            metrics.append(Metric(name="prm/unread_replies", value=unread, weight=self._counts["asked"]))
        self._counts.clear()
        return metrics

    def close(self) -> None:
        """Nothing to end: connections go with the event loop."""


def start_generative(config: GenerativePrmConfig, make_pool: object, *, critic: Critic) -> GenerativeScorer:
    """The scorer over a chat service that the caller has opened."""
    return GenerativeScorer(config, critic)
