"""Which samples a verifier looks at first: those whose hidden states differ most, and what that order saves.

The order is `prm.search.coreset` on the mean hidden states of the policy itself. Over tasks with right and wrong
samples, c right ones of N judged: checks until the first right one in this order, beside (N + 1) / (c + 1), which a
random order takes on average (RepExp, arXiv 2510.11686).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from budgets.evaluation import intervals
from launch.search.store import Searched
from prm.search.coreset import coreset
from rl.exploration.bonus import sparse_projection
from rl.ports import Representer
from rollout.schema import Trajectory

DIMENSION = 512
"""Features of more dimensions are projected to so many."""


async def order_of(representer: Representer, trajectories: Sequence[Trajectory], name: str) -> tuple[int, ...]:
    """Places in the order of picking; those without a sampled token come last. `name` seeds the first pick."""
    places = [i for i, trajectory in enumerate(trajectories) if trajectory.sampled.any()]
    silent = [i for i in range(len(trajectories)) if i not in places]
    if not places:
        return tuple(silent)
    hidden = await representer.features([trajectories[i] for i in places])
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
    features: npt.NDArray[np.float64] = np.asarray(hidden, dtype=np.float64)
    if features.shape[1] > DIMENSION:
        features = features @ sparse_projection(features.shape[1], DIMENSION, seed=0)
    first = int(np.random.default_rng(seed).integers(len(places)))
    return (*(places[i] for i in coreset(features, len(places), first=first)), *silent)


def checks(order: Sequence[int], correct: Sequence[bool | None]) -> tuple[int, float] | None:
    """Checks until the first right one in `order`, and the mean of a random order. None where all judged are alike."""
    judged = [bool(correct[i]) for i in order if correct[i] is not None]
    if len(set(judged)) < 2:
        return None
    return judged.index(True) + 1, (len(judged) + 1) / (sum(judged) + 1)


def report(samples: Mapping[str, Searched], tasks: Sequence[str], *, seed: int) -> dict[str, Any] | None:
    """Means over the tasks that have both right and wrong samples; None where no order was taken."""
    if any(samples[task].order is None for task in tasks):
        return None
    found = []
    for task in tasks:
        item = samples[task]
        assert item.order is not None
        found.append(checks(item.order, [solution.correct for solution in item.solutions]))
    known = np.asarray([pair for pair in found if pair is not None], dtype=np.float64).reshape(-1, 2)
    difference, _ = intervals.paired(known[:, 0], known[:, 1], seed=seed)
    return {
        "num_tasks": len(known),
        "checks": intervals.mean(known[:, 0], seed=seed).as_json(),
        "random_checks": intervals.mean(known[:, 1], seed=seed).as_json(),
        "difference": difference.as_json(),
    }


def in_words(found: Mapping[str, Any] | None) -> str:
    """A sentence for the page; empty where no order was taken or no task has right and wrong samples."""
    if found is None or not found["num_tasks"]:
        return ""
    gain = found["difference"]
    return (
        f" A verifier that looks at the samples in the order of their coreset finds a right one after "
        f"{found['checks']['value']:.2f} checks, in random order after {found['random_checks']['value']:.2f} "
        f"(difference {gain['value']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}], "
        f"{found['num_tasks']} tasks with right and wrong samples)."
    )
