"""Labels by exact arithmetic: `prm.exact` on rows of text. A step that states nothing checkable has no label."""

from __future__ import annotations

import dataclasses
import math

from prm.config import ExactPrmConfig
from prm.data import StepRow
from prm.exact import StepTexts, judge_steps


def label_by_exact(row: StepRow, config: ExactPrmConfig) -> StepRow:
    """Hard labels. Claims that need computer algebra are left unlabelled here."""
    verdicts = judge_steps(config, StepTexts(prompt=row.question, steps=row.steps))
    labels = tuple(None if math.isnan(v.score) or v.pending else v.score for v in verdicts)
    return dataclasses.replace(row, labels=labels, kind="hard", labeller="exact")
