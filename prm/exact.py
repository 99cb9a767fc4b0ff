"""Exact step scores: a step is as good as the worst arithmetic claim in it that can be checked.

    score(step) = min over its checkable claims of [claim holds]     in {0, 1}
    score(step) = NaN                                                when it states nothing that can be checked

or, in chain mode, where each step rewrites an expression and states no equation:

    score(step_k) = [value(step_k) = value(step_{k-1})],   step_0 being the expression in the prompt

with 0 for a step that is no expression or is written like an earlier step, spaces aside, and NaN for one that follows a
step that is no expression. Assumptions: `=` means exact equality, and U+2248 the left side rounded to the decimals
written on the right. Not a measure of progress: a rewriting that leads nowhere is right, and outside of chain mode a
repeated claim is, too. A step without characters is never cut, so it has no score to earn.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from prm.arithmetic import (
    NeedsAlgebraError,
    Node,
    NotArithmeticError,
    Number,
    TooLargeError,
    UndefinedValueError,
    evaluate,
    has_percent,
    symbols_of,
    value_of,
)
from prm.claims import Claim, find_claims, longest_expression
from prm.config import ExactPrmConfig

VERSION = 2  # of the rules in this file, `claims` and `arithmetic`; scores of different versions are not comparable
ALGEBRA_TARGET = "prm.symbolic:check"


class ReplyLike(Protocol):
    """A sandbox's answer: `value` is data from the worker, meaningful when the status is 'ok'."""

    @property
    def status(self) -> str: ...

    @property
    def value(self) -> Any: ...


class PoolLike(Protocol):
    """Killable workers, handed in by the composition root."""

    def acall(
        self, target: str, payloads: Sequence[Any], *, within_s: float = ...
    ) -> Awaitable[Sequence[ReplyLike]]: ...

    def close(self) -> None: ...


class StepTexts(NamedTuple):
    """What the scorer reads of one trajectory."""

    prompt: str
    steps: tuple[str, ...]
    ends_with_answer: bool = False  # the last step is the answer text, which may repeat the step before


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """Score of one step, and why. `pending` holds the claims that still need computer algebra."""

    score: float
    note: str
    pending: tuple[Claim, ...] = ()


_SUM = r"\d{1,18}(?:[ ]?[-+][ ]?\d{1,18})"
_PLAIN_EQUATION = re.compile(rf"({_SUM}+)[ ]?=[ ]?({_SUM}*)")
_SIGNED_INTEGER = re.compile(r"[-+]?\d+")
_UNJUDGED = StepVerdict(math.nan, "no checkable claim")


def judge_steps(config: ExactPrmConfig, texts: StepTexts) -> tuple[StepVerdict, ...]:
    """Verdicts that exact arithmetic gives; bounded work without a sandbox."""
    if config.chain:
        return _judge_chain(texts, config.max_step_chars)
    return tuple(_judge_claims(step) if len(step) <= config.max_step_chars else _too_long(step) for step in texts.steps)


def _too_long(step: str) -> StepVerdict:
    return StepVerdict(math.nan, f"too long to check ({len(step)} characters)")


def _judge_plain(step: str) -> StepVerdict | None:
    """Verdict on a step that is one equation of integer sums and nothing else, for speed: as `_judge_claims` has it."""
    match = _PLAIN_EQUATION.fullmatch(step)
    if match is None:
        return None
    left, right = (sum(map(int, _SIGNED_INTEGER.findall(side.replace(" ", "")))) for side in match.groups())
    if left == right:
        return StepVerdict(1.0, f"right: {step}")
    return StepVerdict(0.0, f"wrong: {step}")


@functools.lru_cache(maxsize=16_384)
def _judge_claims(step: str) -> StepVerdict:
    plain = _judge_plain(step)
    if plain is not None:
        return plain
    right: Claim | None = None
    pending: list[Claim] = []
    for claim in find_claims(step):
        try:
            holds = _holds(claim)
        except NeedsAlgebraError:
            pending.append(claim)
            continue
        if holds is False:
            return StepVerdict(0.0, f"wrong: {claim.text}")
        if holds is True:
            right = right or claim
    if right is not None:
        return StepVerdict(1.0, f"right: {right.text}", tuple(pending))
    return StepVerdict(math.nan, _UNJUDGED.note, tuple(pending)) if pending else _UNJUDGED


