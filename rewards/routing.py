"""Which verifiers judge a sample, and the verdicts that need no sandbox. Shared by the service and its client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from rewards.compose import compose
from rewards.config import TASK_VERIFIER, PluginConfig, RewardsConfig
from rewards.outcome import UNJUDGEABLE_FINISHES, Sample, unjudged
from rewards.plugins.spec import PluginSpec
from rewards.verifier import BUILT_IN_VERIFIERS, FOREIGN, traits_of
from rollout.schema import Outcome, Status


class UnknownVerifierError(ValueError):
    """A verifier was named that is not registered."""


class VerifierSettingsError(ValueError):
    """A recipe's settings do not fit the verifier they are for."""


class Question(NamedTuple):
    """One verifier and the sample it is asked about, with its settings in it."""

    target: str
    sample: Sample


class Routing:
    """The reward's components over the registered verifiers. `verifiers` maps a name to 'module:attribute'.

    What is not built in is a plugin: its target binds it to its settings, see `rewards.plugins`.
    """

    def __init__(self, config: RewardsConfig, verifiers: Mapping[str, str]) -> None:
        """Raises UnknownVerifierError for a component that names no registered verifier, VerifierSettingsError for
        settings that it does not have."""
        self._components = {name: component.verifier for name, component in config.components.items()}
        self._weights = {name: component.weight for name, component in config.components.items()}
        self._verifiers = {
            name: place if is_ours(place) else plugin_spec(name, place, config).target()
            for name, place in verifiers.items()
        }
        for name in set(self._components.values()) - {TASK_VERIFIER}:
            self.target(name)
        self._settings = {name: component.settings for name, component in config.components.items()}
        self._task_settings = config.task_settings
        for where, verifier, settings in [
            *((f"components.{n}.settings", c.verifier, c.settings) for n, c in config.components.items() if c.settings),
            *((f"task_settings.{name}", name, settings) for name, settings in config.task_settings.items()),
        ]:
            check_settings(f"rewards.{where}", self.target(verifier), settings)

    def target(self, verifier: str) -> str:
        """What a worker loads for a registered name."""
        if verifier not in self._verifiers:
            known = ", ".join(sorted(self._verifiers)) or "none"
            raise UnknownVerifierError(f"no verifier is registered as {verifier!r}; registered are: {known}")
        return self._verifiers[verifier]

    def verifiers_of(self, sample: Sample) -> set[str]:
        """Names of the verifiers that judge this sample."""
        return {sample.verifier if name == TASK_VERIFIER else name for name in self._components.values()}

    def with_settings(self, verifier: str, sample: Sample) -> Sample:
        """The sample as `verifier` sees it: with its component's settings, or with those of the tasks that name it."""
        for name, component in self._components.items():
            if component == verifier and self._settings[name]:
                return replace(sample, settings=self._settings[name])
        settings = self._task_settings.get(verifier)
        return replace(sample, settings=settings) if settings else sample

    def questions(self, sample: Sample) -> dict[str, Question | Outcome]:
        """For each component the verifier to ask, or the outcome when there is nothing to ask."""
        if sample.finish in UNJUDGEABLE_FINISHES:
            skipped = unjudged(Status.SKIPPED, f"not generated ({sample.finish})")
            return dict.fromkeys(self._components, skipped)
        questions: dict[str, Question | Outcome] = {}
        for name, verifier in self._components.items():
            is_tasks = verifier == TASK_VERIFIER
            settings = self._task_settings.get(sample.verifier, {}) if is_tasks else self._settings[name]
            try:
                target = self.target(sample.verifier if is_tasks else verifier)
                questions[name] = Question(target, replace(sample, settings=settings) if settings else sample)
            except UnknownVerifierError as error:
                questions[name] = unjudged(Status.CRASH, str(error))
        return questions

    @property
    def weights(self) -> Mapping[str, float]:
        """Of the components, by name."""
        return self._weights

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Other weights for the components. Raises ValueError for names that are not theirs."""
        if weights.keys() != self._components.keys():
            raise ValueError(
                f"the reward's components are {sorted(self._components)}, got weights of {sorted(weights)}; "
                "give one for each"
            )
        self._weights = dict(weights)

    def verdict(self, components: Mapping[str, Outcome], weights: Mapping[str, float] | None = None) -> Outcome:
        """The whole out of its components; `weights` takes the place of the component's own."""
        return compose(components, self._weights if weights is None else weights)

    def quick_verdict(self, sample: Sample) -> Outcome | None:
        """The verdict where bounded string work decides every component; None sends the sample to the service."""
        outcomes: dict[str, Outcome] = {}
        for name, question in self.questions(sample).items():
            outcome = question if isinstance(question, Outcome) else answer_in_process(*question)
            if outcome is None:
                return None
            outcomes[name] = outcome
        return self.verdict(outcomes)


def is_ours(place: str) -> bool:
    """Whether a function keeps the contract of `rewards.verifier` itself, so that no adapter stands before it."""
    return place in BUILT_IN_VERIFIERS.values() or traits_of(place) is not FOREIGN


def plugin_spec(name: str, place: str, config: RewardsConfig) -> PluginSpec:
    """A plugin with the settings that `rewards.plugins` has for its name."""
    settings = config.plugins.get(name, PluginConfig())
    low, high = settings.range
    return PluginSpec(
        name=name,
        place=place,
        adapter=settings.adapter,
        reads_thinking=settings.reads_thinking,
        low=low,
        high=high,
        max_seconds=settings.max_seconds,
        default_seconds=config.sandbox.max_seconds,
        batch_size=settings.batch_size,
    )


def answer_in_process(target: str, sample: Sample) -> Outcome | None:
    """What a verifier that was granted it says outside the sandbox; None when it must go there."""
    in_process = traits_of(target).in_process
    if in_process is None:
        return None
    try:
        return in_process(sample)
    # A fault met on one answer must not end the run: the sandbox meets the same one and reports it as a crash.
    except Exception:  # noqa: BLE001
        return None


def check_settings(where: str, target: str, settings: Mapping[str, Any]) -> None:
    """Raise VerifierSettingsError unless the verifier has a schema that `settings` fit, or declares none."""
    schema = traits_of(target).settings
    if schema is None:
        return
    try:
        schema.model_validate(settings)
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        known = ", ".join(schema.model_fields)
        raise VerifierSettingsError(
            f"{where} does not fit its verifier: {mistakes}; its settings are: {known}"
        ) from None


def settings_key(sample: Sample) -> str:
    """Equal for equal settings, whatever their order."""
    return json.dumps(sample.settings, sort_keys=True) if sample.settings else ""
