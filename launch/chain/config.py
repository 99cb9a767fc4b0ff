"""Settings of a chain: stages of training, each from the weights of the one before, and suites it is measured on."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from rl.preference.config import PairsConfig, PreferenceConfig, SampledPairs
from rollout.config import PlainTaskSource

_SETTINGS = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]
START = "start"


class ChainSection(BaseModel):
    """What the chain is called, what its stages have in common, and how it is measured."""

    model_config = _SETTINGS

    name: Name = "chain"
    """Name of the chain and of its directory; a second chain of that name gets `-2` appended."""
    dir: Annotated[str, Field(min_length=1)] = "runs"
    """Directory that holds the chain's."""
    recipe: Annotated[str, Field(min_length=1)]
    """Recipe that every stage is a change of: a file, or the name of a shipped one."""
    mode: str | None = None
    """Mode that suites are answered in; None takes the recipe's first effort."""
    samples: PositiveInt = 1
    """Attempts at each task of a suite."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Temperature of these attempts; 0 is greedy."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of these attempts and of the suites' own tasks."""
    evaluate_start: bool = True
    """Measure the model before the first stage, too."""


class _Stage(BaseModel):
    model_config = _SETTINGS

    recipe: str | None = None
    """Another recipe for this stage; its model section is not used, except by the first stage."""
    settings: dict[str, Any] = {}
    """Changes to the recipe, as its tables; a table with another `type` replaces the one that was there."""


class SftStage(_Stage):
    """Supervised training on worked solutions: the recipe's cold start."""

    type: Literal["sft"]
    """Selects this kind of stage."""


class PreferenceStage(_Stage):
    """Preference optimization on pairs of right and wrong attempts."""

    type: Literal["preference"]
    """Selects this kind of stage."""
    pairs: PairsConfig = SampledPairs()
    """Where the pairs come from."""
    optimize: PreferenceConfig
    """How they move the model."""


class RlStage(_Stage):
    """Reinforcement learning on verified rewards: the recipe's training, without its cold start."""

    type: Literal["rl"]
    """Selects this kind of stage."""


Stage = Annotated[SftStage | PreferenceStage | RlStage, Field(discriminator="type")]


class Suite(BaseModel):
    """Tasks that are never trained on."""

    model_config = _SETTINGS

    tasks: str | None = None
    """`held_out` of the chain's recipe, the name of a recipe, whose held-out tasks are taken, or a file of tasks."""
    source: PlainTaskSource | None = None
    """Or a source of its own, seeded as held-out tasks are."""
    limit: PositiveInt = 200
    """Most tasks taken."""

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if (self.tasks is None) == (self.source is None):
            raise ValueError("a suite has either tasks (held_out, a recipe, a file) or a source; name one of the two")
        return self


class ChainConfig(BaseModel):
    """One chain, in TOML. Tables of stages are run in the order in which the file names them."""

    model_config = _SETTINGS

    chain: ChainSection
    """Name, recipe and measurement."""
    settings: dict[str, Any] = {}
    """Changes to the recipe for all stages and for the suites."""
    stages: Annotated[dict[Name, Stage], Field(min_length=1)]
    """The stages by name, in order."""
    suites: Annotated[dict[Name, Suite], Field(min_length=1)]
    """The suites by name."""

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        if START in self.stages:
            raise ValueError(f"a stage cannot be called {START!r}, which is the row before the first one; rename it")
        return self
