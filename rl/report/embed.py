"""What lets one file hold data and scripts safely: values that stay values, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def templates(folder: Path) -> Environment:
    """The page templates of a folder: every value is escaped, and one that is not given is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def embedded_json(value: Any) -> Markup:
    """JSON that can stand inside a script element: no character of it can end the element or begin a tag or a comment.

    Raises ValueError on a number that JSON does not know.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only: U+2028 is escaped as well
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def content_policy(scripts: Sequence[str]) -> str:
    """Content security policy of a page whose only scripts are these: no network, no other script, no form."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
