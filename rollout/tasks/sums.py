"""Task source `sums`: add a row of one-digit numbers, with worked solutions in three efforts.

A task reads `3+5+5+7+4+9=` and its answer is `33`. The worked solutions rewrite the sum, one addition at a time:

    high    every rewrite         8+5+7+4+9;13+7+4+9;20+4+9;24+9
    medium  every second rewrite  13+7+4+9;24+9
    low     nothing, or with low = "totals" the first number of every second rewrite: 13;24

With `easy_terms` > 0 there are solutions that begin with a difficulty tag, for efforts of these names: `auto` is the
low solution under [Easy] for sums of at most so many terms and the high one under [Hard] for the others, `easy` and
`hard` are the two for every sum, whatever its size.

A sum of n terms has n - 2 rewrites, of n - 1, n - 2, ..., 2 terms; every rewrite equals the sum, which makes each
step checkable. With `flaw` > 0 the teacher of the high solutions is careless on purpose, as scraped solutions are: on
sums of at least `flaw_min_terms` terms it stops after `flaw_lines` rewrites with probability `flaw` and answers the
total reached so far, which is wrong. With `slip` > 0 each addition of a high solution but the last is off by 1 to 3
with that probability, and what follows is right arithmetic on the wrong total. Task answers are never touched: only the
demonstrations are.
"""

from __future__ import annotations

import operator
from itertools import accumulate
from typing import Literal

import numpy as np

from rollout.schema import Message, Task, task_key

EFFORTS = ("high", "medium", "low")
Low = Literal["nothing", "totals"]
LARGEST_OPERAND = 9  # operands are 1..9: a zero would make a rewrite equal to its predecessor's tail


def generate(
    *,
    num_tasks: int,
    seed: int,
    min_terms: int = 4,
    max_terms: int = 7,
    flaw: float = 0.0,
    flaw_min_terms: int = 5,
    flaw_lines: int = 2,
    slip: float = 0.0,
    low: Low = "nothing",
    easy_terms: int = 0,
) -> list[Task]:
    """Return `num_tasks` distinct sums in a seeded order, each number of terms equally often (give or take one).

    `meta["split_key"]` is the sorted operands, so a split by it keeps every reordering of a sum on one side;
    `meta["difficulty"]` is the number of terms;
    `meta["demonstrations"]` maps an effort to `{"thinking", "answer"}`. The tasks depend on every argument but the
    four of the teacher's faults, `low` and `easy_terms`, so teachers can be compared on the same sums.

    Raises ValueError when an argument is out of range or a length has too few distinct sums.
    """
    _check(num_tasks, min_terms, max_terms, flaw, flaw_min_terms, flaw_lines)
    if not 0.0 <= slip <= 1.0:
        raise ValueError(f"slip is a probability, got {slip}")
    if low not in ("nothing", "totals"):
        raise ValueError(f"low must be 'nothing' or 'totals', got {low!r}")
    task_rng, flaw_rng, slip_rng = (np.random.default_rng([stream, seed]) for stream in (0, 1, 2))
    lengths = range(min_terms, max_terms + 1)
    rows: list[list[int]] = []
    for index, num_terms in enumerate(lengths):
        share = num_tasks // len(lengths) + (index < num_tasks % len(lengths))
        rows.extend(_distinct_rows(task_rng, num_terms=num_terms, count=share))
    careless = flaw_rng.random(num_tasks) < flaw
    order = task_rng.permutation(num_tasks)
    tasks: list[Task] = []
    for position, index in enumerate(order):
        terms = rows[index]
        stops = bool(careless[position]) and len(terms) >= flaw_min_terms
        offsets = _slips(slip_rng, terms, slip)
        stop_after = flaw_lines if stops else None
        tasks.append(_task(terms, stop_after=stop_after, offsets=offsets, low=low, easy_terms=easy_terms))
    return tasks


def rewrites(terms: list[int], offsets: list[int] | None = None) -> list[str]:
    """The sum after 1, 2, ..., n - 2 additions: `[3, 5, 7, 4]` gives `["8+7+4", "15+4"]`.

    `offsets` [n] are added to the totals, which carry them on: `[0, 2, 0, 0]` gives `["10+7+4", "17+4"]`.
    """
    totals = list(accumulate(terms if offsets is None else map(operator.add, terms, offsets)))
    return ["+".join(map(str, (totals[i], *terms[i + 1 :]))) for i in range(1, len(terms) - 1)]


