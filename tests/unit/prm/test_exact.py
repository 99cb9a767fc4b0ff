from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm.config import ExactPrmConfig
from prm.exact import StepTexts, judge_steps, settle
from rewards.sandbox import WorkerPool

CLAIMS = ExactPrmConfig()
CHAIN = ExactPrmConfig(chain=True)


def score(step: str) -> float:
    (verdict,) = judge_steps(CLAIMS, StepTexts(prompt="", steps=(step,)))
    return verdict.score


RIGHT = [
    "3 + 4 = 7",
    "Then 12 divided by 4 = 3.",
    "5 apples + 3 apples = 8 apples",
    "- 3 + 4 = 7",
    "1) 3 + 4 = 7",
    "Step 2: 3 + 4 = 7",
    "16 - 3 - 4 = <<16-3-4=9>>9 eggs",
    "$2 * 9 = $18",
    r"$\frac{1}{2} + \frac{1}{3} = \frac{5}{6}$",
    "20% of 50 = 10",
    "1/2 of 12 = 6",
    "profit = 20 - 5 = 15",
    "f(2) = 3*2 + 1 = 7",
    "10/3 \u2248 3.33",
    "3 x 4 = 12",
    "5! = 120",
    "3 + 4 = 7!",
    "**3 + 4 = 7**",
    "7 plus 8 equals 15",
    "1,000 + 500 = 1,500",
    "0.1 + 0.2 = 0.3",
    "5 + 2 = 3 + 4 = 7",
    "3 + 4 = 7, so 7 * 2 = 14",
    r"$7 \times 8 = \boxed{56}$",
]
WRONG = [
    "3 + 4 = 8",
    "3 + 4 = 7, so 7 * 2 = 15",
    "<<16-3-4=8>>8 eggs",
    "10/3 = 3.33",
    "10/3 \u2248 3.34",
    "profit = 20 - 5 = 16",
    "5 + 2 = 7 = 3 + 5",
    "5 / 0 = 0",
    "15% * 200 = 31",
]
# Each of these looks wrong to a careless reader of equal signs.
UNJUDGED = [
    "Let us think.",
    "x = 5",
    "2x + 3 = 7",
    "f(2) = 7",
    "half of 12 + 3 = 9",
    "3:30 + 15 = 3:45",
    "1 hour + 30 minutes = 90 minutes",
    "0.25 * 100 = 25%",
    "8 batches = 5.5 * 8 cups",
    "week 1 + week 2 = 35 + 35",
    "2 1/2 + 1 = 3.5",
    "3 != 4",
    "3 + 4 <= 8",
    r"\binom{4}{2} = 6",
    r"279/99999 = 0.\overline{00279}",
    "13 / 6 = 2.1666... hours",
    "4 minutes * 60 seconds/minute + 30 = 270 seconds",
    "9^9^9^9 = 5",
    r"x_1 + 3 = 5",
    "3 + 4 = 7 hundred",
]


@pytest.mark.parametrize("step", RIGHT)
def test_right_claims_score_one(step: str) -> None:
    assert score(step) == 1.0


@pytest.mark.parametrize("step", WRONG)
def test_wrong_claims_score_zero(step: str) -> None:
    assert score(step) == 0.0


@pytest.mark.parametrize("step", UNJUDGED)
def test_what_states_nothing_that_can_be_checked_is_unjudged(step: str) -> None:
    assert math.isnan(score(step))


_operands = st.lists(st.tuples(st.sampled_from("+-*"), st.integers(1, 99)), min_size=1, max_size=5)


@given(
    st.integers(1, 99),
    _operands,
    st.integers(1, 50),
    st.sampled_from(["", "So we get ", "Total cost: $"]),
    st.booleans(),
)
def test_equations_score_one_and_their_mutations_zero(
    first: int, rest: list[tuple[str, int]], error: int, before: str, spaced: bool
) -> None:
    gap = " " if spaced else ""
    expression = str(first) + "".join(f"{gap}{operator}{gap}{number}" for operator, number in rest)
    value = eval(expression)
    assert score(f"{before}{expression}{gap}={gap}{value}") == 1.0
    assert score(f"{before}{expression}{gap}={gap}{value + error}.") == 0.0
    assert score(f"{before}{expression} = {value} = {value - error} + {error}") == 1.0
    assert score(f"{before}{expression} = {value} = {value - error} + {error + 1}") == 0.0


