r"""Finding the answer in a text, and refusing what is built to explode.

Everything here is linear in the length of the text, which is cut first, so it may run outside the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_ANSWER_CHARS = 512
_TAIL_CHARS = 2_000
_MAX_JOINT = 40
_MAX_NESTING = 40
_MAX_EXPONENT_DIGITS = 3
_MAX_FACTORIAL_DIGITS = 3
_MAX_BOUND_DIGITS = 4

_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\.\d+)"
_LAST_NUMBER = re.compile(
    rf"(?<![\w.])(?:\d+ \d+/\d+|\d+(?::\d+)+(?: ?[AaPp]\.?[Mm]\b)?|{_NUMBER}(?:\s?/\s?\d+(?:\.\d+)?)?%?)"
)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BOX = re.compile(r"\\f?boxed\s*\{")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_STATED = re.compile(r"\banswer(?: is|:| =)\s*:?\s*(\S.*)$", re.IGNORECASE)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname|mbox)\s*\{([^{}]*)\}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}")
# What may stand between two boxes or formulas that together are one answer of several parts.
_JOINT = re.compile(r"(?:[\s$,;&]|\\[()\[\],;! ]|\\q?quad|\\text\s*\{\s*(?:and|or)\s*\}|\band\b|\bor\b)*")

# Operators that would hand the question back unevaluated, to be computed by the verifier.
_UNEVALUATED = re.compile(r"\\(?:int|sum|prod|lim|binom|dbinom|tbinom|oint|iint)(?![A-Za-z])")
_CODE = re.compile(r"__|lambda|import|exec|eval|`|\"|\bos\.|\bsys\.")
_BIG_EXPONENT = re.compile(rf"(?:\^|\*\*)\s*\{{?\s*[-+(]*\s*\d[\d,.]{{{_MAX_EXPONENT_DIGITS},}}")
_BIG_FACTORIAL = re.compile(rf"\d{{{_MAX_FACTORIAL_DIGITS + 1},}}\s*!|[)\]}}]\s*!|!\s*!")
_BIG_BOUND = re.compile(rf"\\(?:sum|prod|int|binom|dbinom|tbinom)[^=]{{0,40}}?\d{{{_MAX_BOUND_DIGITS + 1},}}")
_LONG_NUMBER = re.compile(r"\d{200,}")


def find_answer(text: str) -> str | None:
    r"""The part of an answer text that is the answer, None when there is none.

    In this order: the last non-empty `\boxed{}`; what follows a last `####`; the last line when it holds no words; what
    a last line says that the answer is; the last formula between math marks; the last number. Boxes or formulas with
    nothing but "and", "or" or a comma between them are one answer of several parts: who gives two answers is judged on
    both. A text without any number is taken whole when it is short.
    """
    tail = text[-_TAIL_CHARS:].replace("\\$", "").strip()  # a dollar of money is not a math mark
    boxed = last_boxed(tail)
    if boxed is not None:
        return boxed
    if "\\boxed" in tail:
        return None  # a box that is empty or never closed is an answer withheld, not a hint to look elsewhere
    if "####" in tail:
        tail = tail.rpartition("####")[2].strip()
    if not tail:
        return None
    line = tail.splitlines()[-1].strip()
    if not _has_words(line):
        return _bare(line)
    stated = _STATED.search(line)
    if stated is not None and not _has_words(stated[1]):
        return _bare(stated[1])
    formulas = [
        (match.start(), match.end(), next(part for part in match.groups() if part is not None))
        for match in _FORMULA.finditer(tail)
    ]
    if formulas:
        return _bare(_last_joined(tail, formulas))
    numbers = _LAST_NUMBER.findall(tail)
    if numbers:
        return str(numbers[-1])
    return _bare(line) if len(line) <= 64 else None


def last_boxed(text: str) -> str | None:
    r"""Contents of the `\boxed{...}` or `\fbox{...}` that opens last, among those that are closed and not empty.

    Boxes side by side give their contents with a comma between them; of nested ones the innermost counts.
    """
    openings = {match.end(): match.start() for match in _BOX.finditer(text)}
    if not openings:
        return None
    opened: list[int] = []
    closed: list[tuple[int, int, str]] = []
    for at, char in enumerate(text):
        if char == "{":
            opened.append(at + 1)
        elif char == "}" and opened:
            start = opened.pop()
            inner = text[start:at].strip() if start in openings else ""
            # Inner ones close first: a box around one that is not empty adds nothing.
            if inner and not (closed and closed[-1][0] > openings[start]):
                closed.append((openings[start], at + 1, inner))
    return _last_joined(text, closed) if closed else None


def _last_joined(text: str, parts: Sequence[tuple[int, int, str]]) -> str:
    """The last part, and those before it with only a joint between: (start, end, contents) in order."""
    joined = [parts[-1]]
    for part in reversed(parts[:-1]):
        between = text[part[1] : joined[0][0]]
        if len(between) > _MAX_JOINT or not _JOINT.fullmatch(between):
            break
        joined.insert(0, part)
    return ", ".join(dict.fromkeys(contents.strip() for _, _, contents in joined))


def _has_words(line: str) -> bool:
    return _WORD.search(_ENVIRONMENT.sub("", _TEXT_COMMAND.sub("", line))) is not None


def _bare(expression: str) -> str | None:
    """Without the math marks and the full stop around it."""
    stripped = expression.strip().rstrip(".").strip()
    match = _FORMULA.fullmatch(stripped)
    if match is not None:
        stripped = next(part for part in match.groups() if part is not None).strip()
    return stripped or None


def oversize(answer: str, reference: str) -> str | None:
    """Why an answer is not even read, or None. All reasons are the policy's fault."""
    if len(answer) > MAX_ANSWER_CHARS:
        return f"an answer of {len(answer)} characters, more than {MAX_ANSWER_CHARS}"
    if _nesting(answer) > _MAX_NESTING:
        return f"more than {_MAX_NESTING} nested brackets"
    if _UNEVALUATED.search(answer) and not _UNEVALUATED.search(reference):
        return "leaves an operator unevaluated"
    return None


def refusal(answer: str) -> str | None:
    """Why a text is not handed to math-verify, whose parser computes while it reads; None when it is."""
    if _CODE.search(answer):
        return "looks like program code"
    if _has_power_tower(answer) or _BIG_EXPONENT.search(answer):
        return "a power too large to compute"
    if _BIG_FACTORIAL.search(answer) or _BIG_BOUND.search(answer) or _LONG_NUMBER.search(answer):
        return "a number too large to compute"
    return None


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _has_power_tower(text: str) -> bool:
    """A power inside an exponent, however it is bracketed: 9^9^9, 9^{9^9}, 9**(9**9)."""
    carets = [match.start() for match in re.finditer(r"\^|\*\*", text)]
    for at in carets:
        rest = text[at:].lstrip("^* ")
        exponent = rest[: _group_length(rest)]
        after = rest[len(exponent) :].lstrip()
        if "^" in exponent or "**" in exponent or after.startswith(("^", "**")):
            return True
    return False


def _group_length(text: str) -> int:
    """Length of the bracketed group that starts `text`, or of the number or symbol that does."""
    if not text or text[0] not in "({[":
        match = re.match(r"[-+]?(?:\\[A-Za-z]+|\d+|.)", text, re.DOTALL)
        return match.end() if match else 0
    depth = 0
    for at, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return at + 1
    return len(text)
