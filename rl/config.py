"""Settings of the training loop: buffer, sampling, evaluation and the loop itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from rl.exploration.config import ExplorationConfig

_SETTINGS = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class BufferConfig(BaseModel):
    """How far generation may run ahead of training."""

    model_config = _SETTINGS

    max_lag: int = Field(default=0, ge=0, le=64)
    """Most batches published between sampling a group and training on it; 0 is the synchronous algorithm."""


class SamplingConfig(BaseModel):
    """Which groups may train, and what happens when one may not."""

    model_config = _SETTINGS

    judge_on: Literal["outcome", "final_reward", "off"] = "outcome"
    """What must vary in a group that trains: right against wrong, the reward with its shaping terms, or nothing."""

    min_judged: PositiveInt = 2
    """Judged siblings below which a group is dropped; a group baseline needs at least two."""

    on_drop: Literal["shrink", "replace"] = "shrink"
    """A dropped group makes its batch smaller, or gives its slot in the same step to a fresh task."""

    max_refills: int = Field(default=0, ge=0, le=64)
    """Fresh tasks that one slot may be given, after which a drop shrinks the batch; only with on_drop = "replace"."""

    surplus: int = Field(default=0, ge=0, le=4096)
    """Groups sampled ahead, which replace dropped ones at once; unused ones serve the next step, as far as
    buffer.max_lag allows; only with on_drop = "replace"."""

    exploration: ExplorationConfig | None = None
    """A reward for siblings that differ; left out: none."""

    @model_validator(mode="after")
    def _refills_fit_the_rule(self) -> SamplingConfig:
        if (self.on_drop == "replace") != (self.max_refills > 0):
            raise ValueError(
                "max_refills counts replacements, so it must be >= 1 with on_drop = 'replace' and 0 with 'shrink'; "
                f"got on_drop = {self.on_drop!r} and max_refills = {self.max_refills}"
            )
        if self.surplus and self.on_drop != "replace":
            raise ValueError(
                f"surplus groups replace dropped ones, so surplus = {self.surplus} needs on_drop = 'replace', got "
                f"{self.on_drop!r}"
            )
        return self


class ReferenceConfig(BaseModel):
    """The frozen model that KL terms compare the policy with."""

    model_config = _SETTINGS

    path: Annotated[str, Field(min_length=1)] | None = None
    """Its model directory, of the policy's vocabulary; none takes the weights that training starts from."""

    placement: Literal["actor", "learner"] = "actor"
    """A process of its own, on a GPU if the learner is; or each learner rank, in CPU memory except while it scores."""

    dtype: Literal["bfloat16", "float32"] = "float32"
    """Precision of its weights and activations."""

    sync_every: int = Field(default=0, ge=0)
    """Steps after which it takes the learner's weights, again and again; 0 keeps it as it was."""


class EvaluateConfig(BaseModel):
    """How held-out tasks are evaluated, once per effort and decoding mode."""

    model_config = _SETTINGS

    num_tasks: PositiveInt | None = None
    """Held-out tasks used, the first ones of the split; none means all."""

    sampled: bool = True
    """Evaluate with one sampled answer per task."""

    temperature: PositiveFloat = 1.0
    """Temperature of the sampled answers."""

    greedy: bool = True
    """Evaluate with one greedy answer per task."""

    seed: int = Field(default=0, ge=0)
    """Seed of the sampled answers, equal at every evaluation so that two of them differ by the weights alone."""

    max_concurrent: PositiveInt = 1024
    """Evaluation jobs under way at once."""

    at_start: bool = True
    """Evaluate before the first step of a new run."""

    at_end: bool = True
    """Evaluate after the last step."""

    @model_validator(mode="after")
    def _has_a_mode(self) -> EvaluateConfig:
        if not (self.sampled or self.greedy):
            raise ValueError("evaluation needs at least one of sampled = true and greedy = true, got neither")
        return self


class LoopConfig(BaseModel):
    """Length and rhythm of a run, and when it gives up."""

    model_config = _SETTINGS

    num_steps: PositiveInt
    """Batches to train on."""

    groups_per_step: PositiveInt
    """Groups admitted to one batch; dropped ones count."""

    eval_every: int = Field(default=0, ge=0)
    """Steps between evaluations; 0 leaves only those at the start and the end."""

    checkpoint_every: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0 leaves only the one written when the run ends or is interrupted."""

    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints kept; older ones are deleted once a newer one is whole."""

    keep_best: int = Field(default=0, ge=0)
    """Checkpoints kept besides these, those with the best `best_metric`; 0 keeps none for that."""

    best_metric: str = ""
    """Name of a metric that the step of a checkpoint must have, such as eval/high/greedy/accuracy; a minus before it
    prefers small values."""

    max_restarts: int = Field(default=2, ge=0)
    """Deaths of a learner rank or of the reference model's process after which training goes on from the newest
    checkpoint, in the same run."""

    drought_limit: PositiveInt = 512
    """Groups in a row without a training signal after which the run ends, with the reasons counted."""

    wait_deadline_s: PositiveFloat = 1800.0
    """Seconds that any one wait of the loop may last before the run ends and names it."""

    @model_validator(mode="after")
    def _best_needs_a_metric(self) -> LoopConfig:
        if (self.keep_best > 0) != bool(self.best_metric):
            raise ValueError(
                f"keep_best and best_metric go together, got keep_best = {self.keep_best} and best_metric = "
                f"{self.best_metric!r}: set both, or neither"
            )
        return self
