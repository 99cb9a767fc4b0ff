"""Re-weighting as a policy: watches the rewards of domains and components, and scales advantages and scores by them.

Components act where credit is computed, when a batch is packed: with `max_lag` above 0 that may be a step before the
newest rewards are known. Domains act when the step's turn has come.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from rl.batch import StepResult, Stream, TrainingBatch
from rl.plan import Stateless, StepPlan
from rl.ports import Credit, State
from rl.record import Settled
from rl.reweight import recap
from rl.reweight.config import RecapConfig
from rollout.schema import Float32Array, Metric, Outcome, ScoredGroup

READINGS = {"recommended": recap.recommended, "paper": recap.paper, "code": recap.code}


class History:
    """Mean rewards of named objectives over the last two windows, and the weights that follow from them."""

    def __init__(self, config: RecapConfig) -> None:
        self._config = config
        self._rewards: dict[str, deque[float]] = {}

    def push(self, name: str, reward: float) -> None:
        """An objective that is absent from a step keeps the history it has."""
        self._rewards.setdefault(name, deque(maxlen=2 * self._config.window)).append(reward)

    def weights(self) -> dict[str, float]:
        """By name, summing to their number; 1 each until every window is full."""
        names = sorted(self._rewards)
        if not names or any(len(self._rewards[name]) < 2 * self._config.window for name in names):
            return dict.fromkeys(names, 1.0)
        found = READINGS[self._config.reading]([list(self._rewards[n]) for n in names], self._config.temperature)
        return dict(zip(names, found.tolist(), strict=True))

    def metrics(self, kind: str) -> Iterator[Metric]:
        """Weight, convergence old / new and instability of each objective whose windows are full, and its reward."""
        weights = self.weights()
        for name, rewards in sorted(self._rewards.items()):
            values = {"weight": weights[name], "reward": rewards[-1]}
            if len(rewards) == 2 * self._config.window:
                known = np.asarray(rewards)
                old, new = (half.mean() + recap.SMALLEST for half in np.split(known, 2))
                values |= {"convergence": old / new, "instability": known.std(ddof=1) / (old + new)}
            for key, value in values.items():
                yield Metric(name=f"reweight/{kind}/{name}/{key}", value=float(value), reduce="last")

    def state_dict(self) -> State:
        return {name: list(rewards) for name, rewards in self._rewards.items()}

    def load_state_dict(self, state: State) -> None:
        self._rewards = {name: deque(rewards, maxlen=2 * self._config.window) for name, rewards in state.items()}


class RecapPolicy(Stateless):
    """Implements `rl.plan.BatchPolicy`; components act through `ReweighedCredit`."""

    name = "reweight"

    def __init__(self, config: RecapConfig, component_weights: Mapping[str, float]) -> None:
        """`component_weights` are those that the judge composes the score with."""
        self._config = config
        self._components = dict(component_weights)
        self.domains = History(config)
        self.components = History(config)

    def domain_weights(self) -> dict[str, float]:
        return self.domains.weights() if "domains" in self._config.over else {}

    async def plan(self, plan: StepPlan) -> StepPlan:
        """Multiply the advantages of every sample by the weight of its domain."""
        weights = self.domain_weights()
        return replace(
            plan, batch=_scaled(plan.batch, weights), more=tuple(_scaled(batch, weights) for batch in plan.more)
        )

    async def observe(self, plan: StepPlan, results: Sequence[StepResult]) -> None:
        """Take the mean rewards of the step, of dropped groups too: a domain that is all right has not vanished."""
        by_domain: defaultdict[str, list[float]] = defaultdict(list)
        by_component: defaultdict[str, list[float]] = defaultdict(list)
        for source, outcome in _judged(plan.groups):
            assert outcome.score is not None
            by_domain[source].append(outcome.score)
            for name in self._components:
                if name in outcome.parts:
                    by_component[name].append(outcome.parts[name])
        for history, rewards in ((self.domains, by_domain), (self.components, by_component)):
            for name, values in sorted(rewards.items()):
                history.push(name, float(np.mean(values)))

    def reweigh(self, scored: ScoredGroup) -> ScoredGroup:
        """The group with the scores that credit is computed from: components weighed by their factors."""
        if "components" not in self._config.over:
            return scored
        factors = self.components.weights()
        return replace(scored, outcomes=tuple(self._recomposed(outcome, factors) for outcome in scored.outcomes))

    def metrics(self) -> list[Metric]:
        found = list(self.domains.metrics("domain"))
        return found + (list(self.components.metrics("component")) if "components" in self._config.over else [])

    def state_dict(self) -> State:
        return {"domains": self.domains.state_dict(), "components": self.components.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.domains.load_state_dict(state["domains"])
        self.components.load_state_dict(state["components"])

    def _recomposed(self, outcome: Outcome, factors: Mapping[str, float]) -> Outcome:
        """The weighted mean of the parts, with every weight multiplied by its factor; in [0, 1] as before."""
        if outcome.score is None or not all(name in outcome.parts for name in self._components):
            return outcome
        weights = {name: weight * factors.get(name, 1.0) for name, weight in self._components.items()}
        score = sum(weight * outcome.parts[name] for name, weight in weights.items()) / sum(weights.values())
        return replace(outcome, score=min(score, 1.0))


class ReweighedCredit:
    """Implements `rl.ports.Credit`: another credit, over the scores that a policy recomposes. What is recorded stays as
    it was judged."""

    def __init__(self, credit: Credit, policy: RecapPolicy) -> None:
        self.name = credit.name
        self.needs_greedy_baseline = credit.needs_greedy_baseline
        self._credit = credit
        self._policy = policy

    def __call__(self, groups: Sequence[ScoredGroup]) -> Sequence[tuple[Float32Array | None, ...]]:
        return self._credit([self._policy.reweigh(scored) for scored in groups])


def _judged(groups: Iterable[Settled]) -> Iterator[tuple[str, Outcome]]:
    for settled in groups:
        for outcome in settled.scored.outcomes:
            if outcome.score is not None:
                yield settled.scored.group.job.task.source, outcome


def _scaled(batch: TrainingBatch, weights: Mapping[str, float]) -> TrainingBatch:
    samples = tuple(
        s
        if (weight := weights.get(s.source, 1.0)) == 1.0 or s.stream is Stream.TEXT
        else replace(s, advantages=(s.advantages * np.float32(weight)))
        for s in batch.samples
    )
    return replace(batch, samples=samples)
