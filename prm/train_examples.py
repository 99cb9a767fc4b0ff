"""Rows of labels as examples to train on: tokens, positions, targets. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prm.data import StepRow
from prm.encode import read_tokens, text_item
from prm.items import ScoreItem
from prm.label.augment import is_neutral_copy
from prm.train_config import TrainConfig
from rollout.schema import BoolArray, Int32Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One sequence: a target for each position (NaN: none), or an outcome for the whole."""

    row: StepRow
    item: ScoreItem
    token_ids: Int32Array
    sampled: BoolArray
    positions: tuple[int, ...]
    targets: tuple[float, ...]
    outcome: float

    @property
    def is_whole(self) -> bool:
        """Nothing was cut off."""
        return len(self.token_ids) >= len(self.item.token_ids)


Unit = tuple[Example, ...]  # what is never parted: one example, or a pair: right and wrong, or with its neutral copy


def encode_row(row: StepRow, tokenizer: Any, config: TrainConfig, separator_id: int | None) -> Example:
    """One row for the model. A solution longer than `max_tokens` keeps its first whole steps."""
    limit = config.machine.max_tokens
    item = item_of_row(row, tokenizer, joiner=joiner_of(config))
    reading = read_tokens(item.token_ids, item.spans, separator_id=separator_id, max_tokens=limit)
    first = item.spans[0][0] if row.token_ids is None else row.prompt_len
    sampled = np.arange(len(reading.token_ids)) >= first
    is_implicit = config.kind == "implicit"  # it learns from outcomes alone
    labels = [np.nan if is_implicit else target_of(row, label, config) for label in row.labels]
    return Example(
        row=row,
        item=item,
        token_ids=reading.token_ids,
        sampled=sampled,
        positions=reading.positions,
        targets=tuple(labels[: len(reading.positions)]),
        outcome=float("nan") if row.outcome is None else row.outcome,
    )


def item_of_row(row: StepRow, tokenizer: Any, *, joiner: str) -> ScoreItem:
    """The tokens of a row: its own, or those of its text with `joiner` between two steps."""
    item = row.item()
    return text_item(tokenizer, row.messages, row.steps, separator_id=None, joiner=joiner) if item is None else item


def joiner_of(config: TrainConfig) -> str:
    """A separator token takes the place of the text between two steps."""
    return "" if config.separator else config.joiner


def target_of(row: StepRow, label: float | None, config: TrainConfig) -> float:
    """A label as the model's target; NaN for none. Raises ValueError where a conversion would invent or lose something.

    hard to value: 2 y - 1; soft to value likewise; hard to three-way likewise; three-way to hard: neutral is right;
    soft to hard: one continuation that succeeds makes a step right (Math-Shepherd).
    """
    if label is None:
        return float("nan")
    wanted = "value" if config.kind == "value" else config.labels
    match (row.kind, wanted):
        case (kind, same) if kind == same:
            return label
        case ("hard" | "soft", "value") | ("hard", "three_way"):
            return 2.0 * label - 1.0
        case ("three_way", "hard"):
            return float(label >= 0)
        case ("value", "soft"):
            return (1.0 + label) / 2.0
        case ("hard", "soft"):
            return label
        case ("soft", "hard"):
            return float(label > 0)
    raise ValueError(f"row {row.id!r} has labels of kind {row.kind!r}, which cannot be trained on as {wanted!r}")


def units_of(examples: Sequence[Example], config: TrainConfig) -> list[Unit]:
    """What is trained on: examples with something to learn, or for DPO all pairs of a right and a wrong solution."""
    if config.kind != "implicit":
        known = [e for e in examples if not np.isnan(e.targets).all()]
        return _with_copies(known) if config.tie else [(e,) for e in known]
    judged = [e for e in examples if not np.isnan(e.outcome) and e.is_whole]
    if config.objective == "ce":
        return [(e,) for e in judged]
    by_question: dict[str, list[Example]] = {}
    for example in judged:
        by_question.setdefault(example.row.question, []).append(example)
    pairs: list[Unit] = []
    for found in by_question.values():
        right = [e for e in found if e.outcome > 0.5]
        wrong = [e for e in found if e.outcome <= 0.5]
        # Each solution once or as often as it takes to pair all of the more frequent sort, not every combination.
        times = max(len(right), len(wrong)) if right and wrong else 0
        pairs += list(itertools.islice(zip(itertools.cycle(right), itertools.cycle(wrong), strict=False), times))
    return pairs


def _with_copies(examples: Sequence[Example]) -> list[Unit]:
    """Each example with its neutral copy, which it is compared with; a second copy, or one of nobody, is alone."""
    waiting = {e.row.meta["edited"]: e for e in reversed(examples) if is_neutral_copy(e.row)}
    pairs: list[Unit] = []
    for example in examples:
        if not is_neutral_copy(example.row):
            copy = waiting.pop(example.row.id, None)
            pairs.append((example,) if copy is None else (example, copy))
    paired = {id(pair[1]) for pair in pairs if len(pair) > 1}
    return [*pairs, *((e,) for e in examples if is_neutral_copy(e.row) and id(e) not in paired)]


def class_weights(units: Sequence[Unit], config: TrainConfig) -> dict[float, float]:
    """Weight of each hard label: inverse frequency relative to balance, capped; all 1 for other targets."""
    if config.kind != "discriminative" or config.labels == "soft":
        return {}
    given = np.concatenate([np.asarray(e.targets) for unit in units for e in unit] or [np.zeros(0)])
    values, counts = np.unique(given[~np.isnan(given)], return_counts=True)
    balanced = counts.sum() / (len(values) * counts) if len(values) else counts
    return {float(v): float(min(w, config.max_class_weight)) for v, w in zip(values, balanced, strict=True)}


def micro_batches(units: Sequence[Unit], batch_tokens: int) -> list[list[Unit]]:
    """Units in rectangles of at most `batch_tokens` positions, one sequence a row, longest first."""
    order = sorted(units, key=lambda unit: -max(len(e.token_ids) for e in unit))
    found: list[list[Unit]] = []
    width = rows = 0
    for unit in order:
        if not found or (rows + len(unit)) * width > batch_tokens:
            found.append([])
            width, rows = max(len(e.token_ids) for e in unit), 0
        found[-1].append(unit)
        rows += len(unit)
    return found