def _slips(rng: np.random.Generator, terms: list[int], slip: float) -> list[int] | None:
    """What the teacher is off by at each term; the first is only copied, the last addition is right. Totals stay above
    0, which has no sign to write: a slip that would not is one upwards."""
    if slip == 0:
        return None
    sizes = rng.choice([-3, -2, -1, 1, 2, 3], size=len(terms))
    slips = rng.random(len(terms)) < slip
    offsets, total = [0], terms[0]
    for term, size, is_off in zip(terms[1:-1], sizes[1:-1].tolist(), slips[1:-1].tolist(), strict=True):
        offset = 0 if not is_off else size if total + term + size > 0 else -size
        offsets.append(offset)
        total += term + offset
    return [*offsets, 0]


def _task(terms: list[int], *, stop_after: int | None, offsets: list[int] | None, low: Low, easy_terms: int) -> Task:
    answer = str(sum(terms))
    lines = rewrites(terms)
    totals = [line.partition("+")[0] for line in lines]
    written, slipped = rewrites(terms, offsets), offsets or [0] * len(terms)
    high = {"thinking": ";".join(written), "answer": str(sum(terms) + sum(slipped))}
    if stop_after is not None:
        end = stop_after + 1
        high = {"thinking": ";".join(written[:stop_after]), "answer": str(sum(terms[:end]) + sum(slipped[:end]))}
    demonstrations = {
        "high": high,
        "medium": {"thinking": ";".join(lines[1::2]), "answer": answer},
        "low": {"thinking": "" if low == "nothing" else ";".join(totals[1::2]), "answer": answer},
    }
    if easy_terms:
        demonstrations["easy"] = {"preface": "[Easy]", **demonstrations["low"]}
        demonstrations["hard"] = {"preface": "[Hard]", **demonstrations["high"]}
        demonstrations["auto"] = demonstrations["easy" if len(terms) <= easy_terms else "hard"]
    prompt = (Message(role="user", content="+".join(map(str, terms)) + "="),)
    return Task(
        key=task_key(prompt, answer),
        prompt=prompt,
        answer=answer,
        verifier="exact",
        source="sums",
        skills=(f"{len(terms)}_terms",),
        meta={
            "split_key": "+".join(map(str, sorted(terms))),
            "difficulty": len(terms),
            "demonstrations": demonstrations,
        },
    )


def _distinct_rows(rng: np.random.Generator, *, num_terms: int, count: int) -> list[list[int]]:
    """Draw `count` different rows of `num_terms` operands, uniformly over all rows."""
    space = LARGEST_OPERAND**num_terms
    if count > space:
        raise ValueError(
            f"there are only {space} different sums of {num_terms} terms, {count} were asked for: "
            "lower num_tasks or raise min_terms"
        )
    codes = rng.choice(space, size=count, replace=False)
    digits = codes[:, None] // LARGEST_OPERAND ** np.arange(num_terms) % LARGEST_OPERAND + 1
    rows: list[list[int]] = digits.tolist()
    return rows


def _check(num_tasks: int, min_terms: int, max_terms: int, flaw: float, flaw_min_terms: int, flaw_lines: int) -> None:
    if num_tasks < 1:
        raise ValueError(f"num_tasks must be at least 1, got {num_tasks}")
    if not 3 <= min_terms <= max_terms <= 12:
        raise ValueError(f"terms must satisfy 3 <= min_terms <= max_terms <= 12, got {min_terms} and {max_terms}")
    if not 0.0 <= flaw <= 1.0:
        raise ValueError(f"flaw is a probability, got {flaw}")
    if flaw_lines < 1 or flaw_min_terms < flaw_lines + 3:
        raise ValueError(
            f"stopping after flaw_lines = {flaw_lines} rewrites cuts a sum short only if it has at least "
            f"{max(flaw_lines, 1) + 3} terms: raise flaw_min_terms (got {flaw_min_terms}) or set flaw_lines >= 1 lower"
        )
