"""Multiple choice: the letter or letters that an answer settles on.

The reference is a letter, or several ("A, C"): then exactly these are wanted. `meta["options"]` may hold the texts of
the options, as a list or by letter; then an answer may also name its option by the whole text.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any

from rewards.answer_text import last_boxed
from rewards.outcome import Sample, judged, unjudged, unparseable
from rewards.settings import ChoiceSettings
from rollout.schema import Outcome, Status

_TAIL_CHARS = 2_000
_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\b|[*_`${}]")
_LETTERS = re.compile(r"\(?\[?([A-Za-z])\]?\)?(?:(?: ?[,;&/] ?| and | or )(?:and |or )?\(?\[?([A-Za-z])\]?\)?)*\.?")
_LABELLED = re.compile(r"\(?\[?([A-Z])(?:\]?\)[.:]?|[.:]) .*", re.DOTALL)
_SAID = re.compile(
    r"\b(?i:answers?|choices?|options?)\b(?: +(?:is|are|should be|would be|must be))? ?[:=]? ?"
    r"((?:\(?\[?[A-Z]\]?\)?(?![\w'])(?: ?[,;&/] ?| and | or )?)+)"
)


def verify(sample: Sample) -> Outcome:
    """1 when the letters found are exactly the wanted ones."""
    settings = ChoiceSettings.model_validate(sample.settings)
    options = _options(sample.meta.get("options"))
    known = frozenset(options or settings.letters)
    wanted = letters_in(sample.reference.strip(), options)
    if wanted is None or not wanted <= known:
        return unjudged(
            Status.BAD_REFERENCE, f"not one or more of the letters {''.join(sorted(known))}: {sample.reference[:80]!r}"
        )
    found = find_choice(sample.answer, options)
    if found is None:
        return unparseable("no letter that could be the choice")
    if not found <= known:
        return unparseable(f"there is no option {', '.join(sorted(found - known))}")
    return judged(float(found == wanted))


def find_choice(answer: str, options: Mapping[str, str]) -> frozenset[str] | None:
    """Letters of the last box; else of the last "the answer is"; else of the last line, when that is nothing more."""
    tail = answer[-_TAIL_CHARS:].strip()
    boxed = last_boxed(tail)
    if boxed is not None or "\\boxed" in tail:
        return letters_in(boxed or "", options)
    plain = _MARKUP.sub("", tail)
    said = _SAID.findall(plain)
    if said:
        return letters_in(said[-1], options)
    lines = plain.splitlines()
    return letters_in(lines[-1].strip(), options) if lines else None


def letters_in(text: str, options: Mapping[str, str]) -> frozenset[str] | None:
    """The letters that `text` consists of: "B", "(b)", "A, C", "B) Paris", or an option's whole text; else None."""
    plain = _MARKUP.sub("", text).strip()
    if _LETTERS.fullmatch(plain):
        return frozenset(re.findall(r"\b[A-Z]\b", plain.upper()))
    labelled = _LABELLED.fullmatch(plain)
    if labelled is not None:
        return frozenset(labelled[1])
    same = [letter for letter, option in options.items() if option.casefold() == plain.rstrip(".").casefold()]
    return frozenset(same) if len(same) == 1 else None


def _options(value: Any) -> dict[str, str]:
    """Option texts by letter. Nothing for what is neither a list nor a mapping: then the letters alone decide."""
    if isinstance(value, Mapping):
        return {str(letter).upper(): str(text).strip() for letter, text in value.items() if text is not None}
    if isinstance(value, list | tuple) and len(value) <= len(string.ascii_uppercase):
        return dict(zip(string.ascii_uppercase, (str(text).strip() for text in value), strict=False))
    return {}
