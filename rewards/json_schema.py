"""Answers in JSON: the last fenced block, or else the whole answer, must fit the schema that is the task's reference.

Strict JSON only: no repeated keys, no NaN. A schema may not point to another document; nothing is fetched.
"""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable

from rewards.fenced import last_block
from rewards.outcome import Sample, judged, unjudged, unparseable
from rollout.schema import Outcome, Status

MAX_CHARS = 100_000


class _BadSchemaError(ValueError):
    """A reference that is no schema."""


def verify(sample: Sample) -> Outcome:
    """1 for a fitting answer; the reason names the first place that does not fit."""
    try:
        validator = _validator(sample.reference)
    except _BadSchemaError as error:
        return unjudged(Status.BAD_REFERENCE, str(error))
    block = last_block(sample.answer)
    text = sample.answer.strip() if block is None else block.content
    if len(text) > MAX_CHARS:
        return unparseable(f"an answer of {len(text)} characters, more than {MAX_CHARS}")
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return unparseable(f"not JSON: {str(error)[:120]}")
    try:
        mistake = next(iter(validator.iter_errors(value)), None)
    except Unresolvable as error:
        return unjudged(Status.BAD_REFERENCE, f"the schema points to what it does not hold: {str(error)[:120]}")
    except RecursionError:
        return unparseable("nested too deeply")
    if mistake is None:
        return judged(1.0)
    return judged(0.0, f"{mistake.json_path}: {mistake.message[:200]}")


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1 for a schema that is one."""
    try:
        _validator(sample.reference)
    except _BadSchemaError as error:
        return unjudged(Status.BAD_REFERENCE, str(error))
    return judged(1.0)


def _validator(reference: str) -> Validator:
    try:
        schema = json.loads(reference)
        if not isinstance(schema, dict) or not schema:
            raise _BadSchemaError("a schema must be a JSON object that asks for something")
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
    except SchemaError as error:
        raise _BadSchemaError(f"not a JSON schema: {error.json_path}: {error.message[:200]}") from None
    except (ValueError, RecursionError) as error:
        raise _BadSchemaError(f"not a JSON schema: {str(error)[:200]}") from None
    return kind(schema)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
