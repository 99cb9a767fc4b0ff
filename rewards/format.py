"""The response must close its thinking and then answer.

A thinking cap that closed the thinking by force counts as closed: how long to think is a matter of budgets, not of
format.
"""

from __future__ import annotations

from rewards.outcome import Sample, judged
from rollout.schema import Outcome


def verify(sample: Sample) -> Outcome:
    """1 when there is an answer after the closing mark, 0 otherwise."""
    if not sample.closed:
        return judged(0.0, "the thinking was never closed")
    if not sample.answer.strip():
        return judged(0.0, "nothing after the thinking")
    return judged(1.0)
