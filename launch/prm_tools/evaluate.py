"""`ponder prm eval`: a step scorer measured on a file of labels, in any of the formats that `prm.formats` reads."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prm.config import ExactPrmConfig
from prm.data import StepRow
from prm.evaluate import Scores, best_of_n, prmbench, processbench, step_figures
from prm.formats import read_any
from prm.score_rows import score_exactly, score_with_model

Aggregate = Literal["last", "min", "mean"]
_BEST_OF = (2, 4, 8, 16)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """What is measured, and how."""

    data: Path
    model: str | None = None  # None: exact arithmetic
    reference: str | None = None
    chain: bool = False
    threshold: float | None = None
    tuned_on: str | None = None
    tuning_data: Path | None = None
    device: str = "cpu"
    max_tokens: int = 4096


def evaluate(options: EvalOptions, advance: Callable[[int], None]) -> dict[str, Any]:
    """All figures, as plain data; NaN is None.

    Raises ValueError for a file of no known format or a threshold that nothing was named to tune on.
    """
    name, rows = read_any(options.data)
    scores = _scored(options, rows, advance)
    threshold = options.threshold
    if threshold is None and options.tuning_data is not None:
        _, tuning = read_any(options.tuning_data)
        found = processbench(tuning, _scored(options, tuning, lambda _: None), threshold=None)
        threshold = next(iter(found.values())).threshold
    figures: dict[str, Any] = {"format": name, "rows": len(rows), "scorer": options.model or "exact"}
    figures["incomplete_rows"] = sum(bool(np.isnan(s).any()) for s in scores)
    figures["steps"] = step_figures(rows, scores)
    if name == "prmbench":
        figures["prmbench"] = prmbench(rows, scores)
    if any(row.first_error is not None for row in rows):
        figures["first_error"] = _first_error(rows, scores, threshold, options.tuned_on)
    if any(row.outcome is not None for row in rows):
        figures["best_of_n"] = _best_of(rows, scores)
    plain: dict[str, Any] = _plain(figures)
    return plain


def write(figures: dict[str, Any], out: Path) -> None:
    """One JSON file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _scored(options: EvalOptions, rows: Sequence[StepRow], advance: Callable[[int], None]) -> list[Scores]:
    if options.model is None:
        exact = score_exactly(rows, ExactPrmConfig(chain=options.chain))
        advance(len(rows))
        # A step that states nothing checkable is no error that was found.
        return [np.where(np.isnan(s), np.float32(1), s).astype(np.float32) for s in exact]
    size: dict[str, Any] = {"max_tokens": options.max_tokens, "batch_tokens": max(8192, options.max_tokens)}
    return score_with_model(
        rows, options.model, reference=options.reference, advance=advance, device=options.device, **size
    )


def _first_error(
    rows: Sequence[StepRow], scores: Sequence[Scores], threshold: float | None, tuned_on: str | None
) -> dict[str, Any]:
    found = processbench(rows, scores, threshold=threshold, tuned_on=tuned_on)
    others = [split.f1 for source, split in found.items() if threshold is not None or source != tuned_on]
    return {
        "threshold": next(iter(found.values())).threshold,
        "tuned": "given" if threshold is not None else tuned_on or "on all of these rows: an upper bound",
        "mean_f1": float(np.mean([split.f1 for split in found.values()])),
        "mean_f1_of_other_splits": float(np.mean(others)) if others else math.nan,
        "splits": {source: dataclasses.asdict(split) for source, split in found.items()},
    }


def _best_of(rows: Sequence[StepRow], scores: Sequence[Scores]) -> dict[str, Any]:
    reduce: dict[str, Callable[[Scores], float]] = {
        "last": lambda s: float(s[-1]),
        "min": lambda s: float(s.min()),
        "mean": lambda s: float(s.mean()),
    }
    found: dict[str, Any] = {}
    for name, number in reduce.items():
        numbers = {
            row.id: number(s) if len(s) and not np.isnan(s).any() else math.nan
            for row, s in zip(rows, scores, strict=True)
        }
        by_size = {size: best_of_n(rows, numbers, size=size) for size in _BEST_OF}
        found[name] = {str(size): value for size, value in by_size.items() if value["questions"]}
    return found if any(found.values()) else {}


def _plain(value: Any) -> Any:
    """NaN as None, tuples as lists."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return value
