"""`ponder rewards replay`: last night's attempts under another reward. Needs no GPU and no model.

Every recorded attempt is scored again, the advantages of each training step are computed twice with the run's own
credit rule, from the recorded verdicts and from the new ones, and compared. Shaping terms and step scores stay as they
were recorded.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch import build, recipe
from launch.config import RunConfig
from launch.recorded import group_of, outcomes_of_recorded, samples_of_recorded, scored_group, tasks_by_key
from launch.rundir import RunDirectory
from launch.screen import visible
from launch.task_splits import load_task_splits
from rewards.compose import compose
from rewards.config import RewardsConfig, SandboxConfig
from rewards.plugins.runner import PluginRunner
from rewards.plugins.spec import PluginSpec
from rl.ports import Credit
from rl.record_reader import RecordedGroup, iter_groups, recorded_steps
from rl.verdict import final_rewards
from rollout.schema import Group, Outcome, ScoredGroup, Status, Task

_MAX_SHOWN = 10
_SAME = 1e-6
_SAME_ADVANTAGE = 1e-3  # below it, the difference is the epsilon of a standard deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One attempt whose advantage differs. None: unjudged, so without an advantage."""

    step: int
    task: str
    effort: str
    sibling: int
    reference: str
    answer: str
    old_score: float | None
    new_score: float | None
    old_advantage: float | None
    new_advantage: float | None
    reason: str

    @property
    def flips(self) -> bool:
        """Whether the learner would push the attempt the other way."""
        return self.old_advantage is not None and self.new_advantage is not None and (
            self.old_advantage * self.new_advantage < 0
        )  # fmt: skip

    @property
    def size(self) -> float:
        return abs((self.new_advantage or 0.0) - (self.old_advantage or 0.0))


@dataclass(slots=True, kw_only=True)
class Replay:
    """What came out."""

    attempts: int = 0
    same_score: int = 0
    newly_unjudged: int = 0
    newly_judged: int = 0
    trained_groups: int = 0
    flips: int = 0
    lost_signal: int = 0
    gained_signal: int = 0
    moved: float = 0.0  # sum of |new - old| over attempts that were trained on
    trained_attempts: int = 0
    recorded_error: float = 0.0  # largest distance of a recomputed old advantage from the recorded one
    statuses: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "changes"}
        mean = self.moved / self.trained_attempts if self.trained_attempts else 0.0
        shown = [dataclasses.asdict(change) | {"flips": change.flips} for change in self.changes]
        return {**found, "statuses": dict(self.statuses), "mean_change": mean, "changes": shown}


def replay(
    run: Path, spec: PluginSpec, *, component: str | None, steps: range | None, as_json: bool, console: Console
) -> Replay:
    """Score the attempts of a finished run again and print what would have changed.

    Raises RunDirectoryError for no run, ValueError when it recorded nothing, when its reward has several components
    and none is named, or when its credit rule needs what is not recorded; PluginLoadError for an unusable function.
    """
    directory = RunDirectory.open(run)
    config = recipe.load(directory.config, [])
    name = _component(config.rewards, component)
    credit = build.build_credit(config)
    if credit.needs_greedy_baseline:
        raise ValueError(
            f"credit rule {credit.name!r} needs a greedy attempt of each task, which is not recorded; replay a run "
            f"with another rule"
        )
    if not recorded_steps(directory.groups):
        raise ValueError(f"{run} has recorded no training step; name a run that trained")
    tasks = _tasks(config)
    found = asyncio.run(_replayed(directory.groups, spec, config, name, credit, tasks, steps))
    if as_json:
        console.print(json.dumps(found.as_json()), markup=False, highlight=False, soft_wrap=True)
    else:
        _print(found, spec, console)
    return found


def _component(rewards: RewardsConfig, wanted: str | None) -> str:
    names = list(rewards.components)
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted not in rewards.components:
        raise ValueError(
            f"the run's reward has the components {', '.join(names)}; say which one the function takes the place of: "
            f"--component {names[0]}"
        )
    return wanted


