"""A batch that broke the learner, on disk: arrays in NPZ, without pickle, and a JSON file that names what is in it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from rl.packing import PADDING, MicroBatch, PackedStep


def dump_name(step: int) -> str:
    """File name of the record of an optimizer step that was not applied."""
    return f"non_finite_step_{step:06d}.json"


def dump_step(
    path: Path, packed: PackedStep, names: tuple[str, ...], *, step: int, error: str, blamed: list[str]
) -> None:
    """Write the step to `path` and, beside it, to a file of that name that ends in .npz.

    The NPZ file holds every array of every micro-batch as `rank0/0/input_ids`, ranks and micro-batches counted from 0.
    The JSON file says where each sample lies, which of its arrays are not finite, and which samples are blamed.

    Args:
        names: name "group/sibling" of each segment of the batch.
        blamed: names of the samples with a non-finite value; empty if only the gradient norm was not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    samples: dict[str, dict[str, Any]] = {}
    for rank, micro_batches in enumerate(packed.ranks):
        for index, micro_batch in enumerate(micro_batches):
            key = f"rank{rank}/{index}"
            content = _arrays(micro_batch)
            arrays |= {f"{key}/{name}": array for name, array in content.items()}
            for segment in np.unique(micro_batch.segments[micro_batch.segments != PADDING]).tolist():
                samples[names[segment]] = _describe(key, segment, micro_batch, content, names[segment])
    np.savez_compressed(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]  # numpy types allow_pickle first
    record = {
        "error": error,
        "optimizer_step": step,
        "normalizer": packed.normalizer,
        "loss_tokens": packed.num_loss_tokens,
        "arrays": path.with_suffix(".npz").name,
        "blamed": {name: samples[name] for name in blamed if name in samples},
        "samples": samples,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def _arrays(micro_batch: MicroBatch) -> dict[str, np.ndarray[Any, Any]]:
    values = {f.name: getattr(micro_batch, f.name) for f in fields(micro_batch)}
    return {name: value for name, value in values.items() if value is not None}


def _describe(
    key: str, segment: int, micro_batch: MicroBatch, content: dict[str, np.ndarray[Any, Any]], name: str
) -> dict[str, Any]:
    where = micro_batch.segments == segment
    group, _, sibling = name.rpartition("/")
    scored = where & micro_batch.loss_mask
    spoiled = [
        n
        for n, a in content.items()
        if a.dtype.kind == "f" and a.shape == where.shape and not np.isfinite(a[scored]).all()
    ]
    return {
        "group": group,
        "sibling": int(sibling),
        "micro_batch": key,
        "segment": segment,
        "row": int(np.flatnonzero(where.any(axis=1))[0]),
        "loss_tokens": int(scored.sum()),
        "not_finite": spoiled,
    }
