"""Leaks: thinking that goes on in the answer, where no budget counts it.

An answer leaks if it holds a keyword of reflection ("wait", "let me think", ...) as whole words in any case, or opens
the thinking again. Source: the leak term of ThinkDial (arXiv 2508.18773). What it is not: an unclosed thinking, which
has no answer and is reported as such; and a keyword quoted from the question counts too, so the rate of a mode without
thinking is the level to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence

from budgets.evaluation.attempt import Attempt
from budgets.shaping.thinkdial import keyword_pattern


class LeakDetector:
    """Says whether an answer goes on thinking."""

    def __init__(self, keywords: Sequence[str], *, opening: str | None) -> None:
        self._pattern = keyword_pattern(keywords) if keywords else None
        self._opening = opening

    def leaks(self, attempt: Attempt) -> bool | None:
        """None without an answer."""
        if attempt.answer is None:
            return None
        answer = attempt.answer_text
        reopened = self._opening is not None and self._opening in answer
        return reopened or (self._pattern is not None and self._pattern.search(answer) is not None)
