r"""Mathematical equality of answer and reference, by math-verify and sympy. Runs only inside a sandbox worker.

What `rewards.math_text` can decide it decides here too. It hands over pairs of expressions that agree as far as double
precision can tell; sympy evaluates both to 120 digits. A reference outside of that grammar (an integral, a sum) is
read by math-verify, whose verdict is looked at again, see `_objection`. Nothing is ever read as Python, which sympy's
own parser would execute, and no signal is used: the process is killable.
"""

from __future__ import annotations

import logging
import re

import sympy
from math_verify import LatexExtractionConfig, parse
from math_verify import verify as equal

from rewards.answer_spelling import compact, tidy
from rewards.answer_text import find_answer, oversize, refusal
from rewards.expression import Expression, Number, Symbol, variables_of
from rewards.expression_value import leaves_the_reals
from rewards.math_text import judge, read_reference
from rewards.outcome import Sample, judged, unjudged, unparseable
from rollout.schema import Outcome, Status

# Both warn on every call that their time limits are off, which is on purpose here.
for _name in ("math_verify.parser", "math_verify.grader"):
    logging.getLogger(_name).setLevel(logging.ERROR)

_LATEX = (LatexExtractionConfig(boxed_match_priority=0),)
_DIGITS = 120
_TOLERANCE = sympy.Float(10) ** -100
_SPELLED_ONLY = re.compile(r"\\[lcd]?dots|\.\.\.|\\forall|\\exists")
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infinity": sympy.oo}
_FUNCTIONS = {
    "arcsin": sympy.asin,
    "arccos": sympy.acos,
    "arctan": sympy.atan,
    "ln": sympy.log,
    "|": sympy.Abs,
    "!": sympy.factorial,
    "min": sympy.Min,
    "max": sympy.Max,
}
_PLAIN_FUNCTIONS = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "exp", "gcd", "lcm"}
)


