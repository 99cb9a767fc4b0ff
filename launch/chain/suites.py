"""The suites of a chain: their tasks, and the accuracy of a model on all of them in one evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from budgets.evaluation.attempt import Attempt, FloatArray
from launch.chain.resolve import Chain
from launch.evaluation.attempts import attempts_of
from launch.evaluation.policies import LocalModel
from launch.evaluation.question import EvalOptions, Question, ask
from launch.evaluation.settings import EvalSettings
from launch.evaluation.tasks import find_tasks, read_tasks, save_tasks
from launch.manifest import write_json
from launch.task_splits import load_evaluated
from rollout.schema import Task

Suites = Mapping[str, Sequence[Task]]


def load_suites(chain: Chain) -> dict[str, tuple[Task, ...]]:
    """The tasks of every suite. Raises ValueError naming the suite that has none."""
    settings, found = EvalSettings.of(chain.base), {}
    for name, suite in chain.config.suites.items():
        try:
            if suite.source is not None:
                tasks = load_evaluated(suite.source, seed=chain.config.chain.seed)[: suite.limit]
            else:
                tasks = find_tasks(suite.tasks or "held_out", settings, changes={}, limit=suite.limit)
        except ValueError as error:
            raise ValueError(f"suite {name!r}: {error}") from error
        found[name] = tasks
    return found


def save_suites(folder: Path, suites: Suites) -> None:
    """A file of whole tasks for each suite."""
    folder.mkdir(exist_ok=True)
    for name, tasks in suites.items():
        save_tasks(folder / f"{name}.jsonl", tasks)


def read_suites(folder: Path, names: Sequence[str]) -> dict[str, tuple[Task, ...]]:
    """What `save_suites` wrote."""
    return {name: read_tasks(folder / f"{name}.jsonl") for name in names}


def save_rows(path: Path, suites: Suites) -> None:
    """All tasks as rows of question and answer, which training tasks are compared with."""
    rows = [
        {"prompt": [{"role": m.role, "content": m.content} for m in task.prompt], "answer": task.answer}
        for tasks in suites.values()
        for task in tasks
    ]
    aside = path.with_name(f".{path.name}.part")
    aside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    aside.replace(path)


def measure(chain: Chain, suites: Suites, model: Path, out: Path, console: Console) -> None:
    """Answer all suites with one start of the engines, and write accuracy.json: by suite and task, the mean."""
    settings = EvalSettings.of(chain.base)
    question = _question(chain, settings, suites, model, out)
    sampled = attempts_of(question, LocalModel(path=model, run=None, name=str(model)), console)
    means = task_accuracies(sampled.attempts)
    write_json(
        out / "accuracy.json",
        {name: {task.key: means.get(task.key) for task in tasks} for name, tasks in suites.items()},
    )


def read_row(out: Path) -> dict[str, FloatArray]:
    """The row of the forgetting matrix that `measure` wrote: by suite, [N] with NaN where nothing was judged."""
    found = json.loads((out / "accuracy.json").read_text(encoding="utf-8"))
    return {
        name: np.asarray([np.nan if v is None else v for v in tasks.values()], dtype=np.float64)
        for name, tasks in found.items()
    }


def task_accuracies(attempts: Sequence[Attempt]) -> dict[str, float]:
    """By task, the share of its judged attempts that are right; tasks without one are absent."""
    verdicts: dict[str, list[bool]] = {}
    for attempt in attempts:
        if attempt.correct is not None:
            verdicts.setdefault(attempt.task, []).append(attempt.correct)
    return {key: sum(values) / len(values) for key, values in verdicts.items()}


def _question(chain: Chain, settings: EvalSettings, suites: Suites, model: Path, out: Path) -> Question:
    section = chain.config.chain
    options = EvalOptions(
        policy=str(model),
        modes=section.mode or next(iter(settings.budgets.efforts)),
        num_samples=section.samples,
        out=out,
        seed=section.seed,
        temperature=section.temperature,
    )
    tasks = tuple({task.key: task for tasks in suites.values() for task in tasks}.values())
    return ask(options, settings, tasks=tasks)
