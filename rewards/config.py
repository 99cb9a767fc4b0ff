"""Settings of the verifier service: what a reward is made of, and the limits that judging runs under."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

TASK_VERIFIER = "task"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SandboxConfig(_Section):
    """Limits of the killable processes that run verifiers."""

    num_workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of worker processes; each is started when it is first needed."""

    max_seconds: Annotated[float, Field(gt=0, le=3600)] = 3.0
    """Wall-clock seconds one sample may take before its worker is killed."""

    max_memory_mib: Annotated[int, Field(ge=256, le=1 << 20)] = 1536
    """Address space of one worker in MiB; an allocation beyond it fails inside the worker."""

    max_start_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Seconds a worker may take to start, and again to import one verifier."""


class ComponentConfig(_Section):
    """One term of the reward."""

    verifier: Annotated[str, Field(min_length=1)] = TASK_VERIFIER
    """Name of a registered verifier; 'task' means the verifier that each task names."""

    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Relative weight; weights are divided by their sum, so the reward stays in [0, 1]."""

    settings: dict[str, JsonValue] = {}
    """Settings of the named verifier; for those of verifiers that tasks name see `task_settings`."""

    @model_validator(mode="after")
    def _settings_have_an_owner(self) -> ComponentConfig:
        if self.settings and self.verifier == TASK_VERIFIER:
            raise ValueError(
                "settings belong to one verifier: name it in `verifier`, or write them to "
                "[rewards.task_settings.NAME] for the tasks that name it"
            )
        return self


class RewardsConfig(_Section):
    """How a trajectory becomes a verdict."""

    components: Annotated[dict[str, ComponentConfig], Field(min_length=1, max_length=16)] = {
        "answer": ComponentConfig()
    }
    """Named terms of the reward; one term that cannot be judged leaves the whole trajectory unjudged."""

    task_settings: dict[str, dict[str, JsonValue]] = {}
    """Settings of the verifiers that tasks name, by the verifier's name."""

    sandbox: SandboxConfig = SandboxConfig()
    """Limits of the worker processes."""

    max_bad_references: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of tasks that may be set aside because no verifier can judge their reference; above it the run stops."""

    cache_size: Annotated[int, Field(ge=0, le=10_000_000)] = 65_536
    """Number of (verifier, reference, answer) verdicts kept, for verifiers that read nothing else; 0 turns it off."""

    max_pending_groups: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Groups being judged at once; a caller beyond this bound waits."""

    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Seconds after which a group being judged is given up as unjudged (status timeout)."""

    @model_validator(mode="after")
    def _deadline_holds_one_sample(self) -> RewardsConfig:
        if self.deadline_s < self.sandbox.max_seconds:
            raise ValueError(
                f"rewards.deadline_s ({self.deadline_s}) must be at least rewards.sandbox.max_seconds "
                f"({self.sandbox.max_seconds}): raise the first or lower the second"
            )
        return self
