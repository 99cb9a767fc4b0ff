"""Does the answer follow its instructions? 1 only when it follows all; the share followed is the part `pass_rate`.

The reference is JSON: a list of objects such as {"kind": "length_constraints:number_words", "num_words": 50,
"relation": "less than"}, or the two columns of the public sets, {"instruction_id_list": [...], "kwargs": [{...}, ...]},
where an argument that is null was not given. Kinds and their arguments: `KINDS`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from rewards.instructions import counting, layout
from rewards.outcome import Sample, judged, unjudged, unparseable
from rollout.schema import Outcome, Status

MAX_CHARS = 100_000
Check = Callable[..., bool]

KINDS: Mapping[str, Check] = MappingProxyType(
    {
        "keywords:existence": counting.existence,
        "keywords:frequency": counting.frequency,
        "keywords:forbidden_words": counting.forbidden,
        "keywords:letter_frequency": counting.letter_frequency,
        "length_constraints:number_words": counting.number_words,
        "length_constraints:number_sentences": counting.number_sentences,
        "length_constraints:number_paragraphs": counting.number_paragraphs,
        "length_constraints:nth_paragraph_first_word": counting.nth_paragraph_first_word,
        "change_case:capital_word_frequency": counting.capital_word_frequency,
        "change_case:english_capital": counting.all_capital,
        "change_case:english_lowercase": counting.all_lowercase,
        "punctuation:no_comma": counting.no_comma,
        "language:response_language": layout.response_language,
        "detectable_content:number_placeholders": layout.placeholders,
        "detectable_content:postscript": layout.postscript,
        "detectable_format:number_bullet_lists": layout.bullet_lists,
        "detectable_format:constrained_response": layout.constrained_response,
        "detectable_format:number_highlighted_sections": layout.highlighted_sections,
        "detectable_format:multiple_sections": layout.multiple_sections,
        "detectable_format:json_format": layout.json_format,
        "detectable_format:title": layout.title,
        "combination:two_responses": layout.two_responses,
        "combination:repeat_prompt": layout.repeat_prompt,
        "startend:end_checker": layout.end_checker,
        "startend:quotation": layout.quotation,
    }
)


class BadInstructionsError(ValueError):
    """A reference that is no list of instructions."""


def verify(sample: Sample) -> Outcome:
    """1 when every instruction is followed; the reason names those that are not."""
    try:
        checks = parse_instructions(sample.reference)
    except BadInstructionsError as error:
        return unjudged(Status.BAD_REFERENCE, str(error))
    answer = sample.answer.strip()
    if not answer:
        return unparseable("no answer")
    if len(answer) > MAX_CHARS:
        return unparseable(f"an answer of {len(answer)} characters, more than {MAX_CHARS}")
    failed = [kind for kind, check in checks if not check(answer)]
    share = 1.0 - len(failed) / len(checks)
    reason = f"not followed: {', '.join(failed)}" if failed else ""
    return Outcome(status=Status.JUDGED, score=float(not failed), parts={"pass_rate": share}, reason=reason)


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1 for instructions that can be checked."""
    try:
        return judged(1.0, f"{len(parse_instructions(sample.reference))} instructions")
    except BadInstructionsError as error:
        return unjudged(Status.BAD_REFERENCE, str(error))


def parse_instructions(reference: str) -> list[tuple[str, Callable[[str], bool]]]:
    """Kind and bound check of each instruction. Raises BadInstructionsError, saying what is wrong with which."""
    try:
        content = json.loads(reference)
    except (ValueError, RecursionError) as error:
        raise BadInstructionsError(f"the reference is not JSON: {str(error)[:120]}") from None
    rows = _from_columns(content) if isinstance(content, dict) and "instruction_id_list" in content else content
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInstructionsError("the reference must be a list of objects with a `kind`, and not be empty")
    return [_bound(dict(row)) for row in rows]


def _from_columns(content: dict[str, Any]) -> list[dict[str, Any]]:
    kinds, arguments = content["instruction_id_list"], content.get("kwargs")
    if not isinstance(kinds, list) or not isinstance(arguments, list) or len(kinds) != len(arguments):
        raise BadInstructionsError("`instruction_id_list` and `kwargs` must be lists of one length")
    return [{**(given or {}), "kind": kind} for kind, given in zip(kinds, arguments, strict=True)]


def _bound(row: dict[str, Any]) -> tuple[str, Callable[[str], bool]]:
    kind = row.pop("kind", None)
    if kind not in KINDS:
        raise BadInstructionsError(f"no such kind of instruction: {kind!r}; there are {', '.join(KINDS)}")
    check = KINDS[kind]
    given = {name: value for name, value in row.items() if value is not None}
    for name, parameter in list(inspect.signature(check).parameters.items())[1:]:
        value = given.get(name)
        if value is None and parameter.default is inspect.Parameter.empty:
            raise BadInstructionsError(f"{kind} needs the argument {name!r}")
        if parameter.annotation == "int" and name in given:
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not float(value).is_integer()
                or value < 0
            ):
                raise BadInstructionsError(f"{kind}: {name!r} must be a whole number, got {value!r}")
            given[name] = int(value)
    try:
        check("A trial.", **given)
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInstructionsError(f"{kind}: {error}") from None
    return kind, partial(check, **given)
