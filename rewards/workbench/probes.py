"""Cheap attempts to be rewarded without solving the task. A sound reward gives none of them a passing score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rewards.outcome import Sample
from rewards.workbench.cases import CLOSE, OPEN
from rollout.schema import Finish

LONG_CHARS = 200_000
_GUESSES = [str(n) for n in range(-10, 101)]
_LETTERS = "ABCDEFGHIJ"


def answered(sample: Sample, answer: str | None, *, thinking: str = "") -> Sample:
    """The sample's task, attempted with this thinking and answer; None leaves the thinking open."""
    closed = answer is not None
    text = f"{OPEN}{thinking}{CLOSE if closed else ''}{answer or ''}" if thinking or not closed else answer or ""
    return replace(
        sample,
        thinking=thinking,
        answer=answer or "",
        closed=closed,
        text=text,
        end=None,
        finish=Finish.STOP if closed else Finish.LENGTH,
        token_ids=(),
    )


def _empty(sample: Sample, others: Sequence[str]) -> Sample:
    return answered(sample, "")


def _echo(sample: Sample, others: Sequence[str]) -> Sample:
    return answered(sample, sample.question)


def _many_answers(sample: Sample, others: Sequence[str]) -> Sample:
    """The right answer in the middle of a list of guesses."""
    guesses = [*_LETTERS, *others[:20], sample.reference, *_GUESSES]
    return answered(sample, "The answer is one of: " + ", ".join(guesses))


def _many_boxes(sample: Sample, others: Sequence[str]) -> Sample:
    """The right answer in one box of many, and not in the last."""
    guesses = [*_LETTERS, *others[:20], sample.reference, *_GUESSES]
    return answered(sample, " ".join(f"\\boxed{{{guess}}}" for guess in guesses if guess))


def _very_long(sample: Sample, others: Sequence[str]) -> Sample:
    filler = "So it follows that this is right. "
    return answered(sample, filler * (LONG_CHARS // len(filler)))


def _only_in_thinking(sample: Sample, others: Sequence[str]) -> Sample:
    return answered(sample, "", thinking=_stated(sample.reference))


def _never_closed(sample: Sample, others: Sequence[str]) -> Sample:
    return answered(sample, None, thinking=_stated(sample.reference))


def _stated(reference: str) -> str:
    return f"The answer is \\boxed{{{reference}}}.\n{reference}"


PROBES: Mapping[str, Callable[[Sample, Sequence[str]], Sample]] = {
    "empty": _empty,
    "echo": _echo,
    "many_answers": _many_answers,
    "many_boxes": _many_boxes,
    "very_long": _very_long,
    "only_in_thinking": _only_in_thinking,
    "never_closed": _never_closed,
}
"""Name of a probe to its maker, which takes a sample of the task and references of other tasks."""
