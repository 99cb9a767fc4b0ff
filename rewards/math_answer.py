r"""Mathematical equality of answer and reference, by math-verify and sympy. Runs only inside a sandbox worker.

Order: plain numbers and words are compared as text; hostile answers are refused; then both sides are parsed as LaTeX
(never as Python, which sympy's own parser would execute) and compared. math-verify's own time limits are off: they
rest on signals, and the process is killable. What it accepts too easily is looked at again, see `_objection`.

Known to be accepted: `x^2-1` for `(x-1)(x+1)`, so a "factor this" task needs another verifier; and 10% for 10.
"""

from __future__ import annotations

import logging
import re

import sympy
from math_verify import LatexExtractionConfig, parse
from math_verify import verify as equal

from rewards.answer_text import find_answer, is_words, judge_numbers, normalize, read_number, refusal
from rewards.outcome import Sample, judged, unjudged, unparseable
from rollout.schema import Outcome, Status

# Both warn on every call that their time limits are off, which is on purpose here.
for _name in ("math_verify.parser", "math_verify.grader"):
    logging.getLogger(_name).setLevel(logging.ERROR)

_LATEX = (LatexExtractionConfig(boxed_match_priority=0),)
_RELATIVE_TOLERANCE = sympy.Rational(1, 10**9)
_ELLIPSIS = re.compile(r"\\[lcd]?dots|\.\.\.|\\forall|\\exists")
_BASE = re.compile(r"\d_\{?(\d+)\}?$")
_UNIT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{\s*([A-Za-z. ]+?)\s*\}\s*(?:\^\{?(\d)\}?)?$")
_ROOT_CALL = re.compile(r"\\sqrt\(([^()]*)\)")
_BARE_ROMAN = re.compile(r"\\mathrm\s+([A-Za-z])")
_CONTAINERS = {"(": ")", "[": "]", "\\{": "\\}"}


def verify(sample: Sample) -> Outcome:
    """1 when the answer equals the reference, 0 when not; UNPARSEABLE_ANSWER without a usable answer."""
    early = judge_numbers(sample)
    if early is not None:
        return early
    only_spelling = _ELLIPSIS.search(sample.reference) is not None
    gold = None if only_spelling else _parse(sample.reference)
    if gold is None and not only_spelling:
        return unjudged(Status.BAD_REFERENCE, f"cannot be parsed: {sample.reference[:80]!r}")
    found = find_answer(sample.answer)
    if found is None:
        return unparseable("no answer found")
    if normalize(found) == normalize(sample.reference):
        return judged(1.0)
    refused = refusal(found, sample.reference)
    if refused is not None:
        return unparseable(refused)
    if gold is None or _ELLIPSIS.search(found):
        return judged(0.0, "spelled otherwise, and computer algebra cannot compare it")
    return _compare(sample.reference, gold, found)


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1 when the reference can be parsed and equals itself, BAD_REFERENCE otherwise."""
    reference = sample.reference.strip()
    if not reference:
        return unjudged(Status.BAD_REFERENCE, "the reference is empty")
    refused = refusal(reference, reference)
    if refused is not None:
        return unjudged(Status.BAD_REFERENCE, f"{refused}: {reference[:80]!r}")
    normalized = normalize(reference)
    if read_number(normalized) is not None or is_words(normalized) or _ELLIPSIS.search(reference):
        return judged(1.0)
    gold = _parse(reference)
    if gold is None:
        return unjudged(Status.BAD_REFERENCE, f"cannot be parsed: {reference[:80]!r}")
    if not _is_equal(gold, gold):
        return unjudged(Status.BAD_REFERENCE, f"does not equal itself: {reference[:80]!r}")
    return judged(1.0)


def _parse(expression: str) -> list[object] | None:
    """math-verify's reading of a bare LaTeX expression: [sympy object, string], or None when it finds nothing.

    The sympy object is what proves that it was read; the string alone is only the text given back.
    """
    cleaned = _ROOT_CALL.sub(r"\\sqrt{\1}", _BARE_ROMAN.sub(r"\1", expression.strip()))
    cleaned = cleaned.replace("\\mathrm{e}", "e").strip("$")
    parsed: list[object] = parse(f"\\boxed{{{cleaned}}}", extraction_config=_LATEX, parsing_timeout=None)
    return parsed if any(not isinstance(item, str) for item in parsed) else None


def _is_equal(gold: list[object], answer: list[object]) -> bool:
    return bool(equal(gold, answer, timeout_seconds=None, raise_on_error=True))


def _compare(reference: str, gold: list[object], found: str) -> Outcome:
    answer = _parse(found)
    if answer is None:
        return unparseable(f"cannot be parsed: {found[:80]!r}")
    try:
        same = _is_equal(gold, answer)
    except MemoryError:
        raise
    # Whatever sympy raises on this pair: the reference was parsed, so the answer is what cannot be compared with it.
    except Exception as error:  # noqa: BLE001
        return unparseable(f"cannot be compared ({type(error).__name__}): {found[:80]!r}")
    if not same:
        return judged(0.0)
    objection = _objection(reference, gold, found, answer)
    return judged(0.0, objection) if objection else judged(1.0)


def _objection(reference: str, gold: list[object], found: str, answer: list[object]) -> str | None:
    """Why an equality that math-verify granted does not hold, or None.

    It compares numbers rounded to six decimals (so 1/2004! equals 1/2006!), reads a tuple and a set alike, and drops
    bases and units.
    """
    wanted, got = gold[0], answer[0]
    if isinstance(wanted, sympy.Expr) and isinstance(got, sympy.Expr) and wanted.is_number and got.is_number:
        difference = abs(sympy.N(wanted - got, 30))
        if difference > _RELATIVE_TOLERANCE * abs(sympy.N(wanted, 30)):
            return "differs beyond rounding"
    if _container(reference) and _container(found) and _container(reference) != _container(found):
        return "another kind of brackets"
    base, other = _BASE.search(normalize(reference)), _BASE.search(normalize(found))
    if base is not None and (other is None or other[1] != base[1]):
        return "another base"
    unit, given = _UNIT.search(reference), _UNIT.search(found)
    if unit is not None and given is not None and _spelling(unit) != _spelling(given):
        return "another unit"
    return None


def _spelling(unit: re.Match[str]) -> tuple[str, str | None]:
    """A unit's name and power."""
    return unit[1].casefold(), unit[2]


def _container(expression: str) -> str | None:
    """The outermost pair of brackets around a list, such as '()' or '[)'; None for anything else."""
    normalized = normalize(expression)
    opening = next((mark for mark in _CONTAINERS if normalized.startswith(mark)), None)
    closing = next((mark for mark in _CONTAINERS.values() if normalized.endswith(mark)), None)
    if opening is None or closing is None or "," not in normalized:
        return None
    return opening + closing
