"""Accuracy on held-out tasks, for every effort and decoding mode, with its uncertainty.

One answer per task, effort and mode, so the answers of a cell are independent and the Wilson interval applies.
Unjudged answers leave the denominator and are counted beside it. Runs through the same engines and verifiers as
training, as EVAL jobs, which hold no buffer slot and never reach the learner.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rl.config import EvaluateConfig
from rl.ports import Generator, Judge
from rl.record import Fate, Settled
from rl.verdict import is_correct
from rl.waits import Waits
from rollout.schema import Finish, Job, Metric, Purpose, Sampling, ScoredGroup, Task, TokenBudget

Mode = Literal["sampled", "greedy"]
Z_95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95% interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalCell:
    """One effort in one decoding mode. Accuracy and rates are fractions; NaN accuracy when nothing could be judged."""

    effort: str
    mode: Mode
    num_tasks: int
    num_judged: int
    num_correct: int
    accuracy: float
    low: float  # ends of the Wilson 95% interval
    high: float
    thinking_tokens: float  # mean over all answers
    response_tokens: float
    truncated: float  # share of answers cut by the answer limit, or whose thinking was closed by force
    num_unjudged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """All cells of one evaluation of the weights `version`, after training step `step`."""

    step: int
    version: int
    seconds: float
    cells: tuple[EvalCell, ...]

    def cell(self, effort: str, mode: Mode) -> EvalCell:
        """Raises KeyError when this combination was not evaluated."""
        for cell in self.cells:
            if (cell.effort, cell.mode) == (effort, mode):
                return cell
        raise KeyError(f"no evaluation of effort {effort!r} in mode {mode!r}")

    def as_json(self) -> dict[str, Any]:
        """Plain data for JSON; NaN becomes null."""
        cells = [{k: None if _is_nan(v) else v for k, v in asdict(cell).items()} for cell in self.cells]
        return {"step": self.step, "version": self.version, "seconds": self.seconds, "cells": cells}

    def metrics(self) -> list[Metric]:
        metrics = [Metric(name="time/evaluate_s", value=self.seconds, reduce="last")]
        for cell in self.cells:
            for name in ("accuracy", "low", "high", "thinking_tokens", "truncated", "num_unjudged"):
                value = float(asdict(cell)[name])
                metrics.append(Metric(name=f"eval/{cell.effort}/{cell.mode}/{name}", value=value, reduce="last"))
        return metrics


class Evaluator:
    """Evaluates on the first `config.num_tasks` of `tasks` under each of `budgets`."""

    def __init__(
        self,
        config: EvaluateConfig,
        *,
        tasks: Sequence[Task],
        budgets: Sequence[TokenBudget],
        generator: Generator,
        judge: Judge,
        waits: Waits,
    ) -> None:
        if config.num_tasks is not None and config.num_tasks > len(tasks):
            raise ValueError(
                f"evaluate.num_tasks must not exceed the held-out tasks, got {config.num_tasks} of {len(tasks)}: "
                "hold out more tasks or evaluate fewer"
            )
        self.config = config
        self.tasks = tuple(tasks[: config.num_tasks])
        self.budgets = tuple(budgets)
        self._generator = generator
        self._judge = judge
        self._waits = waits

    async def run(self, *, step: int, version: int) -> tuple[EvalResult, list[Settled]]:
        """Evaluate the weights that the engines serve; also return the groups, for the record."""
        started = time.perf_counter()
        gate = asyncio.Semaphore(self.config.max_concurrent)
        modes: list[Mode] = [m for m, on in (("sampled", self.config.sampled), ("greedy", self.config.greedy)) if on]  # type: ignore[misc]
        places = [(budget, mode) for budget in self.budgets for mode in modes]
        async with asyncio.TaskGroup() as workers:
            work = [
                [workers.create_task(self._answer(gate, step, task, budget, mode)) for task in self.tasks]
                for budget, mode in places
            ]
        cells: list[EvalCell] = []
        groups: list[Settled] = []
        for (budget, mode), answers in zip(places, work, strict=True):
            scored = [answer.result() for answer in answers]
            cells.append(evaluate_cell(budget.effort, mode, scored))
            groups.extend(Settled(scored=s, fate=Fate(name="evaluated", step=step, reason=mode)) for s in scored)
        seconds = time.perf_counter() - started
        return EvalResult(step=step, version=version, seconds=seconds, cells=tuple(cells)), groups

    async def _answer(
        self, gate: asyncio.Semaphore, step: int, task: Task, budget: TokenBudget, mode: Mode
    ) -> ScoredGroup:
        seed = hashlib.blake2b(f"{self.config.seed}/{budget.effort}/{task.key}".encode(), digest_size=4).digest()
        temperature = self.config.temperature if mode == "sampled" else 0.0
        job = Job(
            group_id=f"eval-{step}-{budget.effort}-{mode}-{task.key}",
            task=task,
            num_siblings=1,
            budget=budget,
            sampling=Sampling(temperature=temperature, seed=int.from_bytes(seed) >> 1),
            purpose=Purpose.EVAL,
        )
        owner = f"evaluation of task {task.key}"
        async with gate:
            group = await self._waits.outside(owner, "the generator", self._generator.generate(job))
            outcomes = await self._waits.outside(owner, "the judge", self._judge.judge(group))
        return ScoredGroup(group=group, outcomes=outcomes, steps=(None,))


def evaluate_cell(effort: str, mode: Mode, answers: Sequence[ScoredGroup]) -> EvalCell:
    """Statistics over single-sibling groups. Raises ValueError without any."""
    if not answers:
        raise ValueError(f"evaluation of effort {effort!r} needs at least one held-out task, got none")
    verdicts = [is_correct(answer.outcomes[0]) for answer in answers]
    trajectories = [answer.group.trajectories[0] for answer in answers]
    num_judged = sum(v is not None for v in verdicts)
    num_correct = sum(v is True for v in verdicts)
    low, high = wilson_interval(num_correct, num_judged)
    return EvalCell(
        effort=effort,
        mode=mode,
        num_tasks=len(answers),
        num_judged=num_judged,
        num_correct=num_correct,
        accuracy=num_correct / num_judged if num_judged else math.nan,
        low=low,
        high=high,
        thinking_tokens=sum(t.num_thinking_tokens for t in trajectories) / len(answers),
        response_tokens=sum(t.num_response_tokens for t in trajectories) / len(answers),
        truncated=sum(t.finish in (Finish.LENGTH, Finish.THINKING_CUT) for t in trajectories) / len(answers),
        num_unjudged=len(answers) - num_judged,
    )


def unjudged(answers: Sequence[Settled]) -> dict[str, tuple[int, str]]:
    """Why single-sibling answers have no verdict: their number and one example, by how generation ended where there
    was no answer to judge, else by the verifier's status."""
    found: dict[str, tuple[int, str]] = {}
    for answer in answers:
        outcome, trajectory = answer.scored.outcomes[0], answer.scored.group.trajectories[0]
        if outcome.is_scored:
            continue
        kind, example = (trajectory.finish, trajectory.error) if trajectory.error else (outcome.status, outcome.reason)
        number, first = found.get(kind, (0, example))
        found[str(kind)] = (number + 1, first)
    return found


def wilson_interval(num_correct: int, num_judged: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927).

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), with p = num_correct / n and n = num_judged. Without any
    judged answer everything is possible: (0, 1).
    """
    if num_judged == 0:
        return 0.0, 1.0
    p, z2 = num_correct / num_judged, z * z / num_judged
    center = p + z2 / 2
    half = z * math.sqrt(p * (1 - p) / num_judged + z2 / (4 * num_judged))
    return max(0.0, (center - half) / (1 + z2)), min(1.0, (center + half) / (1 + z2))


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
