"""Task source `stories`: one-person arithmetic stories in GSM8K's format, with worked solutions in three efforts.

    Mia has 7 apples. She buys 5 apples. Then she gives away 3 apples. How many apples does Mia have now?

    high    Mia has 7 apples.\\nShe buys 5 apples: 7 + 5 = 12.\\nShe gives away 3 apples: 12 - 3 = 9.
    medium  7 + 5 = 12\\n12 - 3 = 9
    low     nothing

Every event changes the count by one addition, subtraction or doubling, and the count stays between 1 and 10 times the
largest number. Easy enough for a model of 100 million parameters, so that its groups carry a signal.
"""

from __future__ import annotations

import numpy as np

from rollout.schema import Message, Task, task_key

NAMES = (("Mia", "She"), ("Tom", "He"), ("Ana", "She"), ("Ben", "He"), ("Zoe", "She"), ("Leo", "He"))
THINGS = ("apples", "books", "coins", "marbles", "pencils", "stickers", "shells", "cards")
GAINS = ("buys", "finds", "is given")
LOSSES = ("gives away", "loses", "sells")
DOUBLING = 0.15  # share of events that double the count
ATTEMPTS = 50  # draws for one distinct story, on average, before the space counts as used up


def generate(*, num_tasks: int, seed: int, min_events: int = 2, max_events: int = 3, largest: int = 20) -> list[Task]:
    """Return `num_tasks` distinct stories in a seeded order.

    Args:
        min_events, max_events: events of a story, each count equally likely.
        largest: largest number in a story.

    Raises ValueError when an argument is out of range or there are too few distinct stories.
    """
    if not 1 <= min_events <= max_events <= 8 or largest < 2 or num_tasks < 1:
        raise ValueError(
            "stories need 1 <= min_events <= max_events <= 8, largest >= 2 and num_tasks >= 1, got "
            f"{min_events}, {max_events}, {largest} and {num_tasks}"
        )
    rng = np.random.default_rng([2, seed])
    tasks: dict[str, Task] = {}
    for _ in range(ATTEMPTS * num_tasks):
        task = _story(rng, int(rng.integers(min_events, max_events + 1)), largest)
        tasks.setdefault(task.key, task)
        if len(tasks) == num_tasks:
            return list(tasks.values())
    raise ValueError(f"fewer than {num_tasks} distinct stories found; raise largest or max_events, or lower num_tasks")


def _story(rng: np.random.Generator, num_events: int, largest: int) -> Task:
    name, pronoun = NAMES[rng.integers(len(NAMES))]
    thing = THINGS[rng.integers(len(THINGS))]
    count = int(rng.integers(2, largest + 1))
    told, steps, sums = [f"{name} has {count} {thing}."], [f"{name} has {count} {thing}."], []
    for number in range(num_events):
        event, claim, count = _event(rng, count, largest, thing)
        told.append(f"{'Then ' + pronoun.lower() if number else pronoun} {event}.")
        steps.append(f"{pronoun} {event}: {claim}.")
        sums.append(claim)
    question = " ".join([*told, f"How many {thing} does {name} have now?"])
    answer = str(count)
    prompt = (Message(role="user", content=question),)
    shown = {"high": "\n".join(steps), "medium": "\n".join(sums), "low": ""}
    return Task(
        key=task_key(prompt, answer),
        prompt=prompt,
        answer=answer,
        verifier="math",
        source="stories",
        skills=(f"{num_events}_events",),
        meta={
            "difficulty": num_events,
            "demonstrations": {
                effort: {"thinking": f"\n{thinking}\n" if thinking else "\n", "answer": f" {answer}"}
                for effort, thinking in shown.items()
            },
        },
    )


def _event(rng: np.random.Generator, count: int, largest: int, thing: str) -> tuple[str, str, int]:
    """What happens, the calculation, and the count after it."""
    if rng.random() < DOUBLING and 2 * count <= 10 * largest:
        return f"doubles the number of {thing}", f"{count} * 2 = {2 * count}", 2 * count
    amount = int(rng.integers(1, largest + 1))
    can_lose, can_gain = count > amount, count + amount <= 10 * largest
    if can_lose and (not can_gain or rng.random() < 0.5):
        verb = LOSSES[rng.integers(len(LOSSES))]
        return f"{verb} {amount} {thing}", f"{count} - {amount} = {count - amount}", count - amount
    verb = GAINS[rng.integers(len(GAINS))]
    return f"{verb} {amount} {thing}", f"{count} + {amount} = {count + amount}", count + amount
