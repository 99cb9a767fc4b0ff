"""What happens in the process of one test: run the program, or call its function and write what it returned.

The program shares this process and may change anything in it. That gains it nothing: it can only change what is sent
out, and what is wanted is compared outside.
"""

from __future__ import annotations

import json
import sys
import types
from typing import Any

RESULT_DESCRIPTOR = 3
# Signatures of puzzle sites use these names without importing them.
_PRELUDE = (
    "from typing import *\nfrom collections import *\nimport math, itertools, functools, heapq, bisect, re, string\n"
)


def run(program: str, function: str | None) -> None:
    """Run `program` as a script, or import it and call `function` with the JSON list of arguments on stdin.

    Raises whatever the program raises, SystemExit included; the caller lets it end the process.
    """
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["program.py"]
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    if function is None:
        exec(compile(program, "program.py", "exec"), module.__dict__)
        return
    arguments = json.load(sys.stdin)
    module.__name__ = "program"  # a guarded main part does not run
    exec(_PRELUDE, module.__dict__)
    exec(compile(program, "program.py", "exec"), module.__dict__)
    value = _find(module.__dict__, function)(*arguments)
    with open(RESULT_DESCRIPTOR, "w", encoding="utf-8") as result:
        json.dump(value, result, default=_as_json)


def _find(names: dict[str, Any], function: str) -> Any:
    """The function itself, or the method of that name of a class `Solution`."""
    if function in names:
        return names[function]
    if "Solution" in names:
        return getattr(names["Solution"](), function)
    raise NameError(f"neither a function {function!r} nor a class Solution is defined")


def _as_json(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    return list(value)  # a deque, a range, a generator
