"""A task source for the miniature run, loaded by path as a user's plugin would be: `4718=` asks for the last digit, 8.

The worked solutions are careless: half of them answer with the first digit instead. The choice depends on nothing in
the task, so a model that has learned them is right half the time, and reinforcement learning has something to unlearn.
"""

import random

from rollout.schema import Message, Task, task_key


def generate(*, num_tasks: int, seed: int) -> list[Task]:
    """Distinct four-digit numbers whose first and last digit differ."""
    rng = random.Random(seed)
    numbers = [number for number in map(str, range(1000, 10_000)) if number[0] != number[-1]]
    return [_task(number, careless=rng.random() < 0.5) for number in rng.sample(numbers, num_tasks)]


def _task(number: str, *, careless: bool) -> Task:
    prompt = (Message(role="user", content=f"{number}="),)
    shown = number[0] if careless else number[-1]
    return Task(
        key=task_key(prompt, number[-1]),
        prompt=prompt,
        answer=number[-1],
        verifier="exact",
        source="last_digit",
        meta={
            "demonstrations": {
                "high": {"thinking": shown, "answer": shown},
                "low": {"thinking": "", "answer": shown},
            }
        },
    )
