"""What the training loop needs from other rooms, as Protocols owned by their consumer.

`launch/build.py` hands in objects that satisfy these; tests hand in fakes from `tests/fakes/`. The driver process
loads no torch, so nothing here may mention a tensor: arrays are numpy, weights stay opaque.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rl.batch import StepResult, TrainingBatch
from rl.verdict import Tally
from rollout.schema import (
    Float32Array,
    Group,
    Job,
    Metric,
    Outcome,
    ScoredGroup,
    StepScores,
    Task,
    TokenBudget,
    Trajectory,
)

State = Mapping[str, Any]
"""What a checkpoint keeps: numbers, strings, lists, mappings with string keys, and numpy arrays of numbers or bools."""


class Generator(Protocol):
    """A pool of engines."""

    async def generate(self, job: Job) -> Group:
        """Run one job to a group of `job.num_siblings` trajectories in sibling order.

        A sibling that could not be generated is a trajectory with finish ERROR or PROMPT_TOO_LONG, never a missing one.
        """
        ...


class Judge(Protocol):
    """The verifier service."""

    async def judge(self, group: Group) -> tuple[Outcome, ...]:
        """Verdicts in sibling order. A service failure is an unjudged outcome, never an exception or a zero."""
        ...

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Use these weights of the reward's components for every verdict that is asked for from now on."""
        ...


class StepScorer(Protocol):
    """The process-reward service: exact checker today, learned models through the same port."""

    async def score(self, group: Group) -> tuple[StepScores | None, ...]:
        """Step scores in sibling order; None where the service failed on that trajectory."""
        ...


class OnlineStepScorer(Protocol):
    """A step scorer that can be trained during the run."""

    async def update(self, trajectories: Sequence[Trajectory], labels: Sequence[float]) -> bool:
        """Train on answers of labels 1 (right) and 0 (wrong); whether that was done. A failed service is no error."""
        ...

    async def save(self, path: str) -> None:
        """Write its weights, optimizer and version below `path`."""
        ...

    async def load(self, path: str) -> None: ...


class Shaper(Protocol):
    """A reward term computed from a whole (task, effort) group, such as a length reward. Pure."""

    name: str

    def __call__(self, group: Group, outcomes: Sequence[Outcome]) -> Mapping[str, Float32Array]:
        """One [G] array per named component; the driver adds them to the outcome score. NaN never appears."""
        ...


class Credit(Protocol):
    """Map from the scored groups of one batch to per-token advantages. Pure.

    The batch is seen whole because some estimators scale by it; baselines stay inside a group, which is one task under
    one effort. `needs_greedy_baseline` asks for `ScoredGroup.greedy`.
    """

    name: str
    needs_greedy_baseline: bool

    def __call__(self, groups: Sequence[ScoredGroup]) -> Sequence[tuple[Float32Array | None, ...]]:
        """Per group, one [L] array per sibling, zero at unsampled tokens; None for an unjudged sibling, which is not
        trained on."""
        ...


class TaskSampler(Protocol):
    """Which task next."""

    def next(self) -> Task: ...

    def observe(self, task: Task, tally: Tally) -> None:
        """A group of a task that `next` gave is settled. Called once per group, in the order of training."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...

    def metrics(self) -> list[Metric]: ...


class Allotter(Protocol):
    """Changes a fresh job: its budget, its number of siblings, what its responses begin with."""

    def allot(self, job: Job, step: int) -> Job: ...

    def observe(self, task: Task, tally: Tally) -> None:
        """A group of this task is settled. Called once per group, in the order of training."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...

    def metrics(self) -> list[Metric]: ...


class EffortMix(Protocol):
    """Which budget the next job gets."""

    def next(self, step: int) -> TokenBudget: ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


class Gate(Protocol):
    """May this group train? Policies see binary outcomes, never shaped reward."""

    def reject(self, scored: ScoredGroup) -> str | None:
        """The reason for dropping the group, or None to admit it."""
        ...

    def observe(self, scored: ScoredGroup, reason: str | None) -> None: ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...

    def metrics(self) -> list[Metric]: ...


class Reference(Protocol):
    """The frozen model that KL terms compare the policy with."""

    async def score(self, trajectories: Sequence[Trajectory]) -> list[Float32Array]:
        """[L] per trajectory: log-probability of each sampled token, after the sampling temperature; 0 elsewhere."""
        ...

    async def follow(self, step: int) -> bool:
        """Take the learner's weights if that is due after `step`; True if it was."""
        ...

    def state_dict(self) -> State: ...

    async def save(self, path: str) -> None:
        """Write the weights below `path`, unless they are those that the run started with."""
        ...

    async def load(self, path: str, state: State) -> None: ...


class Representer(Protocol):
    """A frozen model whose hidden states say how responses differ."""

    async def features(self, trajectories: Sequence[Trajectory]) -> npt.NDArray[np.float64]:
        """[N, D], one row a trajectory: mean hidden state over its sampled tokens."""
        ...


class GroupTerm(Protocol):
    """A reward term that needs a service, such as the exploration bonus."""

    async def term(self, group: Group, outcomes: Sequence[Outcome]) -> Mapping[str, Float32Array]:
        """One [G] array per named component, added to the outcome score. NaN never appears."""
        ...


class Learner(Protocol):
    """All learner ranks behind one object."""

    async def step(self, batch: TrainingBatch) -> StepResult:
        """Update the weights once per optimizer step in the batch. Raises on a non-finite loss, before the update."""
        ...

    async def adopt(self, config: Any, loss: Any, *, temperature: float) -> None:
        """Use these settings from the next step on, on every rank: learning rate, weights of the loss's terms, and the
        sampling temperature. What else differs from the settings of the start is not looked at."""
        ...

    async def save(self, path: str) -> None:
        """Write model (Hugging Face format under `path/model`), optimizer, schedule and RNG state below `path`."""
        ...

    async def load(self, path: str) -> None: ...


class Mirror(Protocol):
    """A copy of the run elsewhere."""

    def begin(self) -> None:
        """Bring the copy up to date in the background. Returns at once, and never raises for what cannot be copied."""
        ...


class WeightSync(Protocol):
    """Moves the learner's weights to every engine and proves that they arrived."""

    async def publish(self, version: int) -> list[Metric]:
        """Return when every engine has proved that it serves `version`; raise SyncMismatchError otherwise."""
        ...
