"""From settings and tasks to the sampler they describe. The only file of the samplers that looks into a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rl.sampling.config import (
    CurriculumSampling,
    QuotaSampling,
    RifSampling,
    SamplerConfig,
    StatSampling,
    TierSampling,
    UniformSampling,
    VadeSampling,
)
from rl.sampling.curriculum import Curriculum
from rl.sampling.picker import Numbers, Picker
from rl.sampling.pool_sampler import PoolSampler
from rl.sampling.quotas import Quotas
from rl.sampling.rif import Rif
from rl.sampling.stat import Stat
from rl.sampling.tiers import Tiers
from rl.sampling.uniform import Uniform
from rl.sampling.vade import Vade
from rollout.schema import Task

NO_SKILL = "none"
"""Skill of the tasks that name none."""


def build_sampler(config: SamplerConfig, tasks: Sequence[Task], *, batch_size: int, seed: int) -> PoolSampler:
    """The sampler that `config` describes; it picks `batch_size` tasks at a time.

    Raises ValueError for tasks that lack what it needs: a difficulty, or a share for their domain.
    """
    return PoolSampler(tasks, lambda pool: _picker(config, pool, seed), batch_size=batch_size, seed=seed)


def _picker(config: SamplerConfig, tasks: Sequence[Task], seed: int) -> Picker:
    match config:
        case UniformSampling():
            return Uniform(len(tasks), seed=seed)
        case VadeSampling():
            return Vade(len(tasks), config, seed=seed)
        case CurriculumSampling():
            return Curriculum(_difficulties(tasks, config.difficulty), config, seed=seed)
        case TierSampling():
            return Tiers(_difficulties(tasks, config.difficulty), config, seed=seed)
        case RifSampling():
            return Rif(len(tasks), config, seed=seed)
        case StatSampling():
            names, starts, ids = _skills(tasks)
            return Stat(names, starts, ids, config, seed=seed)
        case QuotaSampling():
            return _quotas(config, tasks, seed)


def _quotas(config: QuotaSampling, tasks: Sequence[Task], seed: int) -> Quotas:
    labels = [task.source if config.by == "source" else (task.skills or (NO_SKILL,))[0] for task in tasks]
    names = sorted(set(labels))
    place = {name: number for number, name in enumerate(names)}
    domain_of = np.fromiter((place[label] for label in labels), dtype=np.int32, count=len(labels))

    rule = config.inner
    if isinstance(rule, VadeSampling):  # as many tasks compete in all as without domains
        rule = rule.model_copy(update={"candidates": max(1024, rule.candidates // len(names))})

    def inner(members: Numbers, inner_seed: int) -> Picker:
        return _picker(rule, [tasks[number] for number in members], inner_seed)

    return Quotas(names, domain_of, config.shares, inner, seed=seed)


def _difficulties(tasks: Sequence[Task], name: str) -> npt.NDArray[np.float64]:
    values = [_number(task.meta.get(name)) for task in tasks]
    for task, value in zip(tasks, values, strict=True):
        if not math.isfinite(value):
            raise ValueError(
                f"a curriculum needs a number in meta[{name!r}] of every task, got {task.meta.get(name)!r} in task "
                f"{task.key} of {task.source!r}; name another entry in "
                f"sampling.sampler.difficulty, or keep the column in tasks.train.columns.meta"
            )
    return np.asarray(values, dtype=np.float64)


def _number(value: Any) -> float:
    """A number, or a text that reads as one, as a column of a .csv file does; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def _skills(tasks: Sequence[Task]) -> tuple[list[str], Numbers, Numbers]:
    """Names of all skills, and the sparse table that `Stat` takes."""
    mine = [tuple(dict.fromkeys(task.skills)) or (NO_SKILL,) for task in tasks]
    names = sorted({skill for skills in mine for skill in skills})
    place = {name: number for number, name in enumerate(names)}
    starts = np.cumsum([0, *map(len, mine)])
    return names, starts, np.asarray([place[skill] for skills in mine for skill in skills], dtype=np.int64)
