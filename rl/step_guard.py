"""A step scorer that breaks its contract costs its own credit, not the run."""

from __future__ import annotations

import math
from collections.abc import Callable

from rl.ports import StepScorer
from rollout.schema import Group, StepScores, Trajectory

Answer = tuple[StepScores | None, ...]


class StepGuard:
    """Implements `StepScorer` around another one; after the first fault, which is named once, there are no scores.

    A fault is an answer of the wrong length or place, an infinite score, or an exception. A service that is down or
    late is none: it answers None for the trajectories that it failed on, and is asked again.
    """

    def __init__(self, scorer: StepScorer, warn: Callable[[str], None]) -> None:
        self._scorer = scorer
        self._warn = warn
        self._fault: str | None = None

    async def score(self, group: Group) -> Answer:
        """Step scores in sibling order; None for every trajectory once the scorer has been at fault."""
        nothing: Answer = (None,) * len(group.trajectories)
        if self._fault is not None:
            return nothing
        try:
            answer = await self._scorer.score(group)
            found = _fault_of(group, answer)
        except Exception as error:  # noqa: BLE001 - a boundary: a plugin's model may raise anything
            answer, found = nothing, f"raised {type(error).__name__}: {error}"
        own = getattr(self._scorer, "fault", None)  # a scorer that has stopped by itself says why
        if self._fault is None and (found is not None or own is not None):
            self._fault = own or f"step scorer {found}, in group {group.job.group_id}"
            self._warn(
                f"{self._fault}. Its scores are left out from here on; the run goes on with outcome credit. Mend the "
                "scorer and resume to have them again"
            )
        return nothing if found is not None else answer


def _fault_of(group: Group, answer: Answer) -> str | None:
    if len(answer) != len(group.trajectories):
        return f"gave {len(answer)} answers for {len(group.trajectories)} trajectories"
    for trajectory, steps in zip(group.trajectories, answer, strict=True):
        if steps is not None and (fault := _fault_of_one(trajectory, steps)) is not None:
            return f"{fault} for sibling {trajectory.sibling}"
    return None


def _fault_of_one(trajectory: Trajectory, steps: StepScores) -> str | None:
    if len(steps.scores) != len(steps.spans):
        return f"gave {len(steps.scores)} scores for {len(steps.spans)} steps"
    if any(map(math.isinf, steps.scores.tolist())):
        return "gave an infinite score"
    length = len(trajectory.token_ids)
    if steps.spans and not trajectory.prompt_len <= steps.spans[0].start < steps.spans[-1].end <= length:
        place = f"[{steps.spans[0].start}, {steps.spans[-1].end})"
        return f"put steps at tokens {place}, outside of the response [{trajectory.prompt_len}, {length})"
    return None
