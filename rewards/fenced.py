"""Fenced blocks of Markdown, read line by line."""

from __future__ import annotations

import re
from typing import NamedTuple

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([\w+.#-]*)[^`]*")


class Block(NamedTuple):
    """Content with its line ends, and the label after the opening fence in small letters."""

    label: str
    content: str


def last_block(text: str) -> Block | None:
    """The last fenced block; None when there is none, or when the last one is never closed."""
    last: Block | None = None
    fence, label = "", ""
    lines: list[str] = []
    for line in text.splitlines():
        mark = _FENCE.fullmatch(line)
        if not fence:
            if mark is not None:
                fence, label, lines = mark[1], mark[2].casefold(), []
        elif mark is not None and mark[1].startswith(fence) and not mark[2]:
            last = Block(label, "".join(f"{line}\n" for line in lines))
            fence = ""
        else:
            lines.append(line)
    return None if fence else last
