"""Settings of hybrid updates: demonstrations, negative examples and hints. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from rl.losses.estimator_config import Estimator
from rl.losses.term_config import Settings

Gate = Annotated[int, Field(ge=-1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class DemonstrationsConfig(Settings):
    """Where the policy fails, it learns from the worked solution that comes with the task."""

    gate: Gate = 0
    """Right answers of a group up to which its solution is trained on; -1 never, the group size always."""
    gates: dict[str, Gate] = Field(default={})
    """The same for single sources of tasks, such as a general domain that is to be kept by supervised replay."""
    rollouts: Literal["drop", "keep"] = "drop"
    """Whether the group's own answers then leave the batch (HPT), or stay beside the solution (LUFFY)."""
    advantage: Literal["constant", "group"] = "constant"
    """The solution's advantage: 1, or 1 minus the mean score of the group with the solution in it."""
    coefficient: PositiveFloat = 1.0
    """Multiplied into the advantage of a solution."""
    negative: NonNegativeFloat = 0.0
    """Pushed down with this weight are solutions that do not arrive at the task's answer; 0 leaves them out."""
    estimator: Estimator = Estimator()
    """How a solution pulls on the weights; as it stands, as in supervised training."""


class HintsConfig(Settings):
    """UFT: the response begins with a part of the worked solution, which shrinks over training."""

    chunks: PositiveInt = 5
    """Equal parts of the solution's thinking, of which a binomial number is given."""
    start: Probability = 0.95
    """Probability of each part in the first step."""
    end: Probability = 0.05
    """Probability of each part in the last step with hints; along a cosine in between."""
    steps: PositiveInt
    """Steps with hints; after them there are none."""
    coefficient: NonNegativeFloat = 0.001
    """Weight of learning the hint itself, with the estimator of mix.demonstrations."""

    @model_validator(mode="after")
    def _hints_shrink(self) -> Self:
        if self.end > self.start:
            raise ValueError(f"hints shrink: end = {self.end} must be at most start = {self.start}; swap them")
        return self


class TextConfig(Settings):
    """Plain text, learned next token by next token beside reinforcement learning (RMT's second term)."""

    paths: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """Text files, each cut into chunks; patterns such as data/*.txt are expanded in sorted order. A line of a .jsonl
    file is a text of its own, {"text": ..., "skip": [[from, to], ...]}: characters that are read, and not learned."""
    chunk_tokens: Annotated[int, Field(ge=2)] = 256
    """Tokens of a chunk; what is left at the end of a file is a shorter one."""
    chunks_per_step: PositiveInt = 8
    """Chunks drawn for every step."""
    coefficient: PositiveFloat = 0.1
    """Weight of the mean negative log-probability of their tokens."""
    estimator: Estimator = Estimator()
    """How text pulls on the weights; as it stands, as in supervised training."""
