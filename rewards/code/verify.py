"""Programs: the last fenced block of an answer, run against the tests of its task. 1 only when every test passes.

A share of passed tests would pay for printing a constant, so it is kept beside the score (`pass_rate`), not in it.
Runs inside a sandbox worker; the program itself runs in a jail of its own (`rewards.code.runner`), which never sees
what a test expects.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from rewards.code import syscalls
from rewards.code.cases import BadTestsError, Case, parse_cases
from rewards.code.compare import is_same_output, is_same_value
from rewards.code.runner import Bounds, End, Isolation, Jail, JailError, Run
from rewards.fenced import last_block
from rewards.outcome import Sample, judged, unjudged, unparseable
from rewards.settings import CodeSettings
from rollout.schema import Outcome, Status

MAX_PROGRAM_CHARS = 65_536
_LANGUAGES = frozenset({"", "python", "python3", "py", "py3"})


def verify(sample: Sample) -> Outcome:
    """1 when all tests pass, 0 otherwise; parts: `pass_rate`, `namespaces` (1 where they keep the program in)."""
    settings = CodeSettings.model_validate(sample.settings)
    try:
        cases = parse_cases(sample.reference)
    except BadTestsError as error:
        return unjudged(Status.BAD_REFERENCE, str(error))
    program = find_program(sample.answer)
    if program is None:
        return unparseable("no closed fenced block of Python at the end of the answer")
    if len(program) > MAX_PROGRAM_CHARS:
        return unparseable(f"a program of {len(program)} characters, more than {MAX_PROGRAM_CHARS}")
    return judge_program(program, cases, settings)


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1 when the tests can be read and, where `meta["solution"]` holds a program, when that passes them."""
    try:
        cases = parse_cases(sample.reference)
    except BadTestsError as error:
        return unjudged(Status.BAD_REFERENCE, str(error))
    solution = sample.meta.get("solution")
    if not isinstance(solution, str) or not solution:
        return judged(1.0, f"{len(cases)} tests, and no solution to try them with")
    return judge_program(find_program(solution) or solution, cases, CodeSettings.model_validate(sample.settings))


def find_program(answer: str) -> str | None:
    """Content of the last fenced block, if it is closed and its label is none or Python."""
    block = last_block(answer)
    return block.content if block is not None and block.label in _LANGUAGES and block.content.strip() else None


@dataclass(slots=True)
class _Tally:
    passed: int = 0
    failure: str = ""

    def fail(self, number: int, why: str) -> None:
        self.failure = self.failure or f"test {number}: {why}"


def judge_program(program: str, cases: tuple[Case, ...], settings: CodeSettings) -> Outcome:
    """Run every test until one breaks the jail's limits. A jail that cannot be built leaves the program unjudged."""
    if settings.isolation == "limits":
        syscalls.hide_memory()  # what the tests expect is in this process, and the program can see that there is one
    deadline = time.monotonic() + settings.max_total_seconds
    tally = _Tally()
    try:
        with _jail(program, settings) as jail:
            for number, case in enumerate(cases):
                left = deadline - time.monotonic()
                if left <= 0:
                    tally.fail(number, f"not reached within {settings.max_total_seconds:g} s")
                    break
                stdin = case.given if case.function is None else json.dumps(case.given)
                run = jail.run(stdin.encode(errors="replace"), function=case.function, max_seconds=left)
                why = _why_failed(run, case, settings)
                if why is None:
                    tally.passed += 1
                    continue
                tally.fail(number, why)
                if run.end is not End.EXITED or settings.stop_at_first_failure:
                    break
    except JailError as error:
        return unjudged(
            Status.CRASH,
            f'{error}; `isolation = "limits"` in the settings of `code` does without namespaces, see '
            "docs/code_rewards.md",
        )
    parts = {"pass_rate": tally.passed / len(cases), "namespaces": float(settings.isolation == "namespaces")}
    score = float(tally.passed == len(cases))
    return Outcome(status=Status.JUDGED, score=score, parts=parts, reason=tally.failure)


def _jail(program: str, settings: CodeSettings) -> Jail:
    bounds = Bounds(
        max_seconds=settings.max_seconds,
        max_memory_mib=settings.max_memory_mib,
        max_processes=settings.max_processes,
        max_disk_mib=settings.max_disk_mib,
        max_output_bytes=settings.max_output_kib << 10,
    )
    isolation = Isolation(settings.isolation)
    return Jail(program, bounds, isolation=isolation, python=settings.python, packages=settings.packages)


_ENDS = {
    End.TIME: "over the time limit",
    End.MEMORY: "over the memory limit",
    End.OUTPUT: "over the limit of output",
    End.GONE: "the program destroyed its jail",
}


def _why_failed(run: Run, case: Case, settings: CodeSettings) -> str | None:
    """None for a passed test. An exit status other than 0 fails a test even when its output is right."""
    if run.end is not End.EXITED:
        return _ENDS[run.end]
    if run.code != 0:
        last = run.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        return f"exit status {run.code}{': ' if last else ''}{last}"
    if case.function is None:
        return None if is_same_output(run.stdout.decode(errors="replace"), case.expected) else "wrong output"
    try:
        value = json.loads(run.result)
    except (ValueError, RecursionError):
        return "no value was returned"
    return None if is_same_value(value, case.expected, may_be_wrapped=case.may_be_wrapped) else "wrong value"
