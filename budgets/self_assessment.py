"""What a response says about the task before it thinks: a difficulty tag, or whether it is going to think.

    AdaCtrl    [Easy]<think>...</think>answer            a tag, in any case, as the first characters of the response or
                                                         of its thinking
    Keye-VL    <analysis>... /no_think</analysis>answer  a short analysis that ends by naming the mode it goes on in

Sources: AdaCtrl (arXiv 2505.18822), Kwai Keye-VL (arXiv 2507.01949, auto-think).
"""

from __future__ import annotations

import re
from typing import Literal

from rollout.schema import CharSpan

Tag = Literal["easy", "hard"]
Decision = Literal["think", "no_think"]

_TAG = re.compile(r"\[(easy|hard)\]", re.IGNORECASE)
_DECISION = re.compile(r"\s*<analysis>.*?/(think|no_think)\s*</analysis>", re.DOTALL)


def tag_text(tag: Tag) -> str:
    """The tag as it is written: [Easy] or [Hard]."""
    return f"[{tag.capitalize()}]"


def tag_of(text: str, thinking: CharSpan | None) -> Tag | None:
    """The tag that the response or its thinking begins with, or None."""
    places = (0,) if thinking is None else (0, thinking[0])
    for place in places:
        if found := _TAG.match(text, place):
            return "easy" if found[1].lower() == "easy" else "hard"
    return None


def analysis_text(analysis: str, decision: Decision) -> str:
    """An analysis block that goes on in the mode `decision`."""
    return f"<analysis>{analysis} /{decision}</analysis>"


def decision_of(text: str) -> Decision | None:
    """The mode that a leading analysis names, or None where there is no analysis or it names none."""
    found = _DECISION.match(text)
    return None if found is None else "think" if found[1] == "think" else "no_think"
