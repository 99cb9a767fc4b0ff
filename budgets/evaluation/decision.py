"""What a model that decides for itself decides (Keye-VL's auto-think), and whether it does as it says.

    thinking   share of responses with a token of thinking
    named      share that begin with an analysis naming a mode, /think or /no_think
    agreement  share of those that go on as they named: thinking if and only if /think

Source: Kwai Keye-VL (arXiv 2507.01949), which reports the share of thinking by benchmark. What it is not: a judgement
of the decision; `calibration` and the accuracy by difficulty say whether it was a good one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budgets.evaluation.attempt import Attempt
from budgets.evaluation.intervals import number
from budgets.self_assessment import decision_of


def decisions(attempts: Sequence[Attempt]) -> dict[str, Any] | None:
    """The shares of one mode; None without a response."""
    seen = [(a.thinking_tokens > 0, decision_of(a.text)) for a in attempts if a.has_response]
    if not seen:
        return None
    named = [(thinks, said) for thinks, said in seen if said is not None]
    return {
        "thinking": number(sum(thinks for thinks, _ in seen) / len(seen)),
        "named": number(len(named) / len(seen)),
        "agreement": number(sum(thinks == (said == "think") for thinks, said in named) / len(named)) if named else None,
    }
