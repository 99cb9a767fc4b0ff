"""Pairs of a right and a wrong attempt at one task, from judged attempts.

    chosen    judged, and right        rejected  judged, and wrong

An attempt without a verdict is neither. What the policy did not write itself cannot be preferred: tokens put in after
it began (a thinking closed by force) take the attempt out; tokens put in before (a prefix) belong to the prompt, and
only attempts with the same prompt meet. Of R right and W wrong attempts min(R, W, max_per_task) pairs are made, each
attempt used once: by length, right ones in a seeded order each take the wrong one nearest in length; or at random.

Assumption: the verdicts are right more often than the model is. What it is not: a measure of quality among right
answers; and matching by length takes out only what lengths tell between pairs that exist, not why wrong ones are long.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An attempt. `is_right` is None without a verdict; the first `num_given` tokens were given, `is_own` says that it
    wrote all others itself."""

    task_key: str
    token_ids: tuple[int, ...]
    num_given: int
    is_right: bool | None
    is_own: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Token ids of a prompt and of two responses to it."""

    task_key: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSet:
    """The pairs, and what became of tasks and attempts that gave none, by reason."""

    pairs: tuple[Pair, ...]
    num_tasks: int
    left_out: Mapping[str, int] = field(default_factory=dict)


def build_pairs(
    candidates: Iterable[Candidate],
    *,
    max_per_task: int,
    match: Literal["length", "random"],
    max_length: int,
    seed: int,
) -> PairSet:
    """Pairs in the order in which their tasks first appear; the same attempts and seed give the same pairs."""
    left_out: Counter[str] = Counter()
    by_prompt: dict[tuple[str, tuple[int, ...]], list[Candidate]] = defaultdict(list)
    tasks = set()
    for candidate in candidates:
        tasks.add(candidate.task_key)
        reason = _unusable(candidate, max_length)
        if reason is not None:
            left_out[reason] += 1
            continue
        by_prompt[candidate.task_key, candidate.token_ids[: candidate.num_given]].append(candidate)
    pairs: list[Pair] = []
    for (key, prompt), attempts in by_prompt.items():
        right, wrong = (_distinct(a for a in attempts if a.is_right is verdict) for verdict in (True, False))
        if not right or not wrong:
            left_out["task with right answers alone" if right else "task with wrong answers alone"] += 1
            continue
        count = min(len(right), len(wrong), max_per_task)
        for chosen, rejected in _matched(right, wrong, count, match, _seed(seed, key)):
            pairs.append(Pair(task_key=key, prompt=prompt, chosen=chosen, rejected=rejected))
    return PairSet(pairs=tuple(pairs), num_tasks=len(tasks), left_out=dict(sorted(left_out.items())))


def _unusable(candidate: Candidate, max_length: int) -> str | None:
    if candidate.is_right is None:
        return "attempt without a verdict"
    if not candidate.is_own:
        return "attempt with tokens put in by force"
    if len(candidate.token_ids) <= candidate.num_given:
        return "attempt without a token of its own"
    return "attempt longer than max_length" if len(candidate.token_ids) > max_length else None


def _distinct(attempts: Iterable[Candidate]) -> list[tuple[int, ...]]:
    """Responses, each once: the same text sampled twice would make the same pair twice."""
    return list(dict.fromkeys(a.token_ids[a.num_given :] for a in attempts))


def _matched(
    right: Sequence[tuple[int, ...]],
    wrong: Sequence[tuple[int, ...]],
    count: int,
    match: Literal["length", "random"],
    rng: np.random.Generator,
) -> Iterable[tuple[tuple[int, ...], tuple[int, ...]]]:
    firsts = [right[i] for i in rng.permutation(len(right))[:count]]
    free = [wrong[i] for i in rng.permutation(len(wrong))]
    for chosen in firsts:
        place = 0 if match == "random" else min(range(len(free)), key=lambda i: abs(len(free[i]) - len(chosen)))
        yield chosen, free.pop(place)


def _seed(seed: int, key: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
