"""How many tokens a response spent on thinking and on its answer."""

from __future__ import annotations

from dataclasses import dataclass

from rollout.schema import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Sampled tokens inside the thinking marks, after the closing mark, and in all.

    `is_estimated`: the source of the response gave only the sum, so the parts are in proportion to characters.
    """

    thinking: int
    answer: int
    response: int
    is_estimated: bool = False


def counts_of(trajectory: Trajectory) -> TokenCounts:
    """Exact counts of a trajectory that an engine made; forced tokens are nobody's thought and are left out."""
    answer = 0
    if trajectory.answer is not None:
        start, end = trajectory.tokens_of(trajectory.answer)
        answer = int(trajectory.sampled[start:end].sum())
    return TokenCounts(thinking=trajectory.num_thinking_tokens, answer=answer, response=int(trajectory.sampled.sum()))
