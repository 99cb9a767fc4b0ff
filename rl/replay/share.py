"""Replay of a share: every batch gets some trajectories of earlier ones, until their gradient says no."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rl.batch import StepResult, TrainingSample
from rl.diagnostics.schedule import spread_out
from rl.plan import StepPlan
from rl.ports import State
from rl.replay.config import ShareReplay
from rl.replay.eligible import draw, eligible, how_many, priorities
from rl.replay.store import Kept, TrajectoryStore
from rl.replay.verdicts import Verdict, name_of, verdicts
from rl.replay.watch import GradientComparer, Watch
from rollout.schema import Metric

Warn = Callable[[str], None]


class SharePolicy:
    """Implements `rl.plan.BatchPolicy`. Draws are a function of seed, step and store, so a resumed run repeats them."""

    name = "replay"

    def __init__(
        self,
        config: ShareReplay,
        store: TrajectoryStore,
        comparer: GradientComparer,
        *,
        seed: int,
        warn: Warn,
        domain_weights: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """`domain_weights` are multiplied into the priorities; `warn` is told when replay is switched off."""
        self._config = config
        self._store = store
        self._comparer = comparer
        self._seed = seed
        self._warn = warn
        self._domain_weights = domain_weights
        self._watch = Watch(config.watch_patience)
        self._drawn = np.zeros(0, dtype=np.int64)
        self._names: list[str] = []  # of what was drawn
        self._fresh: Sequence[TrainingSample] = ()  # as they came, before later policies
        self._metrics: list[Metric] = []
        self._state: State = {}

    async def plan(self, plan: StepPlan) -> StepPlan:
        """Put the replayed samples behind the fresh ones."""
        self._metrics, self._drawn, self._fresh = [], self._drawn[:0], plan.batch.fresh
        if self._watch.is_off:
            return plan
        samples = await asyncio.to_thread(self._draw, plan.step, len(plan.batch.samples))
        if samples and self._is_watching(plan.step):
            await self._compare(plan, samples)
            if self._watch.is_off:
                self._drawn = self._drawn[:0]
                return plan
        self._names = [name_of(s) for s in samples]
        return replace(plan, batch=replace(plan.batch, samples=(*plan.batch.samples, *samples)))

    async def observe(self, plan: StepPlan, results: Sequence[StepResult]) -> None:
        """Count the uses, note the drift, and keep what was fresh."""
        if self._drawn.size:
            self._store.index["uses"][self._drawn] += 1
            drift = results[0].drift
            self._store.index["drift"][self._drawn] = [drift.get(name, np.nan) for name in self._names]
        if self._watch.is_off:
            return
        judged = verdicts(plan.groups)
        kept = [_kept(s, judged[name_of(s)]) for s in self._fresh if name_of(s) in judged]
        kept = [k for k in kept if self._is_wanted(judged[name_of(k.sample)])]
        if kept:
            await asyncio.to_thread(self._store.add, plan.step, kept)

    def metrics(self) -> list[Metric]:
        values = {"replay/held": len(self._store), "replay/is_on": float(not self._watch.is_off)}
        return [*self._metrics, *(Metric(name=n, value=v, reduce="last") for n, v in values.items())]

    def state_dict(self) -> State:
        return {"watch": self._watch.state_dict(), "store": self._store.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self._watch.load_state_dict(state["watch"])
        self._state = state["store"]

    def save(self, folder: Path) -> None:
        self._store.save(folder)

    def restore(self, folder: Path | None) -> None:
        self._store.restore(folder, self._state)

    def _draw(self, step: int, num_fresh: int) -> list[TrainingSample]:
        config, store = self._config, self._store
        held = store.held()
        candidates = held[eligible(config, store.index[held], step=step)]
        weights = priorities(
            config, store.index[held], step=step, sources=store.sources, domain_weights=self._domain_weights()
        )
        store.index["priority"][held] = weights
        rng = np.random.default_rng([self._seed, step])
        chosen = draw(
            rng, candidates, store.index["priority"][candidates].astype(np.float64), how_many(config.share, num_fresh)
        )
        self._drawn = chosen
        self._metrics = [
            Metric(name="replay/eligible", value=candidates.size, reduce="last"),
            Metric(name="replay/samples", value=chosen.size, reduce="last"),
        ]
        if chosen.size:
            ages = step - store.index["step"][chosen]
            self._metrics.append(Metric(name="replay/age", value=float(ages.mean()), reduce="last"))
        return store.read(chosen)

    def _is_watching(self, step: int) -> bool:
        return self._config.watch_every > 0 and step % self._config.watch_every == 0

    async def _compare(self, plan: StepPlan, samples: Sequence[TrainingSample]) -> None:
        count = self._config.watch_samples
        fresh, replayed = spread_out(plan.batch.fresh, count), spread_out(samples, count)
        if not fresh:
            return
        cosine = await self._comparer.gradient_cosine(fresh, replayed)
        self._metrics.append(Metric(name="replay/gradient_cosine", value=cosine, reduce="last"))
        if self._watch.observe(cosine):
            self._warn(
                f"replay is switched off from step {plan.step} on: its gradient pointed against that of fresh samples "
                f"{self._config.watch_patience} times in a row (cosine {cosine:.3f}); lower mix.replay.max_age or "
                "mix.replay.share in the next run"
            )

    def _is_wanted(self, verdict: Verdict) -> bool:
        return self._config.outcome == "any" or verdict.is_right == (self._config.outcome == "right")


def _kept(sample: TrainingSample, verdict: Verdict) -> Kept:
    return Kept(sample=sample, outcome=verdict.outcome, solved=verdict.solved)
