"""What a shaper reads of a group, and what all shapers do alike: start late, leave the unjudged alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rollout.schema import BoolArray, Float32Array, Group, Outcome

FloatArray = npt.NDArray[np.float64]


class Settings(Protocol):
    """What the settings of every shaper hold."""

    @property
    def correct_from(self) -> float: ...

    @property
    def start_version(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Siblings:
    """One group; every array is [G]. `scores` is NaN where unjudged; lengths are tokens after the prompt, thinking and
    answer together; `thinking` counts the sampled tokens inside the marks."""

    scores: FloatArray
    judged: BoolArray
    correct: BoolArray
    lengths: FloatArray
    thinking: FloatArray

    @classmethod
    def of(cls, group: Group, outcomes: Sequence[Outcome], *, correct_from: float) -> Siblings:
        scores = np.array([np.nan if o.score is None else o.score for o in outcomes], dtype=np.float64)
        trajectories = group.trajectories
        return cls(
            scores=scores,
            judged=~np.isnan(scores),
            correct=scores >= correct_from,
            lengths=np.array([t.num_response_tokens for t in trajectories], dtype=np.float64),
            thinking=np.array([t.num_thinking_tokens for t in trajectories], dtype=np.float64),
        )


class GroupShaper:
    """Base of the shapers: an algorithm gives `terms`, for judged siblings; what it gives for others is not used."""

    name: str

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        """Components by name, [G] each, added to the outcome score."""
        raise NotImplementedError

    def __call__(self, group: Group, outcomes: Sequence[Outcome]) -> dict[str, Float32Array]:
        """Components in sibling order, [G] each, 0 where unjudged; empty before `start_version`."""
        if min(t.policy.start for t in group.trajectories) < self._settings.start_version:
            return {}
        siblings = Siblings.of(group, outcomes, correct_from=self._settings.correct_from)
        if not siblings.judged.any():
            return {name: np.zeros(len(outcomes), dtype=np.float32) for name in self.terms(group, siblings)}
        return {
            name: np.where(siblings.judged, values, 0.0).astype(np.float32)
            for name, values in self.terms(group, siblings).items()
        }


def named_number(group: Group) -> int:
    """The number of tokens that the group's prompt names. Raises ValueError when it names none."""
    number = group.job.budget.target_tokens
    if number is None:
        raise ValueError(
            f"this shaping needs a number of tokens in the prompt, and effort {group.job.budget.effort!r} names none: "
            "put {tokens} into its instruction"
        )
    return number
