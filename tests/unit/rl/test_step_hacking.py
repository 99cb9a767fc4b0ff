"""The hack itself: a policy without a model learns to pad where step rewards are summed, and not where they are not.

The best answer takes three steps (two of work, one to stop), the longest twelve, and the verdict does not look at
padding. `share=9` takes the cap away, so that it is the rule that is tested and not the cap.
"""

from __future__ import annotations

from typing import Any

import pytest

from rl.credit.build import build_credit
from rl.credit.config import RlooCredit
from tests.fakes.padding_world import MAX_STEPS, Summary, SummedCredit, trained
from tests.unit.rl.test_step_rules import section

MIN_FORM: dict[str, Any] = {"type": "min_form", "share": 9}
LEAVE_ONE_OUT: dict[str, Any] = {"type": "leave_one_out", "share": 9}
DELTA: dict[str, Any] = {"type": "delta", "share": 9}
CLIP: dict[str, Any] = {"type": "clip", "share": 9}


def learned(process: dict[str, Any] | None, *, work_fails: float = 0.0) -> Summary:
    credit = build_credit(RlooCredit(process=None if process is None else section(**process)))
    return trained(credit, seed=0, work_fails=work_fails)


@pytest.fixture(scope="module")
def outcome_only() -> Summary:
    return learned(None)


def test_summed_step_rewards_are_hacked() -> None:
    hacked = trained(SummedCredit(), seed=0)
    assert hacked.steps > MAX_STEPS - 1  # pads to the end of every answer


@pytest.mark.parametrize("process", [MIN_FORM, LEAVE_ONE_OUT, DELTA, CLIP], ids=lambda p: str(p["type"]))
def test_rules_whose_sums_do_not_grow_are_not_hacked(process: dict[str, Any], outcome_only: Summary) -> None:
    found = learned(process)
    assert found.steps < outcome_only.steps + 1
    assert found.accuracy > outcome_only.accuracy - 0.05


def test_where_padding_looks_better_than_work_the_published_sum_gives_the_work_up() -> None:
    """A quarter of the work fails and padding never does: its steps are above the group's mean, and each one pays."""
    hacked = learned({"type": "group_returns", "share": 9}, work_fails=0.25)
    assert hacked.accuracy < 0.3 and hacked.pads > 9
    assert learned({"type": "group_returns"}, work_fails=0.25).accuracy > 0.9  # the cap keeps the outcome in front


@pytest.mark.parametrize("process", [MIN_FORM, {"type": "first_error"}], ids=lambda p: str(p["type"]))
def test_there_the_worst_step_and_the_first_error_still_hold(process: dict[str, Any]) -> None:
    found = learned(process, work_fails=0.25)
    assert found.accuracy > 0.85 and found.pads < 2.5
