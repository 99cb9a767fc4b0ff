"""Tables in Markdown files of results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A name and numbers in each row. Names are made plain here, headings and numbers are taken as they are."""
    lines = [headings, ["---", *(["---:"] * (len(headings) - 1))], *([plain(name), *rest] for name, *rest in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(text: str) -> str:
    """Names come from the command line, recipes and data: nothing in them may end a cell or become markup."""
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
