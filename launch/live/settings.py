"""Which settings may change while a run goes on, and what has to be told to whom.

A change is checked as a recipe would be: bounds, and the rules between sections, with the settings as they are now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from budgets.effort import EffortSchedule
from launch import recipe
from launch.batch_policies import reweighed
from launch.config import RunConfig
from rl.run import Run
from rollout.schema import Sampling

# Of all samplers. Those that shape what a sampler remembers, such as its number of stages, are not among them.
SAMPLER_NUMBERS = (
    *("uniform_share", "selected_decay", "idle_decay", "lag_decay", "lower", "upper", "review"),
    *("probe", "later", "audit", "refresh_every", "memory"),
)
ALLOWED = {
    r"learner\.lr": "peak learning rate",
    r"loss\.kl\.coefficient": "weight of the KL term",
    r"loss\.entropy\.coefficient": "weight of the entropy bonus",
    r"loss\.clip_(low|high)": "clip range",
    r"rollout\.temperature": "sampling temperature; with buffer.max_lag = 0 and without a reference model",
    r"rollout\.group_size": "siblings of a group",
    r"budgets\.efforts\.[^.]+\.weight": "share of an effort",
    r"buffer\.max_lag": "how far generation may run ahead of training",
    rf"sampling\.sampler\.(inner\.)?({'|'.join(SAMPLER_NUMBERS)})": "numbers of the sampler, such as its uniform share",
    r"sampling\.sampler\.shares\.[^.]+": "shares of a sampler with quotas",
    r"rewards\.components\.[^.]+\.weight": "weight of a component of the reward",
    r"credit\.process\.(weight|cap)": "weight and cap of the step term",
    r"loop\.(eval_every|checkpoint_every)": "rhythm of evaluations and checkpoints",
}


class LiveSettings:
    """The settings as they are now. `adopt` is what `rl.control.Control` calls at a boundary."""

    def __init__(self, config: RunConfig, run: Run) -> None:
        self.config = config
        self._run = run
        self._wanted = config  # with what was asked for and has not been adopted yet

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError, with the rule and the remedy, for a change that cannot be made."""
        self._wanted = self._with(self._wanted, settings)

    async def adopt(self, settings: Mapping[str, Any]) -> None:
        """Make them those of the running parts."""
        old, new, run = self.config, self._with(self.config, settings), self._run
        temperature = new.rollout.temperature
        if (old.learner, old.loss, old.rollout.temperature) != (new.learner, new.loss, temperature):
            await run.learner.adopt(new.learner, new.loss, temperature=temperature)
        run.jobs.adopt(
            num_siblings=new.rollout.group_size,
            sampling=Sampling(temperature=temperature, top_p=new.rollout.top_p, top_k=new.rollout.top_k),
        )
        if old.budgets != new.budgets:
            assert isinstance(run.jobs.efforts, EffortSchedule), "checked before"
            run.jobs.efforts.adopt(new.budgets)
        if old.rewards != new.rewards:
            run.judge.reweigh({name: component.weight for name, component in new.rewards.components.items()})
        run.change_lag(new.buffer.max_lag)
        if (old.credit, old.sampling.sampler) != (new.credit, new.sampling.sampler):
            from launch.build import build_credit, build_sampler

            if old.credit != new.credit:
                run.credit = reweighed(build_credit(new, run.metrics.alarms), run.policies)
            if old.sampling.sampler != new.sampling.sampler:
                run.jobs.replace_sampler(lambda tasks: build_sampler(new, tasks))
        rhythm = new.loop.model_dump(include={"eval_every", "checkpoint_every"})
        run.loop, run.kl_in_reward = run.loop.model_copy(update=rhythm), new.loss.reward_kl_coefficient
        self.config = new

    def now(self) -> dict[str, Any]:
        """Every setting that may change, by dotted name."""
        return {name: value for name, value in _leaves(recipe.dump(self.config)) if _is_allowed(name)}

    def _with(self, config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
        known = dict(_leaves(recipe.dump(config)))
        for name, value in settings.items():
            if not _is_allowed(name):
                listed = "; ".join(f"{pattern.replace(chr(92), '')}: {what}" for pattern, what in ALLOWED.items())
                raise ValueError(f"{name} cannot change while a run goes on. These can: {listed}")
            if name not in known:
                raise ValueError(f"{name} is no setting of this run: the part that it belongs to is not there")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is a number, got {value!r}")
        new = recipe.check(_applied(recipe.dump(config), settings), where="the change")
        self._refuse(config, new)
        return new

    def _refuse(self, old: RunConfig, new: RunConfig) -> None:
        if old.rollout.temperature != new.rollout.temperature and (new.buffer.max_lag or new.reference is not None):
            raise ValueError(
                f"rollout.temperature can change only with buffer.max_lag = 0 (it is {new.buffer.max_lag}) and without "
                "a reference model: log-probabilities of groups under way belong to the old one"
            )
        if new.loss.kl is not None and old.loss.kl != new.loss.kl and new.loss.kl.target is not None:
            raise ValueError("loss.kl.coefficient adapts to loss.kl.target in this run, so setting it has no effect")
        if old.budgets != new.budgets and not isinstance(self._run.jobs.efforts, EffortSchedule):
            raise ValueError("the share of an effort is decided by this run's allocator, not by its weight")


def _is_allowed(name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in ALLOWED)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def _applied(tree: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in settings.items():
        *path, last = name.split(".")
        place = tree
        for key in path:
            place = place[key]
        place[last] = value
    return tree
