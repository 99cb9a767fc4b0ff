"""How a group travels between processes: the arrays of its siblings end to end, four instead of four each.

Siblings one by one cost the driver, which receives every group of a run, twice the time. `Group` pickles like this in
every process that has imported this module, and is read back by any.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any

import numpy as np

from rollout.schema import Group, Job, PolicySpan, Trajectory

_ARRAYS = (("token_ids", np.int32), ("sampled", np.bool_), ("sampler_logprobs", np.float32), ("char_ends", np.int32))
_ARRAY_NAMES = tuple(name for name, _ in _ARRAYS)
_REST = tuple(name for name in Trajectory.__dataclass_fields__ if name not in (*_ARRAY_NAMES, "policy"))
_SET_ARRAYS = [getattr(Trajectory, name).__set__ for name in _ARRAY_NAMES]  # a frozen class is filled slot by slot
_SET_REST = [getattr(Trajectory, name).__set__ for name in _REST]
_SET_POLICY = getattr(Trajectory, "policy").__set__  # noqa: B009 - a slot, which mypy takes for a value

Packed = tuple[Job, list[int], list[Any], list[PolicySpan], list[tuple[Any, ...]]]


def _reduce(group: Group) -> tuple[Callable[..., Group], Packed]:
    trajectories = group.trajectories
    arrays = [
        np.concatenate([getattr(t, name) for t in trajectories]) if trajectories else np.zeros(0, dtype=dtype)
        for name, dtype in _ARRAYS
    ]
    known: dict[PolicySpan, PolicySpan] = {}  # equal ones travel once
    policies = [known.setdefault(t.policy, t.policy) for t in trajectories]
    rest = [tuple(getattr(t, name) for name in _REST) for t in trajectories]
    return _restore, (group.job, [len(t.token_ids) for t in trajectories], arrays, policies, rest)


def _restore(
    job: Job, lengths: list[int], arrays: list[Any], policies: list[PolicySpan], rest: list[tuple[Any, ...]]
) -> Group:
    """The group as it was; what was checked when it was made is not checked again."""
    for array in arrays:
        array.setflags(write=False)
    trajectories = []
    start = 0
    for length, policy, values in zip(lengths, policies, rest, strict=True):
        trajectory = object.__new__(Trajectory)
        end = start + length
        for put, array in zip(_SET_ARRAYS, arrays, strict=True):
            put(trajectory, array[start:end])
        for put, value in zip(_SET_REST, values, strict=True):
            put(trajectory, value)
        _SET_POLICY(trajectory, policy)
        trajectories.append(trajectory)
        start = end
    return Group(job=job, trajectories=tuple(trajectories))


copyreg.pickle(Group, _reduce)
