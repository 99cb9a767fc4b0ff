"""`ponder prm train`: settings from the command line, files of labels in, a model directory out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from launch.model_dir import check_model
from launch.prm_tools.label import with_settings
from prm.config import ExactPrmConfig
from prm.data import StepRow
from prm.formats import read_any
from prm.label.augment import causal_edits, neutral_edits
from prm.train_config import TrainConfig
from prm.train_ranks import train as run_ranks

Say = Callable[[str], None]


def config_of(values: Sequence[str]) -> TrainConfig:
    """Settings from `--set KEY=VALUE`. Raises ValueError naming the setting that is wrong."""
    try:
        return TrainConfig.model_validate(with_settings({}, values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def train(
    data: Sequence[Path],
    model: Path,
    out: Path,
    config: TrainConfig,
    *,
    held_out: Path | None,
    causal: int,
    neutral: bool,
    say: Say,
) -> None:
    """Train, or go on where an earlier call with this directory was stopped."""
    check_model(model, setting="--model")
    rows = [row for path in data for row in read_any(path)[1]]
    held = None if held_out is None else read_any(held_out)[1]
    edited = _edited(rows, config, causal=causal, neutral=neutral)
    say(f"{len(rows)} rows" + (f" and {len(edited)} edited copies" if edited else ""))

    def report(entry: dict[str, Any]) -> None:
        figures = " ".join(f"{k} {v:.4g}" for k, v in entry.items() if k not in ("step", "total", "best"))
        say(f"update {entry['step']:.0f} of {entry['total']}: {figures}{' (best)' if entry['best'] else ''}")

    run_ranks(config, [*rows, *edited], str(model.resolve()), out, held_out=held, report=report)
    say(f"model: {out / 'best'}")


def _edited(rows: Sequence[StepRow], config: TrainConfig, *, causal: int, neutral: bool) -> list[StepRow]:
    edited = causal_edits(rows, seed=config.seed, per_row=causal, checker=ExactPrmConfig()) if causal else []
    return [*edited, *(neutral_edits(rows, seed=config.seed) if neutral else [])]
