"""Text files as token ids, for the next-token term: cut into chunks once, in a process of its own, and kept."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from launch import cluster
from launch.config import RunConfig
from launch.rundir import RunDirectory
from rl.hybrid.config import TextConfig
from rollout.config import FormatConfig
from rollout.schema import Int32Array

SCHEMA = pa.schema([("token_ids", pa.list_(pa.int32()))])


def load(config: RunConfig, section: TextConfig, directory: RunDirectory) -> list[Int32Array]:
    """The chunks of all files, in order. Raises ValueError naming a path that is not there, or when nothing is."""
    if not directory.texts.is_file():
        cluster.run_isolated(
            cut,
            config.format,
            files(section),
            num_threads=1,
            chunk_tokens=section.chunk_tokens,
            model_dir=str(directory.start_model),
            out_path=str(directory.texts),
        )
    rows = pq.read_table(directory.texts).column("token_ids").to_pylist()
    if not rows:
        raise ValueError(f"mix.text.paths = {list(section.paths)} hold no two tokens; give files with text")
    return [np.asarray(row, dtype=np.int32) for row in rows]


def files(section: TextConfig) -> list[str]:
    """The files that the paths name. Raises ValueError for one that names none."""
    found: list[str] = []
    for path in section.paths:
        matches = sorted(glob.glob(os.path.expanduser(path)))
        if not matches:
            raise ValueError(f"mix.text.paths names {path!r}, and there is no such file; correct the path")
        found += matches
    return found


def cut(format: FormatConfig, paths: list[str], *, chunk_tokens: int, model_dir: str, out_path: str) -> None:
    """Write every file as chunks of `chunk_tokens` tokens of the model; a rest of one token is left out."""
    from rollout.render import Renderer

    renderer = Renderer.load(model_dir, format)
    rows = []
    for path in paths:
        tokens = list(renderer.forced_ids(Path(path).read_text(encoding="utf-8")))
        chunks = [tokens[i : i + chunk_tokens] for i in range(0, len(tokens), chunk_tokens)]
        rows += [{"token_ids": chunk} for chunk in chunks if len(chunk) > 1]
    partial = Path(f"{out_path}.tmp")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial, compression="zstd")
    os.replace(partial, out_path)
