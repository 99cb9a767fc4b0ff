"""Where the steps of a trajectory are: its thinking text cut once, into token spans that everyone else only reads.

The cut is made in the decoded text and mapped to tokens through `Trajectory.char_ends`, never by looking for a
separator token: tokenizers merge separators into their neighbors. A token that holds the end of one step and the
start of the next belongs to the first, whose separator it completes.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prm.config import BlankLineSplitter, NewlineSplitter, SeparatorSplitter
from rollout.schema import CharSpan, StepSpan, Trajectory

_SHORT = 1_000  # tokens
Splitter = NewlineSplitter | BlankLineSplitter | SeparatorSplitter

# What opens or closes a region that blank lines do not cut, and the blank lines themselves.
_MARKS = re.compile(r"```|\$\$|\\\[|\\\]|\n[ \t]*\n\s*")
_CLOSERS = {"```": "```", "$$": "$$", "\\[": "\\]"}


class Step(NamedTuple):
    """One step: its tokens, and its text without the separator and the space around it."""

    span: StepSpan
    text: str


def separator_of(splitter: Splitter) -> str:
    """The text that ends a step."""
    match splitter.type:
        case "newline":
            return "\n"
        case "blank_line":
            return "\n\n"
        case "separator":
            return splitter.separator


def split_steps(trajectory: Trajectory, splitter: Splitter, *, include_answer: bool = False) -> tuple[StepSpan, ...]:
    """Token spans of the steps, ordered and disjoint; see `cut_steps`."""
    return tuple(step.span for step in cut_steps(trajectory, splitter, include_answer=include_answer))


def cut_steps(trajectory: Trajectory, splitter: Splitter, *, include_answer: bool = False) -> tuple[Step, ...]:
    """Steps of the thinking text; with `include_answer` the whole answer text is one more.

    The closing mark of the thinking is a boundary and belongs to no step. A separator belongs to the step it ends.
    Steps of white space only are dropped. A step without a token of its own is joined to the one before it.
    """
    chars: list[CharSpan] = []
    if trajectory.thinking is not None:
        offset = trajectory.thinking[0]
        ends = _SPLITTERS[splitter.type](trajectory.thinking_text, splitter)
        start = offset
        for end in ends:
            chars.append((start, offset + end))
            start = offset + end
        chars.append((start, trajectory.thinking[1]))
    if include_answer and trajectory.answer is not None:
        chars.append(trajectory.answer)
    strip = splitter.separator if isinstance(splitter, SeparatorSplitter) else ""
    texts = [trajectory.text[start:end].strip().removesuffix(strip).strip() for start, end in chars]
    kept = [(span, text) for span, text in zip(chars, texts, strict=True) if text]
    return _with_tokens(trajectory, kept)


def _with_tokens(trajectory: Trajectory, pieces: list[tuple[CharSpan, str]]) -> tuple[Step, ...]:
    if not pieces:
        return ()
    prompt_len = trajectory.prompt_len
    ends: Sequence[int] = trajectory.char_ends[prompt_len:]  # type: ignore[assignment]
    if len(ends) <= _SHORT:  # a list is searched faster, but has to be made
        ends = ends.tolist()  # type: ignore[attr-defined]
    # `Trajectory.tokens_of` for all pieces.
    starts_at = [bisect_right(ends, start) + prompt_len for (start, _), _ in pieces]
    ends_at = [bisect_left(ends, end) + prompt_len + 1 for (_, end), _ in pieces]
    num_tokens = len(trajectory.token_ids)
    steps: list[Step] = []
    free = 0  # first token that belongs to no step yet
    for (_, text), start, end in zip(pieces, starts_at, ends_at, strict=True):
        start, end = max(start, free), min(end, num_tokens)
        if start < end:
            steps.append(Step(span=StepSpan(start=start, end=end), text=text))
            free = end
        elif steps:
            steps[-1] = Step(span=steps[-1].span, text=f"{steps[-1].text} {text}")
    return tuple(steps)


def _newlines(text: str, splitter: Splitter) -> Iterator[int]:
    return (match.end() for match in re.finditer("\n", text))


def _separators(text: str, splitter: Splitter) -> Iterator[int]:
    assert isinstance(splitter, SeparatorSplitter)
    return (match.end() for match in re.finditer(re.escape(splitter.separator), text))


def _blank_lines(text: str, splitter: Splitter) -> Iterator[int]:
    """Ends of blank lines outside code fences and display formulas. A region that is never closed protects nothing."""
    closer: str | None = None
    held: list[int] = []  # blank lines inside the region that is open
    for match in _MARKS.finditer(text):
        mark = match.group()
        if mark.isspace():
            if closer is None:
                yield match.end()
            else:
                held.append(match.end())
        elif closer is None:
            closer = _CLOSERS.get(mark)
        elif mark == closer:
            closer = None
            held.clear()
    yield from held


_SPLITTERS: dict[str, Callable[[str, Splitter], Iterator[int]]] = {
    "newline": _newlines,
    "separator": _separators,
    "blank_line": _blank_lines,
}
