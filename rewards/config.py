"""Settings of the verifier service: what a reward is made of, and the limits that judging runs under."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

TASK_VERIFIER = "task"

AdapterName = Literal["native", "verl", "trl", "trl_chat", "openrlhf", "openrlhf_http", "verifiers", "verifiers_text"]
"""Call shapes of reward functions, see `rewards.plugins.adapters`. trl_chat: completions as message lists;
verifiers_text: as texts."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SandboxConfig(_Section):
    """Limits of the killable processes that run verifiers."""

    num_workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Worker processes that a plugin, and all built-in verifiers together, may have at once without waiting for them;
    each is started when it is first needed."""

    max_workers: Annotated[int, Field(ge=1, le=256)] | None = None
    """Worker processes that these may grow to while work waits; left out: 4, or `num_workers` where that is more."""

    max_seconds: Annotated[float, Field(gt=0, le=3600)] = 3.0
    """Wall-clock seconds one sample may take before its worker is killed."""

    max_memory_mib: Annotated[int, Field(ge=256, le=1 << 20)] = 1536
    """Address space of one worker in MiB; an allocation beyond it fails inside the worker."""

    max_start_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Seconds a worker may take to start, and again to import one verifier."""

    @property
    def most_workers(self) -> int:
        return self.max_workers or max(4, self.num_workers)

    @model_validator(mode="after")
    def _limits_are_ordered(self) -> SandboxConfig:
        if self.most_workers < self.num_workers:
            raise ValueError(
                f"rewards.sandbox.max_workers ({self.max_workers}) must be at least rewards.sandbox.num_workers "
                f"({self.num_workers}): raise the first or lower the second"
            )
        return self


class PluginConfig(_Section):
    """A reward function of one's own, under a name of one's own. What is left out, the function decides."""

    path: Annotated[str, Field(min_length=1)] | None = None
    """File (path/to/file.py:function), dotted path (package.module:function) or address of a remote reward model;
    left out: the section's name is one of these, or a registered name."""

    adapter: AdapterName | None = None
    """Call shape of the function; left out: told by the names of its parameters, and refused where they fit several."""

    reads_thinking: bool | None = None
    """Whether it sees the thinking; false hands it the answer alone, and lets its verdicts be reused."""

    range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest number it returns, mapped to 0 and 1; a number outside leaves the sample unjudged."""

    max_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Wall-clock seconds of one call, in place of `rewards.sandbox.max_seconds`."""

    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Most samples in one call of a batch function; for an async one, most calls that wait at once."""

    @model_validator(mode="after")
    def _range_is_ordered(self) -> PluginConfig:
        low, high = self.range
        if not low < high:
            raise ValueError(
                f"range must go from the lowest to the highest score, got [{low}, {high}]: swap or widen it"
            )
        return self


class QuotaConfig(_Section):
    """How often a plugin may fail before the run stops."""

    max_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of its last `window` verdicts that may be failures (crash, timeout, no number); 1 never stops a run."""

    window: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Verdicts of one plugin that the share is taken over; fewer never stop a run."""


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

    plugins: Annotated[dict[str, PluginConfig], Field(max_length=64)] = {}
    """Reward functions of one's own by name; components and tasks name them as they name registered verifiers."""

    quota: QuotaConfig = QuotaConfig()
    """When failing plugins stop the run."""

    cache_size: Annotated[int, Field(ge=0, le=10_000_000)] = 65_536
    """Number of (verifier, reference, answer) verdicts kept, for verifiers that read nothing else; 0 turns it off."""

    max_pending_groups: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Groups being judged at once; a caller beyond this bound waits."""

    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Seconds after which a group being judged is given up as unjudged (status timeout)."""

    @model_validator(mode="after")
    def _deadline_holds_one_sample(self) -> RewardsConfig:
        limits = {"rewards.sandbox.max_seconds": self.sandbox.max_seconds}
        limits |= {f"rewards.plugins.{n}.max_seconds": p.max_seconds or 0.0 for n, p in self.plugins.items()}
        for name, seconds in limits.items():
            if self.deadline_s < seconds:
                raise ValueError(
                    f"rewards.deadline_s ({self.deadline_s}) must be at least {name} ({seconds}): raise the first or "
                    f"lower the second"
                )
        return self
