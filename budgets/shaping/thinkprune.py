"""ThinkPrune: a cap that shrinks from stage to stage of the training.

    limits(step) = those of the last stage with from_step <= step, or the effort's own before the first one

A response that has no answer within the limit is wrong, and that is all the pressure there is: no length term. Source:
ThinkPrune (arXiv 2504.01296), which lowers the limit of the whole response from 4000 to 3000 to 2000 tokens, states it
in the prompt, and starts each stage from a chosen checkpoint of the one before; here the stages are parts of one run.
To limit the whole response as there, set max_answer_tokens and leave max_thinking_tokens out.

What it is not: a schedule of the reward. Groups of an old stage that are still on their way keep the limits that they
were generated with, and a group has one set of limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Stage(Protocol):
    """One stage of the schedule."""

    @property
    def from_step(self) -> int: ...

    @property
    def max_thinking_tokens(self) -> int | None: ...

    @property
    def max_answer_tokens(self) -> int | None: ...


def limits_at(
    stages: Sequence[Stage], step: int, *, max_thinking_tokens: int | None, max_answer_tokens: int
) -> tuple[int | None, int]:
    """(max_thinking_tokens, max_answer_tokens) at training step `step`; what a stage leaves out stays as it was."""
    for stage in stages:
        if stage.from_step > step:
            break
        max_thinking_tokens = max_thinking_tokens if stage.max_thinking_tokens is None else stage.max_thinking_tokens
        max_answer_tokens = max_answer_tokens if stage.max_answer_tokens is None else stage.max_answer_tokens
    return max_thinking_tokens, max_answer_tokens
