"""What a budget puts into a response, as tokens."""

from __future__ import annotations

from dataclasses import dataclass

from rollout.render import Renderer
from rollout.schema import Job


@dataclass(frozen=True, slots=True)
class PutIn:
    """At the beginning of the response, and at the thinking cap."""

    beginning: tuple[int, ...]
    close: tuple[int, ...]

    @classmethod
    def of(cls, job: Job, renderer: Renderer) -> PutIn:
        """Raises ValueError where the tokenizer cannot spell it."""
        budget, format = job.budget, renderer.format
        beginning = renderer.forced_ids(budget.prefix)
        if budget.opens_thinking and format.has_thinking and not renderer.is_prefilled:
            beginning += renderer.opening.ids
        return cls(beginning, renderer.forced_ids(budget.forced_close or format.close_text))
