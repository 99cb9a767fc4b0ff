"""DAPO's overlong penalty: the paper's numbers, and which limit stands when none is named."""

import numpy as np
import pytest
from pydantic import ValidationError

from budgets.config import BudgetsConfig, EffortConfig
from budgets.shaping.config import OverlongConfig
from budgets.shaping.overlong import Overlong, overlong_penalty
from tests.fakes.loop import make_scored


def test_the_worked_numbers() -> None:
    lengths = np.asarray([100, 16384, 18432, 20480, 30000], dtype=np.float64)
    np.testing.assert_allclose(overlong_penalty(lengths, limit=20480, buffer=4096), [0, 0, -0.5, -1, -1])


def test_the_limit_is_the_budget_of_the_effort() -> None:
    scored = make_scored([1.0, None], length=14)  # thinking 8 and answer 8 tokens: limit 16
    found = Overlong(OverlongConfig(buffer_tokens=4, factor=0.5))(scored.group, scored.outcomes)
    np.testing.assert_allclose(found["overlong"], [-0.25, 0])  # halfway into the buffer; unjudged
    named = Overlong(OverlongConfig(buffer_tokens=4, max_tokens=18))(scored.group, scored.outcomes)
    np.testing.assert_allclose(named["overlong"], [0, 0])
    assert found["overlong"].dtype == np.float32


def test_a_buffer_as_long_as_the_limit_is_refused() -> None:
    efforts = {"low": EffortConfig(max_thinking_tokens=4, max_answer_tokens=8)}
    with pytest.raises(ValidationError, match=r"buffer_tokens = 12 must be less than the limit .* 12 for effort 'low'"):
        BudgetsConfig(efforts=efforts, shaping=OverlongConfig(buffer_tokens=12))
    BudgetsConfig(efforts=efforts, shaping=OverlongConfig(buffer_tokens=12, max_tokens=13))
