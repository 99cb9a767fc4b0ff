"""The tests of a task, from JSON. Never pickle: what a data set carries must not run here.

Two layouts are read, which between them cover the public sets:

    {"inputs": [...], "outputs": [...], "fn_name": "add"}          lists side by side; without `fn_name` stdin/stdout
    [{"input": ..., "output": ..., "fn_name": "add"}, ...]         one object a test (also under "test_cases")

A stdin test has texts (or lists of lines). A function test has the list of arguments and the value they must give, or
both as text: one JSON value a line for the arguments, one for the value.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAX_CASES = 1_000


class BadTestsError(ValueError):
    """A reference that is no list of tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test. With `function` None, `given` is the text of stdin and `expected` that of stdout; otherwise `given` is
    the list of arguments and `expected` the value. `may_be_wrapped`: a one-element list may stand for its element."""

    given: Any
    expected: Any
    function: str | None = None
    may_be_wrapped: bool = False


def parse_cases(reference: str) -> tuple[Case, ...]:
    """The tests in a task's reference. Raises BadTestsError, saying what is wrong with which."""
    try:
        content = json.loads(reference)
    except (ValueError, RecursionError) as error:
        raise BadTestsError(f"the reference is not JSON: {error}") from None
    if isinstance(content, dict) and "test_cases" in content:
        content = content["test_cases"]
    rows = _side_by_side(content) if isinstance(content, dict) else content
    if not isinstance(rows, list) or not rows:
        raise BadTestsError("the reference holds no tests: it needs `inputs` and `outputs`, or a list of objects")
    if len(rows) > MAX_CASES:
        raise BadTestsError(f"{len(rows)} tests, more than {MAX_CASES}")
    cases = [_case(number, row) for number, row in enumerate(rows)]
    if all(c.function and isinstance(c.expected, list) and len(c.expected) == 1 for c in cases):
        # Some sets wrap every value in a list; where all are, nothing tells which is meant, so both pass.
        cases = [Case(given=c.given, expected=c.expected, function=c.function, may_be_wrapped=True) for c in cases]
    return tuple(cases)


def _side_by_side(content: dict[str, Any]) -> list[dict[str, Any]]:
    inputs, outputs = content.get("inputs"), content.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise BadTestsError("`inputs` and `outputs` must be lists of one length")
    name = content.get("fn_name")
    return [{"input": given, "output": out, "fn_name": name} for given, out in zip(inputs, outputs, strict=True)]


def _case(number: int, row: Any) -> Case:
    if not isinstance(row, dict) or "input" not in row or "output" not in row:
        raise BadTestsError(f"test {number} is not an object with `input` and `output`")
    name = row.get("fn_name") or None
    if name is None:
        if row.get("testtype") == "functional" or row.get("type") == "function_call":
            raise BadTestsError(f"test {number} calls a function but names none in `fn_name`")
        return Case(given=_text(number, row["input"]), expected=_text(number, row["output"]))
    if not isinstance(name, str) or not name.isidentifier():
        raise BadTestsError(f"test {number}: `fn_name` must be a name, got {name!r}")
    given, expected = row["input"], row["output"]
    if isinstance(given, str):
        given, expected = _from_text(number, given, expected)
    if not isinstance(given, list):
        raise BadTestsError(f"test {number}: `input` of a function test must be the list of its arguments")
    return Case(given=given, expected=expected, function=name)


def _from_text(number: int, given: str, expected: Any) -> tuple[list[Any], Any]:
    try:
        arguments = [json.loads(line) for line in given.splitlines() if line.strip()]
        return arguments, json.loads(expected) if isinstance(expected, str) else expected
    except (ValueError, RecursionError) as error:
        raise BadTestsError(f"test {number}: arguments and value given as text must be JSON: {error}") from None


def _text(number: int, value: Any) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise BadTestsError(
            f"test {number}: stdin and stdout must be texts, got {type(value).__name__}; a function test names its "
            "function in `fn_name`"
        )
    return value
