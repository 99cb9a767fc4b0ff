"""The step-scoring service as a Ray actor, and its client in the driver. The only file of this room that imports ray.

Short texts of plain arithmetic are scored in the client: a remote call costs a millisecond of processor time, far
more than checking a few sums. Long texts, and claims that need computer algebra, go to the actor and its sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from prm.config import ExactPrmConfig, NoPrmConfig
from prm.exact import VERSION, PoolLike, StepTexts, StepVerdict, judge_steps, settle
from prm.steps import Step, cut_steps
from rollout.schema import Group, Metric, ScoreKind, StepScores

_LOCAL_CHARS = 2_048  # of a whole group: at most some five milliseconds of the driver's time
_GRACE_S = 5.0  # beyond the actor's own deadline: silence by then means that it hangs
_START_S = 120.0
_MAX_CONCURRENT_CALLS = 1000

Verdicts = tuple[StepVerdict, ...]


class _ScorerActor:
    """Scores whole groups; owns the pool of algebra workers."""

    def __init__(self, config: ExactPrmConfig, make_pool: Callable[[], PoolLike]) -> None:
        self._config = config
        self._pool = make_pool()

    async def score(self, texts: list[StepTexts]) -> list[Verdicts | None]:
        """Verdicts per trajectory; None where the sandbox failed."""
        verdicts = [judge_steps(self._config, item) for item in texts]
        return await settle(verdicts, self._pool, within_s=self._config.deadline_s)

    async def close(self) -> None:
        self._pool.close()


class StepScorerClient:
    """Implements `rl.ports.StepScorer` by exact checks. Belongs to one event loop."""

    def __init__(self, actor: Any, config: ExactPrmConfig) -> None:
        self._actor = actor
        self._config = config
        self._places = asyncio.Semaphore(config.max_pending_groups)
        self._counts: Counter[str] = Counter()

    async def score(self, group: Group) -> tuple[StepScores | None, ...]:
        """Step scores in sibling order; None where the service failed on that trajectory.

        A trajectory without steps has scores of length 0. At most `max_pending_groups` are open; a further caller
        waits.
        """
        cuts = [
            cut_steps(trajectory, self._config.splitter, include_answer=self._config.include_answer)
            for trajectory in group.trajectories
        ]
        prompt = group.job.task.prompt[-1].content
        texts = [
            StepTexts(
                prompt=prompt,
                steps=tuple(step.text for step in steps),
                ends_with_answer=self._config.include_answer and bool(trajectory.answer_text.strip()),
            )
            for trajectory, steps in zip(group.trajectories, cuts, strict=True)
        ]
        verdicts = self._score_here(texts)
        if verdicts is None:
            verdicts = await self._score_there(texts)
        scores = tuple(
            None if found is None else _step_scores(steps, found) for steps, found in zip(cuts, verdicts, strict=True)
        )
        self._count(scores)
        return scores

    def metrics(self) -> list[Metric]:
        """Since the last call: shares of steps right, wrong, unjudged; of trajectories without scores; mean steps."""
        steps = self._counts["right"] + self._counts["wrong"] + self._counts["unjudged"]
        trajectories = self._counts["scored"] + self._counts["failed"]
        metrics = [
            Metric(name=f"prm/{name}", value=self._counts[name] / steps, weight=steps)
            for name in ("right", "wrong", "unjudged")
            if steps
        ]
        if trajectories:
            failed, mean_steps = self._counts["failed"] / trajectories, steps / trajectories
            metrics.append(Metric(name="prm/failed", value=failed, weight=trajectories))
            metrics.append(Metric(name="prm/steps", value=mean_steps, weight=trajectories))
            metrics.append(Metric(name="prm/remote_groups", value=float(self._counts["remote"]), reduce="sum"))
        self._counts.clear()
        return metrics

    def close(self) -> None:
        """End the actor and its workers. Safe to call when they are gone already."""
        # Dead or not answering: the kill below, and the workers' own death signal, end what is left.
        with contextlib.suppress(RayError):
            ray.get(self._actor.close.remote(), timeout=_GRACE_S)
        ray.kill(self._actor)

    def _score_here(self, texts: Sequence[StepTexts]) -> Sequence[Verdicts | None] | None:
        """Verdicts without the actor, None when it is needed."""
        if sum(len(step) for item in texts for step in item.steps) > _LOCAL_CHARS:
            return None
        verdicts: list[Verdicts | None] = []
        for item in texts:
            found = judge_steps(self._config, item)
            if any(step.pending for step in found):
                return None
            verdicts.append(found)
        return verdicts

    async def _score_there(self, texts: Sequence[StepTexts]) -> Sequence[Verdicts | None]:
        async with self._places:
            self._counts["remote"] += 1
            try:
                answer = self._actor.score.remote(list(texts))
                verdicts: list[Verdicts | None] = await asyncio.wait_for(answer, self._config.deadline_s + _GRACE_S)
            except (TimeoutError, RayError):
                return [None] * len(texts)
            return verdicts

    def _count(self, scores: Sequence[StepScores | None]) -> None:
        for item in scores:
            self._counts["failed" if item is None else "scored"] += 1
            if item is not None:
                values = item.scores.tolist()
                right, wrong = values.count(1.0), values.count(0.0)
                self._counts["right"] += right
                self._counts["wrong"] += wrong
                self._counts["unjudged"] += len(values) - right - wrong


class NoStepScorer:
    """Implements `rl.ports.StepScorer` for runs without process rewards."""

    async def score(self, group: Group) -> tuple[StepScores | None, ...]:
        """None for every trajectory."""
        return (None,) * len(group.trajectories)

    def metrics(self) -> list[Metric]:
        return []

    def close(self) -> None:
        """Nothing to end."""


def _step_scores(steps: Sequence[Step], verdicts: Verdicts) -> StepScores:
    return StepScores(
        spans=tuple(step.span for step in steps),
        scores=np.array([verdict.score for verdict in verdicts], dtype=np.float32),
        kind=ScoreKind.PROB,
        scorer="exact",
        version=VERSION,
        notes=tuple(verdict.note for verdict in verdicts),
    )


def start_step_scorer(
    config: NoPrmConfig | ExactPrmConfig, make_pool: Callable[[], PoolLike]
) -> StepScorerClient | NoStepScorer:
    """Start the service on a running Ray and wait until it answers.

    `make_pool` is called inside the actor; it must be picklable and should apply the worker limits of `config`.
    """
    if isinstance(config, NoPrmConfig):
        return NoStepScorer()
    # No CPU is reserved, and it restarts when killed: see the verifier service, which has the same life.
    options = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": _MAX_CONCURRENT_CALLS}
    actor = ray.remote(_ScorerActor).options(**options).remote(config, make_pool)
    ray.get(actor.__ray_ready__.remote(), timeout=_START_S)
    return StepScorerClient(actor, config)
