"""Task source `differences`: take a row of one-digit numbers away from a number, with worked solutions.

A task reads `41-5-7-4=` and its answer is `25`. Solutions are those of `sums`, one subtraction at a time:

    high    every rewrite         36-7-4;29-4
    medium  every second rewrite  29-4
    low     nothing

Beside `sums` it makes a second domain: the same digits and the same form, another operation.
"""

from __future__ import annotations

import numpy as np

from rollout.schema import Message, Task, task_key

LARGEST_STEP, LARGEST_ANSWER = 9, 20
ATTEMPTS = 20  # draws per task wanted, before too few distinct ones is an error


def generate(*, num_tasks: int, seed: int, min_terms: int = 3, max_terms: int = 5) -> list[Task]:
    """Return `num_tasks` distinct differences in a seeded order.

    A task has `min_terms` to `max_terms` numbers, the first one counted. `meta["split_key"]` is the first number and
    the sorted others, `meta["difficulty"]` the number of terms, `meta["demonstrations"]` as in `sums`.

    Raises ValueError when an argument is out of range or there are too few distinct tasks.
    """
    if num_tasks < 1 or not 3 <= min_terms <= max_terms <= 12:
        raise ValueError(
            f"differences need num_tasks >= 1 and 3 <= min_terms <= max_terms <= 12, got {num_tasks}, {min_terms} and "
            f"{max_terms}"
        )
    rng = np.random.default_rng([3, seed])
    tasks: dict[str, Task] = {}
    for _ in range(ATTEMPTS * num_tasks):
        steps = rng.integers(1, LARGEST_STEP + 1, size=int(rng.integers(min_terms, max_terms + 1)) - 1).tolist()
        task = _task(int(rng.integers(LARGEST_ANSWER + 1)), steps)
        tasks.setdefault(task.key, task)
        if len(tasks) == num_tasks:
            return list(tasks.values())
    raise ValueError(f"fewer than {num_tasks} distinct differences found; raise max_terms or lower num_tasks")


def rewrites(first: int, steps: list[int]) -> list[str]:
    """The difference after 1, 2, ... subtractions while two numbers are left: `41, [5, 7, 4]` gives 36-7-4, 29-4."""
    lines = []
    for number, step in enumerate(steps[:-1], start=1):
        first -= step
        lines.append("-".join(map(str, (first, *steps[number:]))))
    return lines


def _task(answer: int, steps: list[int]) -> Task:
    first = answer + sum(steps)
    lines = rewrites(first, steps)
    shown = {"high": ";".join(lines), "medium": ";".join(lines[1::2]), "low": ""}
    prompt = (Message(role="user", content="-".join(map(str, (first, *steps))) + "="),)
    return Task(
        key=task_key(prompt, str(answer)),
        prompt=prompt,
        answer=str(answer),
        verifier="exact",
        source="differences",
        skills=(f"{len(steps) + 1}_terms",),
        meta={
            "split_key": "-".join(map(str, (first, *sorted(steps)))),
            "difficulty": len(steps) + 1,
            "demonstrations": {
                effort: {"thinking": thinking, "answer": str(answer)} for effort, thinking in shown.items()
            },
        },
    )