def _tasks(config: RunConfig) -> Mapping[str, Task]:
    splits = load_task_splits(config.tasks, seed=config.run.seed)
    return tasks_by_key((*splits.train, *splits.held_out))


async def _replayed(
    groups: Path,
    spec: PluginSpec,
    config: RunConfig,
    component: str,
    credit: Credit,
    tasks: Mapping[str, Task],
    steps: range | None,
) -> Replay:
    found = Replay()
    runner = PluginRunner(spec, SandboxConfig(num_workers=2))
    try:
        await runner.describe()
        for step in recorded_steps(groups):
            if steps is None or step in steps:
                recorded = list(iter_groups(groups, steps=range(step, step + 1)))
                rebuilt = [group_of(item, tasks.get(item.task_key)) for item in recorded]
                verdicts = await _verdicts(runner, config.rewards, component, recorded, rebuilt)
                _compare(found, credit, recorded, rebuilt, verdicts)
    finally:
        runner.close()
    found.changes.sort(key=lambda change: (not change.flips, -change.size))
    return found


async def _verdicts(
    runner: PluginRunner,
    rewards: RewardsConfig,
    component: str,
    recorded: Sequence[RecordedGroup],
    rebuilt: Sequence[Group],
) -> list[tuple[Outcome, ...]]:
    """The new verdicts of every group, other components of the reward as they were recorded."""
    samples = [samples_of_recorded(item, group) for item, group in zip(recorded, rebuilt, strict=True)]
    scored = iter(await runner.score([sample for group in samples for sample in group]))
    weights = {name: part.weight for name, part in rewards.components.items()}
    verdicts = []
    for item in recorded:
        outcomes = []
        for old in outcomes_of_recorded(item):
            new = next(scored)
            if old.status is Status.SKIPPED:
                outcomes.append(old)  # was never generated
                continue
            parts = {name: new if name == component else _recorded_part(old, name) for name in weights}
            outcomes.append(compose(parts, weights))
        verdicts.append(tuple(outcomes))
    return verdicts


def _recorded_part(outcome: Outcome, component: str) -> Outcome:
    score = outcome.parts.get(component)
    if score is None:
        status = Status.CRASH if outcome.is_scored else outcome.status
        return Outcome(status=status, score=None, reason=f"{component} was not judged")
    return Outcome(status=Status.JUDGED, score=score)


# ------------------------------------------------------------------------------------------------ old against new


def _compare(
    found: Replay,
    credit: Credit,
    recorded: Sequence[RecordedGroup],
    rebuilt: Sequence[Group],
    verdicts: Sequence[tuple[Outcome, ...]],
) -> None:
    old = [scored_group(item, g, outcomes_of_recorded(item)) for item, g in zip(recorded, rebuilt, strict=True)]
    new = [scored_group(item, g, v) for item, g, v in zip(recorded, rebuilt, verdicts, strict=True)]
    trained = [index for index, item in enumerate(recorded) if item.fate.name == "trained"]
    before = dict(zip(trained, _advantages(credit, [old[index] for index in trained]), strict=True))
    after = dict(zip(trained, _advantages(credit, [new[index] for index in trained]), strict=True))
    for index, item in enumerate(recorded):
        had, has = _has_signal(old[index]), _has_signal(new[index])
        found.lost_signal += had and not has
        found.gained_signal += has and not had
        found.trained_groups += index in before
        nothing: list[float | None] = [None] * len(item.trajectories)
        _compare_group(found, item, old[index], new[index], before.get(index, nothing), after.get(index, nothing))


