"""Where each token ends in the decoded text.

A token of a byte-level vocabulary may hold only part of a character. Such a token ends where the last whole character
ends, and the token that completes the character takes it. The usual sequence holds none: then the text is the
concatenation of one remembered piece per token and the ends are a running sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from rollout.schema import Int32Array

REPLACEMENT = "\ufffd"  # what decoders put for bytes that are not, or not yet, a character


class TokenText:
    """Decodes token ids to a text and the end of each token in it, remembering the piece of every token it has seen."""

    def __init__(self, decode: Callable[[list[int]], str], anchor: int) -> None:
        """`decode` maps ids to text, special tokens kept. `anchor` is any id that decodes to whole characters.

        A piece is what a token adds after the anchor, because decoders drop or add a space at the start of a text.
        """
        self._decode = decode
        self._anchor = anchor
        self._anchor_text = decode([anchor])
        self._pieces: dict[int, str] = {}
        self._firsts: dict[int, str] = {}

    def __call__(self, ids: Sequence[int]) -> tuple[str, Int32Array]:
        """Return the text of `ids` and char_ends [N], the end of each token in it."""
        plain = [int(i) for i in ids]
        if not plain:
            return "", np.zeros(0, dtype=np.int32)
        text = self._decode(plain)
        pieces = [self._piece(i) for i in plain]
        pieces[0] = self._first(plain[0])
        ends = _running_ends(pieces)
        if REPLACEMENT not in text and "".join(pieces) == text:
            return text, ends
        pieces, ends = self._whole_runs(plain, pieces)
        if "".join(pieces) != text:  # a decoder whose tokens depend on more than their neighbor
            ends = self._by_prefixes(plain, text)
        return text, ends

    def _piece(self, token: int) -> str:
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._after_anchor([token])
        return piece

    def _first(self, token: int) -> str:
        """The piece of a token at the start of a text."""
        if token not in self._firsts:
            self._firsts[token] = self._decode([token])
        return self._firsts[token]

    def _after_anchor(self, ids: list[int]) -> str:
        return self._decode([self._anchor, *ids])[len(self._anchor_text) :]

    def _whole_runs(self, ids: list[int], pieces: list[str]) -> tuple[list[str], Int32Array]:
        """Decode each run of incomplete tokens as one; return the pieces of the text and the ends of all tokens."""
        texts: list[str] = []
        ends: list[int] = []
        position = 0
        for is_incomplete, run in groupby(range(len(ids)), key=lambda t: REPLACEMENT in pieces[t]):
            tokens = list(run)
            if not is_incomplete:
                for t in tokens:
                    position += len(pieces[t])
                    ends.append(position)
                    texts.append(pieces[t])
                continue
            run_ids = ids[tokens[0] : tokens[-1] + 1]
            decode = self._decode if tokens[0] == 0 else self._after_anchor
            whole = decode(run_ids)
            ends.extend(int(position + end) for end in _stable_ends(decode, run_ids, whole))
            position += len(whole)
            texts.append(whole)
        return texts, np.asarray(ends, dtype=np.int32)

    def _by_prefixes(self, ids: list[int], text: str) -> Int32Array:
        return np.asarray(_stable_ends(self._decode, ids, text), dtype=np.int32)


def _running_ends(pieces: Sequence[str]) -> Int32Array:
    return np.cumsum(np.fromiter(map(len, pieces), dtype=np.int32, count=len(pieces)), dtype=np.int32)


def _stable_ends(decode: Callable[[list[int]], str], ids: list[int], text: str) -> list[int]:
    """For each prefix of `ids`, how many characters of `text` it already fixes. The last one takes the rest."""
    ends: list[int] = []
    for count in range(1, len(ids)):
        prefix = decode(ids[:count])
        agreed = next((i for i, (a, b) in enumerate(zip(prefix, text, strict=False)) if a != b), None)
        end = min(len(prefix), len(text)) if agreed is None else agreed
        ends.append(max(end, ends[-1] if ends else 0))
    return [*ends, len(text)]
