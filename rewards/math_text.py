"""The part of math verification that is bounded work on text and rational numbers, so that it may run unprotected.

It decides most answers. What only computer algebra can decide, and references that this grammar does not cover, are
left to `rewards.math_answer` inside a sandbox worker.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Hashable

from rewards.answer_match import Algebra, Matcher
from rewards.answer_shape import Shape, read_shape
from rewards.answer_text import find_answer, oversize
from rewards.expression import ReadError
from rewards.expression_value import TooLargeError
from rewards.outcome import Sample, judged, unparseable
from rollout.schema import Outcome

_ASKS_PERCENT = re.compile(r"\bper ?cent|percentage|%", re.IGNORECASE)
_ASKS_FORM = re.compile(r"\b(?:factor(?:ise|ize)?|expand)\b", re.IGNORECASE)
_MAX_PROMPT_CHARS = 20_000


def judge_text(sample: Sample) -> Outcome | None:
    """The verdict where no computer algebra is needed; None sends the sample to the sandbox."""
    return judge(sample, None)


def judge(sample: Sample, algebra: Algebra | None) -> Outcome | None:
    """The verdict, or None when the reference cannot be read here or when `algebra` is missing and needed."""
    gold = read_reference(sample.reference)
    if gold is None:
        return None
    found = find_answer(sample.answer)
    if found is None:
        return unparseable("no answer found")
    refused = oversize(found, sample.reference)
    if refused is not None:
        return unparseable(refused)
    matcher = Matcher(algebra=algebra, wants_percent=_asks(sample, _ASKS_PERCENT), wants_form=_asks(sample, _ASKS_FORM))
    try:
        same = matcher.match(gold, read_shape(found))
    except ReadError as error:
        return unparseable(f"cannot be read ({error}): {found[:80]!r}")
    except TooLargeError as error:
        return unparseable(str(error))
    if same is None:
        return None
    return judged(1.0) if same else judged(0.0, matcher.objection)


@functools.lru_cache(maxsize=4096)
def read_reference(reference: str) -> Shape | None:
    """The shape of a reference that can be judged against, None for one outside of this grammar."""
    if oversize(reference, reference) is not None:
        return None
    try:
        shape = read_shape(reference)
        return shape if Matcher().match(shape, shape) else None
    except (ReadError, TooLargeError):
        return None


def question_of(sample: Sample) -> Hashable:
    """All that the verdict depends on: two samples with the same question have the same verdict."""
    return (
        sample.reference,
        find_answer(sample.answer),
        _asks(sample, _ASKS_PERCENT),
        _asks(sample, _ASKS_FORM),
    )


def _asks(sample: Sample, pattern: re.Pattern[str]) -> bool:
    """Whether the question itself asks for it, such as for a percentage."""
    return any(message.role == "user" and _is_in(pattern, message.content) for message in sample.prompt)


@functools.lru_cache(maxsize=4096)  # siblings share their question
def _is_in(pattern: re.Pattern[str], content: str) -> bool:
    return pattern.search(content[-_MAX_PROMPT_CHARS:]) is not None
