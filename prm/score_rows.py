"""Scores of labelled rows, for evaluation: by a model directory, or by exact arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prm.config import ExactPrmConfig
from prm.data import StepRow
from prm.evaluate import Scores
from prm.exact import StepTexts, judge_steps
from prm.items import ScoreItem
from prm.train_examples import item_of_row

_CHUNK = 256  # rows between two reports


def score_exactly(rows: Sequence[StepRow], config: ExactPrmConfig) -> list[Scores]:
    """1 right, 0 wrong, NaN where nothing can be checked, or only with computer algebra."""
    found = []
    for row in rows:
        verdicts = judge_steps(config, StepTexts(prompt=row.question, steps=row.steps))
        found.append(np.array([np.nan if v.pending else v.score for v in verdicts], np.float32))
    return found


def score_with_model(
    rows: Sequence[StepRow], path: str, *, reference: str | None, advance: Callable[[int], None], **machine: Any
) -> list[Scores]:
    """Scores of a directory that `ponder prm train` wrote, or of a released classifier of Qwen's kind.

    Implicit scores are the cumulative values at the ends of steps. `machine`: device, dtype, batch_tokens, max_tokens.
    Raises ValueError when the directory is neither, or an implicit model comes without its reference.
    """
    from transformers import AutoTokenizer

    from prm.models.backbone import read_settings
    from prm.models.config import DiscriminativePrmConfig, ImplicitPrmConfig, ValuePrmConfig
    from prm.models.scorer import LearnedConfig, load_scorer

    settings = read_settings(path)
    kind = settings.get("kind", "discriminative")
    config: LearnedConfig
    if kind == "implicit":
        if reference is None:
            raise ValueError(f"{path} is an implicit model: name the model that it was trained from as its reference")
        config = ImplicitPrmConfig(path=path, reference=reference, beta=settings["beta"], kind="q", **machine)
    elif kind == "value":
        config = ValuePrmConfig(path=path, **machine)
    else:
        config = DiscriminativePrmConfig(path=path, input="tokens" if settings else "chat", **machine)
    tokenizer = AutoTokenizer.from_pretrained(path)
    scorer = load_scorer(config)
    found: list[Scores] = []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        items = [
            item_of_row(row, tokenizer, joiner=settings["joiner"]) if settings else _text_only(row) for row in chunk
        ]
        found += [answer.scores for answer in scorer.score(items)]
        advance(len(chunk))
    return found


def _text_only(row: StepRow) -> ScoreItem:
    """For a model that reads the text: a place per step, no tokens."""
    return ScoreItem(
        token_ids=np.zeros(0, np.int32),
        sampled=np.zeros(0, np.bool_),
        spans=tuple((index, index + 1) for index in range(len(row.steps))),
        messages=row.messages,
        steps=row.steps,
    )
