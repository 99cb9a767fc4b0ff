"""Settings of the process-reward service: where steps are cut and who scores them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A closed, frozen part of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NewlineSplitter(Section):
    """Every line is a step."""

    type: Literal["newline"] = "newline"
    """Selects this splitter."""


class BlankLineSplitter(Section):
    """Paragraphs are steps; code fences and display formulas are never cut."""

    type: Literal["blank_line"] = "blank_line"
    """Selects this splitter."""


class SeparatorSplitter(Section):
    """A fixed string ends each step."""

    type: Literal["separator"] = "separator"
    """Selects this splitter."""

    separator: Annotated[str, Field(min_length=1, max_length=32)] = ";"
    """The string that ends a step; it belongs to the step it ends."""


SplitterConfig = Annotated[NewlineSplitter | BlankLineSplitter | SeparatorSplitter, Field(discriminator="type")]


class NoPrmConfig(Section):
    """No step scores."""

    type: Literal["none"] = "none"
    """Selects no scorer."""


class ExactPrmConfig(Section):
    """Step scores from checking the arithmetic a step states."""

    type: Literal["exact"] = "exact"
    """Selects the exact checker."""

    splitter: SplitterConfig = NewlineSplitter()
    """Where the thinking text is cut into steps."""

    chain: bool = False
    """Read each step as an expression that must equal the one before it, the first the prompt's own expression."""

    include_answer: bool = False
    """Score the answer text as a last step of its own."""

    max_step_chars: Annotated[int, Field(ge=16, le=65_536)] = 2_000
    """A longer step is left unjudged."""

    num_workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Worker processes for claims that need computer algebra; started when first needed."""

    max_seconds: Annotated[float, Field(gt=0, le=3600)] = 3.0
    """Wall-clock seconds one such claim may take before its worker is killed and the claim left unjudged."""

    max_memory_mib: Annotated[int, Field(ge=256, le=1 << 20)] = 1536
    """Address space of one worker in MiB."""

    max_pending_groups: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Groups being scored at once; a caller beyond this bound waits."""

    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Seconds after which a group being scored is given up: no step scores for its trajectories."""


PrmConfig = Annotated[NoPrmConfig | ExactPrmConfig, Field(discriminator="type")]
