"""A penalty on responses that go round in circles.

    severity = (tokens of the window that repeat with one short period) / (response tokens), if a period of at most
               `max_period` tokens occurs `min_repeats` times or more at the end of the last `window` tokens
             + share of duplicate n-grams of tokens above `max_duplicates`, if it is above; at most 1 in all
    repetition_i = -weight * severity

Kwai Keye-VL (arXiv 2507.01949) names repetition as what its alignment corrects and publishes no rule. RECONSTRUCTION:
the detector is ours.

Assumption: ends are where loops live, since a loop is only left by a limit. What it is not: a judgement of style. A
table or a list of primes repeats too; leave `max_duplicates` above what good answers have.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from budgets.shaping.config import RepetitionConfig
from budgets.shaping.siblings import FloatArray, GroupShaper, Siblings
from rollout.schema import Group, Int32Array


class Repetition(GroupShaper):
    """The shaper: component `repetition`."""

    name = "repetition"

    def __init__(self, config: RepetitionConfig) -> None:
        super().__init__(config)
        self._config = config

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        responses = (t.token_ids[t.prompt_len :] for t in group.trajectories)
        return {"repetition": np.array([-self._config.weight * severity(ids, self._config) for ids in responses])}


def severity(ids: Int32Array, config: RepetitionConfig) -> float:
    """Between 0, no repetition, and 1, nothing else, of a response's tokens [N]."""
    if not len(ids):
        return 0.0
    _, covered = tail_period(ids[-config.window :], config.max_period, config.min_repeats)
    duplicates = duplicate_share(ids, config.ngram)
    return min(1.0, covered / len(ids) + (duplicates if duplicates > config.max_duplicates else 0.0))


def tail_period(ids: Int32Array, max_period: int, min_repeats: int) -> tuple[int, int]:
    """The smallest period at the end of `ids` that occurs often enough, and its tokens; (0, 0) without one."""
    size = len(ids)
    for period in range(1, min(max_period, size // min_repeats) + 1):
        same = ids[period:] == ids[:-period]
        breaks = np.flatnonzero(~same)
        run = size - period if not len(breaks) else size - period - 1 - int(breaks[-1])
        if run + period >= min_repeats * period:
            return period, run + period
    return 0, 0


def duplicate_share(ids: Int32Array, ngram: int) -> float:
    """Share of the runs of `ngram` tokens that were there before, in [0, 1)."""
    if len(ids) <= ngram:
        return 0.0
    runs = np.lib.stride_tricks.sliding_window_view(np.ascontiguousarray(ids), ngram)
    return 1.0 - len({run.tobytes() for run in runs}) / len(runs)
