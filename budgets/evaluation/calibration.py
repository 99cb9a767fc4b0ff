"""Self-assessed difficulty against measured difficulty.

A response may begin with a tag of its own, see `budgets.self_assessment`. Measured is the success rate p of other
attempts at the task (see `difficulty.success_elsewhere`); a task
counts as easy where p > 0.625. Tag and threshold: AdaCtrl (arXiv 2505.18822). Reported, over tagged attempts with a
measured p:

    agreement    share whose tag equals the measured label
    correlation  Pearson correlation of (tag is easy) with p; NaN if either does not vary
    accuracy     of the attempts under each tag, and their thinking tokens

What it is not: a stated probability. A tag has two values, so a reliability curve has two points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from budgets.evaluation.attempt import Attempt
from budgets.evaluation.intervals import number
from budgets.self_assessment import tag_of

EASY_ABOVE = 0.625


def calibration(attempts: Sequence[Attempt], measured: Sequence[float]) -> dict[str, Any] | None:
    """All figures of one mode, `measured` [n] beside its attempts; None where no attempt has a tag."""
    seen = [(a, tag_of(a.text, a.thinking), p) for a, p in zip(attempts, measured, strict=True) if a.has_response]
    tagged = [(a, tag, p) for a, tag, p in seen if tag is not None]
    if not tagged:
        return None
    placed = [(tag == "easy", p) for _, tag, p in tagged if not np.isnan(p)]
    easy, rates = np.asarray([e for e, _ in placed], dtype=float), np.asarray([p for _, p in placed])
    varies = len(placed) > 1 and easy.std() > 0 and rates.std() > 0
    return {
        "tagged": number(len(tagged) / len(seen)),
        "agreement": number(float(np.mean(easy == (rates > EASY_ABOVE)))) if placed else None,
        "correlation": number(float(np.corrcoef(easy, rates)[0, 1])) if varies else None,
        "by_tag": {tag: _of_tag([a for a, other, _ in tagged if other == tag]) for tag in ("easy", "hard")},
    }


def _of_tag(attempts: Sequence[Attempt]) -> dict[str, Any]:
    verdicts = [a.correct for a in attempts if a.correct is not None]
    return {
        "num_attempts": len(attempts),
        "accuracy": number(float(np.mean(verdicts))) if verdicts else None,
        "thinking_tokens": number(float(np.mean([a.thinking_tokens for a in attempts]))) if attempts else None,
    }
