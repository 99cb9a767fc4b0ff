"""Which verifiers judge a sample, and the verdicts that need no sandbox. Shared by the service and its client."""

from __future__ import annotations

from collections.abc import Mapping

from rewards.compose import compose
from rewards.config import TASK_VERIFIER, RewardsConfig
from rewards.outcome import UNJUDGEABLE_FINISHES, Sample, unjudged
from rewards.verifier import traits_of
from rollout.schema import Outcome, Status


class UnknownVerifierError(ValueError):
    """A verifier was named that is not registered."""


class Routing:
    """The reward's components over the registered verifiers. `verifiers` maps a name to 'module:attribute'."""

    def __init__(self, config: RewardsConfig, verifiers: Mapping[str, str]) -> None:
        """Raises UnknownVerifierError for a component that names no registered verifier."""
        self._components = {name: component.verifier for name, component in config.components.items()}
        self._weights = {name: component.weight for name, component in config.components.items()}
        self._verifiers = dict(verifiers)
        for name in set(self._components.values()) - {TASK_VERIFIER}:
            self.target(name)

    def target(self, verifier: str) -> str:
        """'module:attribute' of a registered name."""
        if verifier not in self._verifiers:
            known = ", ".join(sorted(self._verifiers)) or "none"
            raise UnknownVerifierError(f"no verifier is registered as {verifier!r}; registered are: {known}")
        return self._verifiers[verifier]

    def verifiers_of(self, sample: Sample) -> set[str]:
        """Names of the verifiers that judge this sample."""
        return {sample.verifier if name == TASK_VERIFIER else name for name in self._components.values()}

    def questions(self, sample: Sample) -> dict[str, str | Outcome]:
        """For each component the target to ask, or the outcome when there is nothing to ask."""
        if sample.finish in UNJUDGEABLE_FINISHES:
            skipped = unjudged(Status.SKIPPED, f"not generated ({sample.finish})")
            return dict.fromkeys(self._components, skipped)
        questions: dict[str, str | Outcome] = {}
        for name, verifier in self._components.items():
            try:
                questions[name] = self.target(sample.verifier if verifier == TASK_VERIFIER else verifier)
            except UnknownVerifierError as error:
                questions[name] = unjudged(Status.CRASH, str(error))
        return questions

    def verdict(self, components: Mapping[str, Outcome]) -> Outcome:
        """The whole out of its components."""
        return compose(components, self._weights)

    def quick_verdict(self, sample: Sample) -> Outcome | None:
        """The verdict where bounded string work decides every component; None sends the sample to the service."""
        outcomes: dict[str, Outcome] = {}
        for name, question in self.questions(sample).items():
            outcome = question if isinstance(question, Outcome) else answer_in_process(question, sample)
            if outcome is None:
                return None
            outcomes[name] = outcome
        return self.verdict(outcomes)


def answer_in_process(target: str, sample: Sample) -> Outcome | None:
    """What a verifier that was granted it says outside the sandbox; None when it must go there."""
    in_process = traits_of(target).in_process
    return None if in_process is None else in_process(sample)
