"""`summary.json`: what a run cost and what it gained, in the fixed form that benchmarks and the README read.

    {"seconds": {"cold_start", "train", "eval", "total"}, "tokens_per_s": {"generate", "train"}, "peak_rss_gib",
     "efforts": {effort: {"before": {"accuracy", "low", "high", "thinking_tokens"}, "after": {...}}}, "greedy": {...}}

`low` and `high` inside are the ends of the 95 % interval. `efforts` holds the sampled answers, `greedy` the greedy ones
in the same form; a decoding mode that was not evaluated leaves its table empty. `peak_rss_gib` is the largest
proportional set size of all processes together (see `launch/memory.py`). Numbers that a run does not have are null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rl.report.data import TIME_METRICS, TOKENS_PER_S, Evaluation, RunData

LOSS_TOKENS = "learner/loss_tokens"


def summarize(run: RunData, *, seconds: Mapping[str, float], peak_gib: float) -> dict[str, Any]:
    """The summary of a finished run. `seconds` has cold_start, train, eval and total over all sessions."""
    return {
        "seconds": {name: round(seconds[name], 2) for name in ("cold_start", "train", "eval", "total")},
        "tokens_per_s": {
            "generate": _rate(run, TOKENS_PER_S, "generate", is_rate=True),
            "train": _rate(run, LOSS_TOKENS, "learn", is_rate=False),
        },
        "peak_rss_gib": round(peak_gib, 3),
        "efforts": _table(run, "sampled"),
        "greedy": _table(run, "greedy"),
    }


def _table(run: RunData, mode: str) -> dict[str, dict[str, Any]]:
    ends = {"before": run.before, "after": run.after}
    efforts = dict.fromkeys(e for end in ends.values() if end is not None for e in end.efforts)
    rows = {effort: {name: _cell(end, effort, mode) for name, end in ends.items()} for effort in efforts}
    return {effort: row for effort, row in rows.items() if any(cell is not None for cell in row.values())}


def _cell(evaluation: Evaluation | None, effort: str, mode: str) -> dict[str, float] | None:
    point = None if evaluation is None else evaluation.points.get((effort, mode))
    if point is None:
        return None
    numbers = {"accuracy": point.accuracy, "low": point.low, "high": point.high}
    return {**{k: round(v, 4) for k, v in numbers.items()}, "thinking_tokens": round(point.thinking_tokens, 2)}


def _rate(run: RunData, name: str, part: str, *, is_rate: bool) -> float | None:
    """Tokens per second over all steps: total tokens by total seconds of that part, so that long steps weigh more."""
    if name not in run.series or TIME_METRICS[part] not in run.series:
        return None
    amounts = dict(zip(run.series[name].steps, run.series[name].values, strict=True))
    times = dict(zip(run.series[TIME_METRICS[part]].steps, run.series[TIME_METRICS[part]].values, strict=True))
    tokens = seconds = 0.0
    for step in amounts.keys() & times.keys():
        if math.isfinite(amounts[step]) and math.isfinite(times[step]):
            tokens += amounts[step] * times[step] if is_rate else amounts[step]
            seconds += times[step]
    return round(tokens / seconds, 1) if seconds else None
