"""What a preference stage does in isolated processes: torch, transformers and TRL stay out of the driver.

The functions are importable without any of them; they import what they need when they run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from launch.model_dir import replace_directory
from rl.preference.config import PreferenceConfig
from rl.preference.pairs import Pair
from rollout.config import FormatConfig
from rollout.schema import Message


def preference(
    config: PreferenceConfig,
    *,
    pairs_file: str,
    model_dir: str,
    out_dir: str,
    seed: int,
    progress: Callable[[tuple[int, float]], None],
) -> dict[str, Any]:
    """Optimize `model_dir` on the pairs of a file, write it whole to `out_dir`; return the result as plain data."""
    from rl.preference.dpo import run_dpo

    pairs = [
        Pair(task_key=row["task_key"], **{side: tuple(row[side]) for side in ("prompt", "chosen", "rejected")})
        for row in pq.read_table(pairs_file).to_pylist()
    ]
    target = Path(out_dir)
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    result = run_dpo(config, pairs, model_dir, str(aside), seed=seed, progress=progress)
    replace_directory(aside, target)
    return asdict(result)


def rendered(
    format: FormatConfig, rows: Sequence[Mapping[str, Any]], *, instruction: str, model_dir: str
) -> list[Pair]:
    """Rows of texts as tokens, as the rollouts would render them."""
    from rollout.render import Renderer

    renderer = Renderer.load(model_dir, format)
    pairs = []
    for row in rows:
        messages = tuple(Message(role=role, content=content) for role, content in row["prompt"])
        prompt = renderer.prompt_ids(messages, instruction)
        sides = {
            side: tuple(renderer.response_ids(row[side]["thinking"], row[side]["answer"]))
            for side in ("chosen", "rejected")
        }
        pairs.append(Pair(task_key=row["task_key"], prompt=tuple(prompt), **sides))
    return pairs
