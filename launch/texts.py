"""Text files as token ids, for the next-token term: cut into chunks once, in a process of its own, and kept."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from launch import cluster
from launch.config import RunConfig
from launch.rundir import RunDirectory
from rl.hybrid.config import TextConfig
from rl.hybrid.text import Chunk
from rollout.config import FormatConfig

SCHEMA = pa.schema([("token_ids", pa.list_(pa.int32())), ("learned", pa.list_(pa.bool_()))])


def load(config: RunConfig, section: TextConfig, directory: RunDirectory) -> list[Chunk]:
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
    rows = pq.read_table(directory.texts).to_pylist()
    if not rows:
        raise ValueError(f"mix.text.paths = {list(section.paths)} hold no token to learn; give files with text")
    return [
        Chunk(np.asarray(row["token_ids"], dtype=np.int32), np.asarray(row["learned"], dtype=np.bool_)) for row in rows
    ]


def files(section: TextConfig) -> list[str]:
    """The files that the paths name. Raises ValueError for one that names none."""
    found: list[str] = []
    for path in section.paths:
        matches = sorted(glob.glob(os.path.expanduser(path)))
        if not matches:
            raise ValueError(f"mix.text.paths names {path!r}, and there is no such file; correct the path")
        found += matches
    return found


def passages(path: Path) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """The texts of a file, each with the characters that are not learned. Raises ValueError naming a bad line."""
    if path.suffix != ".jsonl":
        yield path.read_text(encoding="utf-8"), []
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                skip = [(int(start), int(end)) for start, end in row.get("skip", ())]
                yield row["text"], skip
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f'line {number} of {path} must be {{"text": ..., "skip": [[from, to], ...]}}, got {line[:80]!r} '
                    f"({type(error).__name__}: {error})"
                ) from error


def outside(char_ends: Iterable[int], skip: Sequence[tuple[int, int]]) -> list[bool]:
    """Per token whether it shares no character with a span of `skip`; a token without characters goes with the next."""
    learned, start = [], 0
    for end in map(int, char_ends):
        learned.append(not any(start < after and before < max(end, start + 1) for before, after in skip))
        start = end
    return learned


def cut(format: FormatConfig, paths: list[str], *, chunk_tokens: int, model_dir: str, out_path: str) -> None:
    """Write every text as chunks of `chunk_tokens` tokens of the model; one without a learned token is left out."""
    from rollout.render import Renderer

    renderer = Renderer.load(model_dir, format)
    rows = []
    for path in paths:
        for text, skip in passages(Path(path)):
            tokens = list(renderer.forced_ids(text))
            learned = outside(renderer.text_of(tokens)[1], skip)
            for start in range(0, len(tokens), chunk_tokens):
                end = start + chunk_tokens
                own = [False, *learned[start + 1 : end]]  # nothing stands before the first token
                if any(own):
                    rows.append({"token_ids": tokens[start:end], "learned": own})
    partial = Path(f"{out_path}.tmp")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial, compression="zstd")
    os.replace(partial, out_path)