def _compare_group(
    found: Replay,
    item: RecordedGroup,
    old: ScoredGroup,
    new: ScoredGroup,
    before: Sequence[float | None],
    after: Sequence[float | None],
) -> None:
    is_trained = item.fate.name == "trained"
    for sibling, recorded in enumerate(item.trajectories):
        was, now = old.outcomes[sibling], new.outcomes[sibling]
        found.attempts += 1
        found.statuses[str(now.status)] += 1
        found.same_score += _equal(was.score, now.score)
        found.newly_unjudged += was.is_scored and not now.is_scored
        found.newly_judged += now.is_scored and not was.is_scored
        if not is_trained:
            continue
        found.trained_attempts += 1
        if recorded.advantage_mean is not None and (known := before[sibling]) is not None:
            found.recorded_error = max(found.recorded_error, abs(known - recorded.advantage_mean))
        if _equal(before[sibling], after[sibling], within=_SAME_ADVANTAGE):
            continue
        change = Change(
            step=item.fate.step,
            task=item.task_key,
            effort=item.effort,
            sibling=sibling,
            reference=item.reference,
            answer="" if recorded.answer is None else recorded.text[recorded.answer[0] : recorded.answer[1]],
            old_score=was.score,
            new_score=now.score,
            old_advantage=before[sibling],
            new_advantage=after[sibling],
            reason=now.reason,
        )
        found.moved += change.size
        found.flips += change.flips
        found.changes.append(change)


def _advantages(credit: Credit, groups: Sequence[ScoredGroup]) -> list[list[float | None]]:
    """[groups][G] mean advantage over the tokens after the prompt; None where the credit rule gives none."""
    found: list[list[float | None]] = []
    for scored, advantages in zip(groups, credit(groups) if groups else (), strict=True):
        means: list[float | None] = []
        for trajectory, values in zip(scored.group.trajectories, advantages, strict=True):
            has_tokens = values is not None and bool(trajectory.sampled.any())
            means.append(float(np.mean(values[trajectory.sampled])) if values is not None and has_tokens else None)
        found.append(means)
    return found


def _has_signal(scored: ScoredGroup) -> bool:
    """Whether the judged siblings differ, so that a comparison among them teaches something."""
    rewards = final_rewards(scored)
    judged = rewards[~np.isnan(rewards)]
    return len(judged) > 1 and bool(np.ptp(judged) > _SAME)


def _equal(a: float | None, b: float | None, *, within: float = _SAME) -> bool:
    return a is b or (a is not None and b is not None and abs(a - b) <= within)


# ------------------------------------------------------------------------------------------------ the terminal


def _print(found: Replay, spec: PluginSpec, console: Console) -> None:
    share = found.same_score / found.attempts
    mean = found.moved / found.trained_attempts if found.trained_attempts else 0.0
    lines = [
        f"{spec.name}: {found.attempts} attempts scored again, {share:.1%} as recorded; "
        f"{found.newly_unjudged} newly unjudged, {found.newly_judged} newly judged",
        f"{found.trained_groups} trained groups: {found.flips} advantages change sign, mean change {mean:.4f}",
        f"{found.lost_signal} groups lose their signal, {found.gained_signal} gain one",
        f"recorded advantages are reproduced within {found.recorded_error:.1e}",
    ]
    for line in lines:
        console.print(Text(line))
    if not found.changes:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("step", "task", "effort", "reference", "answer", "score", "advantage", "reason"):
        table.add_column(column, overflow="fold")
    for change in found.changes[:_MAX_SHOWN]:
        table.add_row(
            str(change.step),
            f"{change.task[:8]}.{change.sibling}",
            change.effort,
            Text(visible(change.reference[:40])),
            Text(visible(change.answer[:40])),
            f"{_shown(change.old_score)} > {_shown(change.new_score)}",
            Text(
                f"{_shown(change.old_advantage)} > {_shown(change.new_advantage)}",
                style="bold red" if change.flips else "",
            ),
            Text(visible(change.reason[:80])),
        )
    console.print(table)
    if len(found.changes) > _MAX_SHOWN:
        console.print(Text(f"and {len(found.changes) - _MAX_SHOWN} more; --json has all of them", style="dim"))


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
