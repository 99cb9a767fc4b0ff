"""Augmentation against spurious features: causal edits that must change the score, neutral ones that must not.

    causal    one number of a right step is changed: that step becomes wrong, later labels are dropped
    neutral   a filler phrase, spacing, or another wording of "so": labels stay

Source of the idea: Crome (arXiv 2506.16507), for answers of a reward model, by rewriting with a large model; the edits
for steps of mathematics here are a reconstruction and need no model. A changed number makes a step wrong only if the
step states something with it: with `verified`, rows are kept only where the exact checker says that the edited step is
wrong and the original right.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from prm.config import ExactPrmConfig
from prm.data import StepRow, content_id
from prm.label.exact import label_by_exact

_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")
_FILLERS = ("Okay. ", "Let me see. ", "Now, ", "Next, ", "Right. ", "As one can check: ")


def causal_edits(
    rows: Sequence[StepRow], *, seed: int, per_row: int = 1, checker: ExactPrmConfig | None = None
) -> list[StepRow]:
    """Copies with a planted error at a step that was right. With a checker only verified ones."""
    edited = []
    for row in rows:
        rng = np.random.default_rng([seed, int(row.id, 16) if _is_hex(row.id) else abs(hash_of(row.id))])
        for _ in range(per_row):
            copy = _plant(row, rng)
            if copy is not None and (checker is None or _is_verified(copy, checker)):
                edited.append(copy)
    return edited


def neutral_edits(rows: Sequence[StepRow], *, seed: int) -> list[StepRow]:
    """Copies with a filler phrase in front of some steps; the labels of the original."""
    edited = []
    for row in rows:
        rng = np.random.default_rng([seed, abs(hash_of(row.id))])
        steps = tuple(str(rng.choice(_FILLERS)) + s if rng.random() < 0.5 else s for s in row.steps)
        if steps != row.steps:
            edited.append(_copy(row, steps, row.labels, "neutral"))
    return edited


def is_neutral_copy(row: StepRow) -> bool:
    """Whether `neutral_edits` made it; `meta["edited"]` is then the id of its original."""
    return row.labeller.endswith("+neutral") and "edited" in row.meta


def hash_of(text: str) -> int:
    """The same on every machine."""
    return int(content_id(text), 16)


def _is_hex(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{1,16}", text) is not None


def _plant(row: StepRow, rng: np.random.Generator) -> StepRow | None:
    """Change one number of one right step; only before the first error, so that the plant is the first."""
    right = []
    for index, (step, label) in enumerate(zip(row.steps, row.labels, strict=True)):
        if label is None or label <= 0:
            break
        if _NUMBER.search(step):
            right.append(index)
    if not right:
        return None
    at = int(rng.choice(right))
    numbers = list(_NUMBER.finditer(row.steps[at]))
    chosen = numbers[int(rng.integers(len(numbers)))]
    value = int(chosen.group())
    changed = value + int(rng.choice([-2, -1, 1, 2])) if value > 2 else value + int(rng.integers(1, 3))
    text = row.steps[at][: chosen.start()] + str(changed) + row.steps[at][chosen.end() :]
    steps = (*row.steps[:at], text, *row.steps[at + 1 :])
    wrong = -1.0 if row.kind in ("three_way", "value") else 0.0
    labels = (*row.labels[:at], wrong, *([None] * (len(steps) - at - 1)))
    return _copy(row, steps, labels, "causal")


def _copy(row: StepRow, steps: tuple[str, ...], labels: tuple[float | None, ...], sort: str) -> StepRow:
    """A row of text alone: the tokens of the original are not those of the copy."""
    return dataclasses.replace(
        row,
        id=content_id(row.id, steps, sort),
        steps=steps,
        labels=labels,
        outcome=row.outcome if sort == "neutral" else None,
        token_ids=None,
        spans=None,
        prompt_len=0,
        labeller=f"{row.labeller}+{sort}",
        meta={**row.meta, "edited": row.id},
    )


def _is_verified(row: StepRow, checker: ExactPrmConfig) -> bool:
    found = label_by_exact(row, checker).first_error
    planted = next(i for i, label in enumerate(row.labels) if label is not None and label <= 0)
    return found == planted or label_by_exact(row, checker).labels[planted] == 0
