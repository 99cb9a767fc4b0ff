"""Task source `knights_knaves`: who tells the truth and who lies, with worked solutions that no model had to write.

The puzzles are reasoning-gym's family of that name, each with exactly one solution; its scorer judges answers. The
worked solutions go through the possibilities, as long chains of thought do, and are made from the puzzle's own logic:

    high    every possibility up to the true one: the first statement that does not fit rules it out
    medium  the true possibility alone, statement by statement
    low     nothing

Puzzles that are equal up to names, wording and the order of people share `meta["split_key"]`, so none of them stands on
both sides of a split. Use: a warm-up that teaches to try, check and reject (Warm Up Before You Train, 2025, arXiv
2505.13718, which distils such chains from a model instead).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rollout.config import ReasoningGymSource
from rollout.schema import Task
from rollout.tasks.reasoning_gym import load_reasoning_gym

FAMILY = "knights_knaves"
LARGEST = 6  # people; a walk through 2^7 possibilities would fill the thinking
ATTEMPTS = 4  # puzzles generated for one wanted; small puzzles repeat
Statement = Sequence[Any]


def generate(
    *, num_tasks: int, seed: int, min_people: int = 2, max_people: int = 3, depth: int = 2, width: int = 2
) -> list[Task]:
    """Return `num_tasks` distinct puzzles, each number of people about equally often.

    Args:
        depth, width: how deep and how wide a statement may be nested.

    Raises ValueError when an argument is out of range or there are too few distinct puzzles.
    """
    if not 2 <= min_people <= max_people <= LARGEST or num_tasks < 1:
        raise ValueError(
            f"knights_knaves needs 2 <= min_people <= max_people <= {LARGEST} and num_tasks >= 1, got {min_people}, "
            f"{max_people} and {num_tasks}"
        )
    sizes = range(min_people, max_people + 1)
    tasks: list[Task] = []
    for place, people in enumerate(sizes):
        wanted = num_tasks // len(sizes) + (place < num_tasks % len(sizes))
        tasks.extend(_of_size(people, wanted, seed, {"depth_constraint": depth, "width_constraint": width}))
    return tasks


def holds(statement: Statement, roles: Sequence[bool]) -> bool:
    """Whether a statement is true when person i tells the truth as `roles[i]` says. Raises ValueError for a statement
    of another form than the family's."""
    kind, *parts = statement
    match kind:
        case "telling-truth":
            return roles[parts[0]]
        case "lying":
            return not roles[parts[0]]
        case "not":
            return not holds(parts[0], roles)
        case "and":
            return all(holds(part, roles) for part in parts)
        case "or":
            return any(holds(part, roles) for part in parts)
        case "->":
            return not holds(parts[0], roles) or holds(parts[1], roles)
        case "<=>":
            return holds(parts[0], roles) == holds(parts[1], roles)
    raise ValueError(f"a statement of knights and knaves has no part {kind!r}")


def solutions(statements: Sequence[Statement]) -> list[tuple[bool, ...]]:
    """Every possibility in which exactly the truthful say what is true, of 2^n."""
    return [
        roles
        for roles in itertools.product((True, False), repeat=len(statements))
        if all(holds(statement, roles) == role for statement, role in zip(statements, roles, strict=True))
    ]


def canonical(statements: Sequence[Statement]) -> str:
    """Equal for puzzles that differ in names, wording and the order of people alone."""
    size = len(statements)
    return min(
        repr([_renamed(statements[old], order) for old in sorted(range(size), key=order.__getitem__)])
        for order in itertools.permutations(range(size))
    )


def _renamed(statement: Statement, order: Sequence[int]) -> tuple[Any, ...]:
    kind, *parts = statement
    if kind in ("telling-truth", "lying"):
        return (kind, order[parts[0]])
    return (kind, *(_renamed(part, order) for part in parts))


def _of_size(people: int, wanted: int, seed: int, params: dict[str, int]) -> list[Task]:
    found: dict[str, Task] = {}
    if wanted == 0:
        return []
    source = ReasoningGymSource(
        type="reasoning_gym", family=FAMILY, num_tasks=ATTEMPTS * wanted, params={"n_people": people, **params}
    )
    for task in load_reasoning_gym(source, seed=seed):
        found.setdefault(task.key, _taught(task))
        if len(found) == wanted:
            return list(found.values())
    raise ValueError(f"fewer than {wanted} distinct puzzles of {people} people found; raise depth, or lower num_tasks")


def _taught(task: Task) -> Task:
    metadata = task.meta["metadata"]
    statements, names, terms = metadata["statements"], metadata["names"], metadata["knight_knave_terms"]
    walk = list(_walk(statements, names, terms))
    shown = {"high": "\n".join(walk), "medium": walk[-1], "low": ""}
    demonstrations = {
        effort: {"thinking": f"\n{thinking}\n" if thinking else "\n", "answer": f" {task.answer}"}
        for effort, thinking in shown.items()
    }
    meta = {
        **task.meta,
        "split_key": canonical(statements),
        "difficulty": len(names),
        "demonstrations": demonstrations,
    }
    return replace(task, source=FAMILY, skills=(f"{len(names)}_people",), meta=meta)


def _walk(statements: Sequence[Statement], names: Sequence[str], terms: dict[str, str]) -> Iterator[str]:
    """A line for each possibility, the last one the solution."""

    def role(person: int, roles: Sequence[bool]) -> str:
        return f"{names[person]} is {terms['a_knight' if roles[person] else 'a_knave']}"

    for roles in itertools.product((True, False), repeat=len(names)):
        line = f"Suppose {' and '.join(role(n, roles) for n in range(len(names)))}."
        for person, statement in enumerate(statements):
            is_true = holds(statement, roles)
            line += f" What {names[person]} says is {'true' if is_true else 'false'}"
            if is_true != roles[person]:
                line += f", but {role(person, roles)}: no."
                break
            line += f", and {role(person, roles)}: fine."
        else:
            yield f"{line} All fits."
            return
        yield line
