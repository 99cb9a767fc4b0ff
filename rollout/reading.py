"""Where thinking and answer lie in a response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollout.render import Mark, Renderer
from rollout.schema import CharSpan, Int32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A mark in a response, in characters and in tokens.

    Tokens [0, first) hold what precedes the mark and tokens [after, N) what follows it. Where a token straddles an edge
    of the mark, it counts as the neighbor's.
    """

    chars: CharSpan
    first: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """A response with its marks. `num_body` is its number of tokens without a trailing end-of-sequence."""

    text: str
    char_ends: Int32Array  # [N]
    num_body: int
    opened: Located | None
    closed: Located | None

    @property
    def num_before(self) -> int:
        """Tokens before the thinking is opened; all of them if it never is."""
        return len(self.char_ends) if self.opened is None else self.opened.first

    @property
    def num_thinking(self) -> int:
        """Tokens of the thinking, forced ones included."""
        if self.opened is None:
            return 0
        end = self.num_body if self.closed is None else self.closed.first
        return max(0, end - self.opened.after)

    @property
    def thinking(self) -> CharSpan | None:
        """Characters inside the marks; None if the thinking was never opened."""
        if self.opened is None:
            return None
        start = self.opened.chars[1]
        return start, max(start, self._body_end) if self.closed is None else self.closed.chars[0]

    @property
    def answer(self) -> CharSpan | None:
        """Characters after the closing mark, or all if there is no thinking; None if it was never closed."""
        if self.opened is None:
            return 0, self._body_end
        if self.closed is None:
            return None
        start = self.closed.chars[1]
        return start, max(start, self._body_end)

    @property
    def _body_end(self) -> int:
        return int(self.char_ends[self.num_body - 1]) if self.num_body else 0


def read_response(ids: Sequence[int], renderer: Renderer) -> Reading:
    """Find the marks in a response: by id where a mark is one token, by text where the tokenizer spells it out.

    Only the first opening mark counts, and the first closing mark after it. A response that never opens its thinking is
    all answer; one that opens and never closes it has no answer.
    """
    text, ends = renderer.text_of(ids)
    opened: Located | None = None
    if renderer.is_prefilled:
        opened = Located(chars=(0, 0), first=0, after=0)
    elif renderer.format.has_thinking:
        opened = _find(renderer.opening, ids, text, ends, since=None)
    return Reading(
        text=text,
        char_ends=ends,
        num_body=len(ids) - (len(ids) > 0 and ids[-1] in renderer.eos_ids),
        opened=opened,
        closed=None if opened is None else _find(renderer.closing, ids, text, ends, since=opened),
    )


def _find(mark: Mark, ids: Sequence[int], text: str, ends: Int32Array, *, since: Located | None) -> Located | None:
    """The first place of a mark, after another one if given."""
    if mark.token_id is not None:
        try:
            at = ids.index(mark.token_id, 0 if since is None else since.after)
        except ValueError:
            return None
        return Located(chars=(int(ends[at - 1]) if at else 0, int(ends[at])), first=at, after=at + 1)
    start = text.find(mark.text, 0 if since is None else since.chars[1])
    if start < 0:
        return None
    end = start + len(mark.text)
    first = int(np.searchsorted(ends, start, side="left")) + 1 if start else 0
    return Located(chars=(start, end), first=first, after=int(np.searchsorted(ends, end, side="right")))