def verify(sample: Sample) -> Outcome:
    """1 when the answer equals the reference, 0 when not; UNPARSEABLE_ANSWER without a usable answer."""
    try:
        return judge(sample, equal_by_algebra) or _judge_by_math_verify(sample)
    except MemoryError:
        raise
    # Whatever sympy raises on this pair: the reference was read and equals itself, so it is the answer that cannot be
    # compared with it. Were that unjudged, a policy could dodge a wrong answer by writing one that confuses sympy.
    except Exception as error:
        if read_reference(sample.reference) is None:
            raise
        return unparseable(f"cannot be compared ({type(error).__name__})")


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1 when the reference can be read and equals itself, BAD_REFERENCE otherwise."""
    reference = sample.reference.strip()
    if not reference:
        return unjudged(Status.BAD_REFERENCE, "the reference is empty")
    if read_reference(sample.reference) is not None or _SPELLED_ONLY.search(reference):
        return judged(1.0)
    refused = oversize(reference, reference) or refusal(reference)
    if refused is not None:
        return unjudged(Status.BAD_REFERENCE, f"{refused}: {reference[:80]!r}")
    gold = _parse(reference)
    if gold is None:
        return unjudged(Status.BAD_REFERENCE, f"cannot be parsed: {reference[:80]!r}")
    if not _is_equal(gold, gold):
        return unjudged(Status.BAD_REFERENCE, f"does not equal itself: {reference[:80]!r}")
    return judged(1.0)


# ------------------------------------------------------------------------------------------------ sympy


def equal_by_algebra(left: Expression, right: Expression) -> bool:
    """Whether two expressions agree to 100 digits at every tried point where both are real.

    Points are positive and negative, so the square root of x^2 is not x, while the root of 1/n is one over the root of
    n, which are both real for positive n only. An expression with `i` in it must agree everywhere.
    """
    one, other = _sympy(left), _sympy(right)
    names = sorted(variables_of(left) | variables_of(right))
    is_complex = one.has(sympy.I) or other.has(sympy.I)
    agreed = 0
    for point in _points(names):
        if names and not is_complex and (leaves_the_reals(left, point) or leaves_the_reals(right, point)):
            continue
        exact = {sympy.Symbol(name): sympy.Rational(*value.as_integer_ratio()) for name, value in point.items()}
        a, b = (expression.evalf(_DIGITS, subs=exact) for expression in (one, other))
        if any(value.has(sympy.nan, sympy.zoo, sympy.oo) or not value.is_number for value in (a, b)):
            continue
        if abs(a - b) > _TOLERANCE * abs(a):
            return False
        agreed += 1
    return agreed > 0


def _points(names: list[str]) -> list[dict[str, float]]:
    """Points without a pattern: three positive, then with changing signs, then negative."""
    if not names:
        return [{}]
    points = []
    for turn in range(6):
        sizes = [0.25 + (0.5698402909 * (index + 1) + 0.4142135624 * (turn + 1)) % 1.0 for index in range(len(names))]
        signs = [-1 if turn == 5 or (turn > 2 and (index + turn) % 2) else 1 for index in range(len(names))]
        points.append({name: sign * size for name, sign, size in zip(names, signs, sizes, strict=True)})
    return points


def _sympy(expression: Expression) -> sympy.Expr:
    if isinstance(expression, Number):
        return sympy.Rational(expression.value.numerator, expression.value.denominator)
    if isinstance(expression, Symbol):
        return _CONSTANTS.get(expression.name) or sympy.Symbol(expression.name)
    arguments = [_sympy(argument) for argument in expression.arguments]
    match expression.operator:
        case "+":
            return sympy.Add(*arguments)
        case "*":
            return sympy.Mul(*arguments)
        case "/":
            return arguments[0] / arguments[1]
        case "^":
            return arguments[0] ** arguments[1]
        case "root":
            index, radicand = arguments
            is_odd = bool(index.is_Integer and index % 2)
            return sympy.real_root(radicand, index) if is_odd else radicand ** (1 / index)
        case "binom":
            return sympy.binomial(*arguments)
    if expression.operator in _FUNCTIONS:
        return _FUNCTIONS[expression.operator](*arguments)
    if expression.operator not in _PLAIN_FUNCTIONS:
        raise ValueError(f"no function {expression.operator!r}")
    return getattr(sympy, expression.operator)(*arguments)


# ------------------------------------------------------------------------------------------------ math-verify


def _judge_by_math_verify(sample: Sample) -> Outcome:
    """For references that only math-verify can read, or that nothing can and are compared by spelling."""
    only_spelling = _SPELLED_ONLY.search(sample.reference) is not None
    gold = None if only_spelling or refusal(sample.reference) else _parse(sample.reference)
    if gold is None and not only_spelling:
        return unjudged(Status.BAD_REFERENCE, f"cannot be parsed: {sample.reference[:80]!r}")
    found = find_answer(sample.answer)
    if found is None:
        return unparseable("no answer found")
    if compact(tidy(found)) == compact(tidy(sample.reference)):
        return judged(1.0)
    refused = oversize(found, sample.reference) or refusal(found)
    if refused is not None:
        return unparseable(refused)
    if gold is None or _SPELLED_ONLY.search(found):
        return judged(0.0, "spelled otherwise, and computer algebra cannot compare it")
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
    objection = _objection(gold, answer) if same else ""
    return judged(0.0, objection) if objection or not same else judged(1.0)


def _parse(expression: str) -> list[object] | None:
    """math-verify's reading of a bare LaTeX expression: [sympy object, string], or None when it finds nothing.

    The sympy object is what proves that it was read; the string alone is only the text given back.
    """
    cleaned = expression.strip().strip("$").replace("\\mathrm{e}", "e")
    parsed: list[object] = parse(f"\\boxed{{{cleaned}}}", extraction_config=_LATEX, parsing_timeout=None)
    return parsed if any(not isinstance(item, str) for item in parsed) else None


def _is_equal(gold: list[object], answer: list[object]) -> bool:
    return bool(equal(gold, answer, timeout_seconds=None, raise_on_error=True))


def _objection(gold: list[object], answer: list[object]) -> str:
    """Why an equality that math-verify granted does not hold: it compares numbers rounded to six decimals."""
    wanted, got = gold[0], answer[0]
    if isinstance(wanted, sympy.Expr) and isinstance(got, sympy.Expr) and wanted.is_number and got.is_number:
        difference = abs(sympy.N(wanted - got, 30))
        if difference > sympy.Rational(1, 10**9) * abs(sympy.N(wanted, 30)):
            return "differs beyond rounding"
    return ""
