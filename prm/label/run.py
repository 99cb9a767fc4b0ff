"""A labelling job: tasks in, labelled solutions out, many tasks at a time."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from prm.config import ExactPrmConfig
from prm.data import StepRow
from prm.label.completion import Completer, Spent, label_by_completion, row_of_solution
from prm.label.exact import label_by_exact
from prm.label.first_error import grow, label_by_search
from prm.label.ports import OutcomeJudge, Writer
from prm.label.prefix import cut_at
from prm.label.settings import LabelSettings
from prm.label.store import LabelStore
from prm.label.tree import Preference, Tree, TreeSettings
from prm.steps import Step, cut_steps
from rollout.schema import Task, Trajectory


class Sampler(Protocol):
    """Engines that solve a task."""

    async def solve(self, task: Task, num: int, seed: int) -> Sequence[Trajectory]:
        """That many solutions; those that could not be generated are left out."""
        ...


async def label_tasks(
    tasks: Sequence[Task],
    settings: LabelSettings,
    *,
    sampler: Sampler,
    writer: Writer,
    judge: OutcomeJudge,
    store: LabelStore,
    advance: Callable[[], None],
) -> None:
    """Label every task that `store` does not hold yet; `advance` is called once a task."""
    places = asyncio.Semaphore(settings.tasks_at_once)
    done = store.done

    async def one(task: Task) -> None:
        async with places:
            completer = Completer(writer, judge, num=settings.completions, seed=settings.seed, spent=Spent())
            rows, pairs = await label_task(task, settings, sampler, completer)
        store.add(task.key, rows, pairs, dataclasses.asdict(completer.spent))
        advance()

    async with asyncio.TaskGroup() as group:
        for task in tasks:
            if task.key not in done:
                group.create_task(one(task))


async def label_task(
    task: Task, settings: LabelSettings, sampler: Sampler, completer: Completer
) -> tuple[list[StepRow], list[Preference]]:
    """Rows, and pairs of steps where the method gives them."""

    def cut(solution: Trajectory) -> tuple[Step, ...]:
        return cut_steps(solution, settings.splitter, include_answer=settings.include_answer)

    num = 1 if settings.method in ("grow", "tree") else settings.solutions
    solutions = await sampler.solve(task, num, settings.seed)
    completer.spent.tokens += sum(int(s.sampled.sum()) for s in solutions)
    if not solutions:
        return [], []
    if settings.method in ("grow", "tree"):
        root = cut_at(solutions[0], solutions[0].prompt_len)
        if settings.method == "grow":
            return await grow(task, cut, completer, root, searches=settings.searches), []
        tree = Tree(task, root, completer, _tree_settings(settings))
        await tree.grow()
        return tree.rows(cut), tree.preferences()
    unique = list({s.token_ids.tobytes(): s for s in solutions}.values())
    outcomes = await completer.judge.judge(task, unique)
    rows = []
    for solution, outcome in zip(unique, outcomes, strict=True):
        steps = cut(solution)
        if steps:
            row = await _label(task, solution, steps, outcome, settings, completer)
            rows += [] if row is None else [row]
    return rows, []


async def _label(
    task: Task,
    solution: Trajectory,
    steps: Sequence[Step],
    outcome: float | None,
    settings: LabelSettings,
    completer: Completer,
) -> StepRow | None:
    if settings.method == "completion":
        return await label_by_completion(task, solution, steps, outcome, completer)
    if settings.method == "search":
        return await label_by_search(task, solution, steps, outcome, completer)
    nothing = [None] * len(steps)
    row = row_of_solution(task, solution, steps, nothing, kind="hard", labeller="outcome", outcome=outcome)
    if settings.method == "exact":
        return label_by_exact(row, ExactPrmConfig(chain=settings.chain))
    return row


def _tree_settings(settings: LabelSettings) -> TreeSettings:
    return TreeSettings(
        simulations=settings.simulations,
        width=settings.width,
        max_depth=settings.max_depth,
        stop=settings.stop,
        seed=settings.seed,
    )