def test_steps_longer_than_the_bound_are_left_alone() -> None:
    config = ExactPrmConfig(max_step_chars=16)
    (verdict,) = judge_steps(config, StepTexts(prompt="", steps=("3 + 4 = 8" + " " * 20,)))
    assert math.isnan(verdict.score) and "too long" in verdict.note


def chain(prompt: str, *steps: str) -> list[float]:
    return [verdict.score for verdict in judge_steps(CHAIN, StepTexts(prompt=prompt, steps=steps))]


def test_a_chain_of_rewritings_is_checked_against_the_prompt_and_each_last_step() -> None:
    prompt = "3+5+5+7+4+9="
    assert chain(prompt, "8+5+7+4+9", "13+7+4+9", "20+4+9", "24+9", "33") == [1, 1, 1, 1, 1]
    # One slip is blamed once: what follows from it is consistent with it.
    assert chain(prompt, "8+5+7+4+9", "14+7+4+9", "21+4+9", "25+9") == [1, 0, 1, 1]
    assert chain(prompt, "9+5+7+4+9", "14+7+4+9") == [0, 1]


def test_in_a_chain_a_step_that_is_no_expression_is_wrong_and_the_next_unjudged() -> None:
    scores = chain("3+4=", "3+", "7", "4+3")
    assert scores[0] == 0 and math.isnan(scores[1]) and scores[2] == 1


def test_in_a_chain_a_repeated_step_earns_nothing() -> None:
    assert chain("1+2+3=", "3+3", "3+3", "3 + 3", "6") == [1, 0, 0, 1]
    assert chain("1+2+3=", "3+3", "2+4", "3+3") == [1, 1, 0]  # around in a circle
    assert chain("1+2+3=", "3+3", "7", "3+3") == [1, 0, 0]  # back to what was right: the slip stays the only link lost
    answered = StepTexts(prompt="1+2+3=", steps=("3+3", "6", "6"), ends_with_answer=True)
    assert [v.score for v in judge_steps(CHAIN, answered)] == [1, 1, 1]  # an answer is the last step said again


def test_the_prompts_expression_is_found_in_prose() -> None:
    prompt = "State the final answer to the following arithmetic problem: 4 - 1 - 7 ="
    assert chain(prompt, "3 - 7", "-4") == [1, 1]
    assert math.isnan(chain("Name a color.", "3 - 7")[0])


# ------------------------------------------------------------------------------------------------ computer algebra


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(num_workers=1, max_seconds=3, max_memory_mib=1024)
    yield pool
    pool.close()


async def settled(pool: Any, *steps: str) -> list[float] | None:
    verdicts = judge_steps(CLAIMS, StepTexts(prompt="", steps=steps))
    (result,) = await settle([verdicts], pool, within_s=30)
    return None if result is None else [verdict.score for verdict in result]


async def test_roots_and_unknowns_go_to_the_sandbox(pool: WorkerPool) -> None:
    scores = await settled(
        pool,
        "sqrt(16) = 4",
        r"\sqrt{2} \cdot \sqrt{3} = \sqrt{6}",
        "sqrt(2) = 1.4",
        "sqrt(2) \u2248 1.41",
        "2x + 3x = 5x",
        "(a + b)^2 = a^2 + 2a*b + b^2",
        "2x + 3x = 6x",  # may be an equation, with the solution 0
        "3 + 4 = 8 and sqrt(4) = 2",
        "3 + 4 = 7 and sqrt(4) = 3",
    )
    assert scores is not None
    assert scores[:6] == [1, 1, 0, 1, 1, 1]
    assert math.isnan(scores[6])
    assert scores[7:] == [0, 0]


@dataclass(frozen=True)
class _Reply:
    status: str
    value: object


class _BrokenPool:
    """A sandbox that fails, or answers nonsense."""

    def __init__(self, reply: _Reply) -> None:
        self.reply = reply

    async def acall(self, target: str, payloads: Sequence[Any], *, within_s: float = 0) -> list[_Reply]:
        return [self.reply] * len(payloads)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    "reply", [_Reply("timeout", None), _Reply("crash", None), _Reply("ok", "yes"), _Reply("ok", 1)]
)
async def test_a_failing_sandbox_costs_the_trajectories_that_needed_it(reply: _Reply) -> None:
    pool = _BrokenPool(reply)
    assert await settled(pool, "3 + 4 = 7", "sqrt(16) = 4") is None
    assert await settled(pool, "3 + 4 = 7", "3 + 4 = 8") == [1.0, 0.0]
