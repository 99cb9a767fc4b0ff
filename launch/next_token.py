"""Tasks of predicting tokens of a text, and the text without them: what RMT's two terms learn from."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rollout.config import FormatConfig
from rollout.render import Renderer
from rollout.tasks.next_token import draw_positions, may_be_task, tiers_of, top_entropy

TOP = 16
TASKS, TEXTS = ".tasks.jsonl", ".texts.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What the command line says."""

    paths: Sequence[str]
    proxy: Path
    out: Path
    chunk_tokens: int = 256
    per_chunk: int = 4
    skip: float = 0.7
    num_tiers: int = 3
    least_context: int = 16
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    text: str
    token_ids: list[int]
    char_ends: list[int]


def make(options: PredictOptions, tell: Callable[[str], None]) -> dict[str, Any]:
    """Write OUT.tasks.jsonl and OUT.texts.jsonl; return what they hold. Raises ValueError for what cannot be read."""
    from rl.learner.top_probabilities import top_log_probabilities  # loads torch

    chunks = list(_chunks(options))
    if not chunks:
        raise ValueError(f"{list(options.paths)} hold no text of more than {options.least_context} tokens")
    entropies = []
    ids = [chunk.token_ids for chunk in chunks]
    tell(f"{len(chunks)} chunks of up to {options.chunk_tokens} tokens; entropies of the next tokens ...")
    for top in top_log_probabilities(str(options.proxy), ids, most=TOP, device=options.device, dtype=options.dtype):
        entropies.append(np.concatenate([[0.0], top_entropy(top)]))  # nothing says what the first token will be
    may = [may_be_task(c.text, c.char_ends, least_context=options.least_context) for c in chunks]
    eligible = np.concatenate([e[m] for e, m in zip(entropies, may, strict=True)])
    if eligible.size < options.num_tiers:
        raise ValueError(f"only {eligible.size} tokens may be tasks; give more text, or lower --least-context")
    tiers, edges = tiers_of(eligible, skip=options.skip, count=options.num_tiers)
    counts = _write(options, chunks, entropies, may, tiers)
    return {
        "chunks": len(chunks),
        "tokens": sum(map(len, ids)),
        "tasks_by_tier": counts,
        "entropy_from": [round(edge, 4) for edge in edges],
    }


def _chunks(options: PredictOptions) -> Iterable[_Chunk]:
    renderer = Renderer(str(options.proxy), FormatConfig())
    for pattern in options.paths:
        files = sorted(glob.glob(os.path.expanduser(pattern)))
        if not files:
            raise ValueError(f"--text names {pattern!r}, and there is no such file; correct the path")
        for file in files:
            tokens = list(renderer.forced_ids(Path(file).read_text(encoding="utf-8")))
            for start in range(0, len(tokens), options.chunk_tokens):
                part = tokens[start : start + options.chunk_tokens]
                text, ends = renderer.text_of(part)
                if len(part) > options.least_context:
                    yield _Chunk(text=text, token_ids=part, char_ends=ends.tolist())


def _write(
    options: PredictOptions,
    chunks: Sequence[_Chunk],
    entropies: Sequence[Any],
    may: Sequence[Any],
    tiers: Any,
) -> list[int]:
    """Both files, aside first; the number of tasks of every tier."""
    rng = np.random.default_rng(options.seed)
    counts, done = [0] * options.num_tiers, 0
    tasks, texts = (options.out.with_name(options.out.name + end) for end in (TASKS, TEXTS))
    tasks.parent.mkdir(parents=True, exist_ok=True)
    asides = [path.with_name(f".{path.name}.part") for path in (tasks, texts)]
    with asides[0].open("w", encoding="utf-8") as task_file, asides[1].open("w", encoding="utf-8") as text_file:
        for number, chunk in enumerate(chunks):
            own = np.full(len(chunk.token_ids), -1, dtype=np.int8)
            size = int(may[number].sum())
            own[may[number]], done = tiers[done : done + size], done + size
            skip = []
            for position in draw_positions(own, most=options.per_chunk, rng=rng):
                start, end = chunk.char_ends[position - 1], chunk.char_ends[position]
                skip.append([start, end])
                counts[own[position]] += 1
                row = {
                    "prompt": chunk.text[:start],
                    "answer": chunk.text[start:end].strip(),
                    "difficulty": int(own[position]),
                    "entropy": round(float(entropies[number][position]), 4),
                    "split_key": str(number),
                }
                task_file.write(json.dumps(row, ensure_ascii=False) + "\n")
            text_file.write(json.dumps({"text": chunk.text, "skip": skip}, ensure_ascii=False) + "\n")
    for aside, path in zip(asides, (tasks, texts), strict=True):
        aside.replace(path)
    return counts