def _holds(claim: Claim) -> bool | None:
    """Whether a claim is true; None when it may mean something else, or is too large. Raises NeedsAlgebraError."""
    unknown = symbols_of(claim.left)
    if unknown != symbols_of(claim.right):
        return None  # a definition, or an equation still to be solved
    try:
        left, right = evaluate(claim.left), evaluate(claim.right)
    except TooLargeError:
        return None
    except UndefinedValueError:
        return False
    if left == right or (claim.relation == "\u2248" and _rounds_to(left, claim.right)):
        return True
    if claim.is_naming or len(claim.units) > 1 or any(" " in unit for unit in claim.units):
        return None  # 8 batches = 5.5 * 8; 1 hour + 30 minutes = 90 minutes; 2 * 3 apples cost = 12
    if 100 in (_ratio(left, right), _ratio(right, left)) and (has_percent(claim.left) or has_percent(claim.right)):
        return None  # the percent sign written as a unit: 0.25 * 100 = 25%
    return False


def _ratio(above: Fraction, below: Fraction) -> Fraction | None:
    return above / below if below else None


def _rounds_to(value: Fraction, written: Node) -> bool:
    """True when `written` is a number within half a unit of its last decimal of `value`."""
    if not isinstance(written, Number):
        return False
    return abs(value - written.value) <= Fraction(1, 2 * 10**written.decimals)


def _judge_chain(texts: StepTexts, max_step_chars: int) -> tuple[StepVerdict, ...]:
    previous = _prompt_value(texts.prompt)
    expected = "the prompt's expression"
    verdicts = []
    seen: dict[str, Fraction | None] = {}
    for number, step in enumerate(texts.steps, start=1):
        written = "".join(step.split())
        is_answer = texts.ends_with_answer and number == len(texts.steps)
        if len(step) > max_step_chars:
            value, verdict = None, _too_long(step)
        elif written in seen and not is_answer:
            value, verdict = seen[written], StepVerdict(0.0, f"repeats an earlier step: {step}")
        else:
            value, verdict = _judge_link(step, previous, expected)
        verdicts.append(verdict)
        seen[written] = value
        previous, expected = value, step
    return tuple(verdicts)


def _judge_link(step: str, previous: Fraction | None, expected: str) -> tuple[Fraction | None, StepVerdict]:
    """Value and verdict of one expression of a chain."""
    try:
        value = value_of(step)
    except NotArithmeticError as error:
        return None, StepVerdict(0.0, f"not an expression: {error}")
    except UndefinedValueError:
        return None, StepVerdict(0.0, "divides by zero")
    except (NeedsAlgebraError, TooLargeError):
        return None, StepVerdict(math.nan, "not a rational number that can be computed")
    if previous is None:
        return value, StepVerdict(math.nan, "nothing to compare with")
    if value == previous:
        return value, StepVerdict(1.0, f"equals {expected}")
    return value, StepVerdict(0.0, f"{step} is not {expected}")


@functools.lru_cache(maxsize=4_096)
def _prompt_value(prompt: str) -> Fraction | None:
    expression = longest_expression(prompt)
    if expression is None:
        return None
    try:
        return evaluate(expression)
    except (NeedsAlgebraError, TooLargeError, UndefinedValueError):
        return None


async def settle(
    verdicts: Sequence[Sequence[StepVerdict]], pool: PoolLike, *, within_s: float
) -> list[tuple[StepVerdict, ...] | None]:
    """Settle the pending claims of many trajectories by computer algebra. None where the sandbox failed on one."""
    claims = list({claim: None for steps in verdicts for step in steps for claim in step.pending})
    replies = await pool.acall(ALGEBRA_TARGET, claims, within_s=within_s) if claims else ()
    failed = {claim for claim, reply in zip(claims, replies, strict=True) if not _is_answer(reply)}
    holds = {claim: reply.value for claim, reply in zip(claims, replies, strict=True) if claim not in failed}
    return [
        None
        if any(failed.intersection(step.pending) for step in steps)
        else tuple(_settled(step, holds) for step in steps)
        for steps in verdicts
    ]


def _is_answer(reply: ReplyLike) -> bool:
    """True, False or None, and nothing else, is an answer of the algebra worker."""
    return reply.status == "ok" and (reply.value is None or isinstance(reply.value, bool))


def _settled(step: StepVerdict, holds: dict[Claim, bool | None]) -> StepVerdict:
    for claim in step.pending:
        if holds[claim] is False:
            return StepVerdict(0.0, f"wrong: {claim.text}")
    right = next((claim for claim in step.pending if holds[claim]), None)
    if math.isnan(step.score) and right is not None:
        return StepVerdict(1.0, f"right: {right.text}")
    return StepVerdict(step.score, step.note)
