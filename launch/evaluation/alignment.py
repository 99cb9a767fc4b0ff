"""`ponder eval alignment`: pass@k of a policy before any reinforcement learning, and which tricks that speaks for.

Samples as `ponder eval modes` does, in one mode, into a directory of the same form: attempts.jsonl, plan.json,
tasks.jsonl, usage.json; results are alignment.json and alignment.md. Interrupted, the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from budgets.evaluation.alignment import measure_alignment
from launch.evaluation.alignment_text import advice_table, render_markdown, summary
from launch.evaluation.attempts import attempts_of, header_of, remember_usage
from launch.evaluation.policies import find_model, is_endpoint
from launch.evaluation.question import EvalOptions, ask, check_room
from launch.evaluation.settings import EvalSettings, load_settings
from launch.manifest import write_json
from rollout.schema import Task


def run(options: EvalOptions, console: Console, *, level: str | None = None) -> dict[str, Any]:
    """The whole command; the results. `options.modes` names one mode, None takes the recipe's first effort.

    `level` is what the tasks' meta calls their level.

    Raises ValueError for what the user can mend.
    """
    if options.policy is None:
        raise ValueError("name a policy: a run, a model directory, a model's name or the URL of a server")
    model = None if is_endpoint(options.policy) else find_model(options.policy)
    settings = load_settings(options.recipe, None if model is None else model.run, options.overrides)
    question = ask(replace(options, modes=_mode(options, settings)), settings, name="alignment")
    if question.sampling.temperature == 0:
        raise ValueError("--temperature 0 makes all samples of a task equal, so pass@k says nothing; 1.0 is usual")
    if model is not None:
        check_room(question)
    started = time.monotonic()
    sampled = attempts_of(question, model, console)
    results = header_of(question, sampled) | measure_alignment(
        sampled.attempts,
        mode=question.modes[0].name,
        tasks={task.key: task.source for task in sampled.tasks},
        levels=levels_of(sampled.tasks, level),
        group_size=settings.rollout.group_size,
        seed=options.seed,
    )
    write_json(question.out / "alignment.json", results)
    aside = question.out / ".alignment.md.part"
    aside.write_text(render_markdown(results), encoding="utf-8")
    aside.replace(question.out / "alignment.md")
    remember_usage(question.out, {"seconds": round(time.monotonic() - started, 3), **sampled.usage})
    console.print(summary(results).replace("\\", ""), markup=False, highlight=False)
    console.print(advice_table(results))
    for name in ("alignment.json", "alignment.md"):
        console.print(f"{name.partition('.')[2]}: {question.out / name}", markup=False, highlight=False, soft_wrap=True)
    return results


def levels_of(tasks: Sequence[Task], name: str | None = None) -> dict[str, str]:
    """By key, how hard the tasks say they are, as a number or a text. Raises ValueError where none knows `name`."""
    names = ("difficulty", "level") if name is None else (name,)
    found = {}
    for task in tasks:
        level = next((task.meta[key] for key in names if key in task.meta), None)
        if isinstance(level, str | int | float):
            found[task.key] = str(level)
    if name is not None and not found:
        raise ValueError(f"--level-column {name!r}: no task has a number or a text of that name in its meta")
    return found


def _mode(options: EvalOptions, settings: EvalSettings) -> str:
    name = options.modes or next(iter(settings.budgets.efforts))
    if "," in name:
        raise ValueError(f"alignment is measured in one mode, got {name!r}; name the one that training will sample in")
    return name
