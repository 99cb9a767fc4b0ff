r"""Reading an answer as text: find it, normalize it, compare numbers exactly, refuse what is built to explode.

Everything here is linear in the length of the text, which is cut first, so it may run outside the sandbox.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.outcome import Sample, judged, unparseable
from rollout.schema import Outcome

MAX_ANSWER_CHARS = 512
_TAIL_CHARS = 2_000
_MAX_NESTING = 40
_MAX_DIGITS = 64  # beyond this a number is not read here
_MAX_EXPONENT_DIGITS = 3
_MAX_FACTORIAL_DIGITS = 3
_MAX_BOUND_DIGITS = 4

_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_PLAIN_NUMBER = re.compile(rf"({_NUMBER})(?:/([-+]?\d+(?:\.\d+)?))?")
_LATEX_FRACTION = re.compile(r"([-+]?)\\frac(?:\{([-+]?\d+)\}|(\d))(?:\{([-+]?\d+)\}|(\d))")
_LAST_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}(?:\s?/\s?\d+(?:\.\d+)?)?%?")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BOX = re.compile(r"\\f?boxed\s*\{")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_NAMED_VALUE = re.compile(r"^[A-Za-z](?:_\w)?\s*=\s*(?=[^=]+$)")
_SPACES = re.compile(r"\\[,;:! ]|\\q?quad|\s|~")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname|mbox)\s*\{([^{}]*)\}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}")
_DISPLAY_FRACTION = re.compile(r"\\[dtc]frac")
_WORDS_ONLY = re.compile(r"[A-Za-z][A-Za-z'\- ]*")

# Operators that would hand the question back unevaluated, to be computed by the verifier.
_UNEVALUATED = re.compile(r"\\(?:int|sum|prod|lim|binom|dbinom|tbinom|oint|iint)(?![A-Za-z])")
_CODE = re.compile(r"__|lambda|import|exec|eval|`|\"|\bos\.|\bsys\.")
_BIG_EXPONENT = re.compile(rf"(?:\^|\*\*)\s*\{{?\s*[-+(]*\s*\d[\d,.]{{{_MAX_EXPONENT_DIGITS},}}")
_BIG_FACTORIAL = re.compile(rf"\d{{{_MAX_FACTORIAL_DIGITS + 1},}}\s*!|[)\]}}]\s*!|!\s*!")
_BIG_BOUND = re.compile(rf"\\(?:sum|prod|int|binom|dbinom|tbinom)[^=]{{0,40}}?\d{{{_MAX_BOUND_DIGITS + 1},}}")
_LONG_NUMBER = re.compile(r"\d{200,}")


def find_answer(text: str) -> str | None:
    r"""The part of an answer text that is the answer, None when there is none.

    In this order: the last non-empty `\boxed{}`; what follows a last `####`; the last formula between math marks; the
    last line when it holds no words; the last number. A text without any number is taken whole when it is short.
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
    if not _WORD.search(_ENVIRONMENT.sub("", _TEXT_COMMAND.sub("", line))):
        return _bare(line)
    formulas = [next(part for part in match.groups() if part is not None) for match in _FORMULA.finditer(tail)]
    if formulas:
        return _bare(formulas[-1])
    numbers = _LAST_NUMBER.findall(tail)
    if numbers:
        return str(numbers[-1])
    return _bare(line) if len(line) <= 64 else None


def last_boxed(text: str) -> str | None:
    r"""Contents of the `\boxed{...}` or `\fbox{...}` that opens last, among those that are closed and not empty."""
    boxes = {match.end() for match in _BOX.finditer(text)}
    opened: list[int] = []
    best: tuple[int, str] | None = None
    for at, char in enumerate(text):
        if char == "{":
            opened.append(at + 1)
        elif char == "}" and opened:
            start = opened.pop()
            inner = text[start:at].strip() if start in boxes else ""
            if inner and (best is None or start > best[0]):
                best = start, inner
    return best[1] if best else None


def _bare(expression: str) -> str | None:
    """Without the math marks and the full stop around it."""
    stripped = expression.strip().rstrip(".").strip()
    match = _FORMULA.fullmatch(stripped)
    if match is not None:
        stripped = next(part for part in match.groups() if part is not None).strip()
    return stripped or None


def normalize(expression: str) -> str:
    """Canonical spelling: no spacing, no text commands, one kind of fraction, no unit of money or percent.

    Percent and currency signs are read as units, so 10 and 10% are the same answer.
    """
    result = _NAMED_VALUE.sub("", expression.strip())
    result = _TEXT_COMMAND.sub(r"\1", result)
    result = result.replace("\\left", "").replace("\\right", "")
    result = result.replace("\\%", "").replace("%", "").replace("\\$", "").replace("$", "")
    result = result.replace("^\\circ", "").replace("^{\\circ}", "").replace("\u2212", "-")
    result = _DISPLAY_FRACTION.sub(r"\\frac", result)
    return _SPACES.sub("", result).rstrip(".")


def read_number(normalized: str) -> Fraction | None:
    """The exact value of an integer, decimal or fraction; None for anything else."""
    if len(normalized) > 2 * _MAX_DIGITS:
        return None
    match = _PLAIN_NUMBER.fullmatch(normalized)
    if match is not None:
        top, bottom = Fraction(match[1].replace(",", "")), Fraction(match[2] or 1)
        return top / bottom if bottom else None
    match = _LATEX_FRACTION.fullmatch(normalized)
    if match is not None:
        above, below = int(match[2] or match[3]), int(match[4] or match[5])
        return Fraction(-above if match[1] == "-" else above, below) if below else None
    return None


def is_words(normalized: str) -> bool:
    """True for an answer such as a name: to be compared as text. Single letters are mathematics."""
    return len(normalized) > 1 and _WORDS_ONLY.fullmatch(normalized) is not None


def judge_numbers(sample: Sample) -> Outcome | None:
    """The verdict where both sides are plain numbers or words; None leaves everything else to computer algebra.

    Only references that this grammar understands wholly are decided here: a reference that nothing can parse must
    become BAD_REFERENCE for every answer, also for one that happens to be spelled the same.
    """
    reference = normalize(sample.reference)
    wanted = read_number(reference)
    if wanted is None and not is_words(reference):
        return None
    found = find_answer(sample.answer)
    if found is None:
        return unparseable("no answer found")
    if len(found) > MAX_ANSWER_CHARS:
        return unparseable(f"an answer of {len(found)} characters, more than {MAX_ANSWER_CHARS}")
    answer = normalize(found)
    if wanted is None:
        return judged(float(_same_words(reference, answer)))
    got = read_number(answer)
    if got is not None:
        return judged(float(got == wanted))
    if is_words(answer):
        return judged(0.0, "words where a number was wanted")
    return None


def _same_words(reference: str, answer: str) -> bool:
    return reference.strip("()").casefold() == answer.strip("()").casefold()


def refusal(answer: str, reference: str) -> str | None:
    """Why an answer is not handed to computer algebra at all, or None. All reasons are the policy's fault."""
    if len(answer) > MAX_ANSWER_CHARS:
        return f"an answer of {len(answer)} characters, more than {MAX_ANSWER_CHARS}"
    if _nesting(answer) > _MAX_NESTING:
        return f"more than {_MAX_NESTING} nested brackets"
    if _CODE.search(answer):
        return "looks like program code"
    if _UNEVALUATED.search(answer) and not _UNEVALUATED.search(reference):
        return "leaves an operator unevaluated"
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
