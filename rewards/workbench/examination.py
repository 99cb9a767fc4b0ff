"""Everything that can be learnt of a reward function in a few seconds, before it rewards a model: `examine`."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rewards.batching import LatencyHistogram
from rewards.config import SandboxConfig
from rewards.outcome import Sample
from rewards.plugins.runner import Description, PluginRunner
from rewards.plugins.spec import PluginSpec
from rewards.quota import FAULTS
from rewards.workbench.cases import Case
from rewards.workbench.probes import PROBES
from rollout.schema import Outcome

Verdict = Literal["pass", "fail", "note"]
PASSING_SCORE = 0.5  # what the loop reads as right, and a probe must not reach
_MAX_TASKS_PROBED = 20
_MAX_DETAILS = 5
_MAX_RUNS_TIMED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the verdict table."""

    name: str
    verdict: Verdict
    found: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found out about one reward function."""

    plugin: str
    description: Description
    checks: tuple[Check, ...]
    outcomes: tuple[Outcome, ...]  # [cases]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(check.verdict != "fail" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "plugin": self.plugin,
            "passed": self.passed,
            "adapter": self.description.adapter,
            "capabilities": dataclasses.asdict(self.description.capabilities),
            "picklable": self.description.picklable,
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "figures": self.figures,
        }


async def examine(
    spec: PluginSpec, cases: Sequence[Case], *, limits: SandboxConfig, skip: Collection[str] = ()
) -> Examination:
    """Run a reward function on the cases in every way that the service might, and on probes made of their tasks.

    `skip` names probes that it may fall for. Raises PluginLoadError when it cannot be used at all.
    """
    samples = [case.sample for case in cases]
    runner = PluginRunner(spec, limits)
    try:
        description = await runner.describe()
        together = await runner.score(samples)
        alone, latency = await _timed(runner, samples)
        reversed_ = list(reversed(await runner.score(list(reversed(samples)))))
        shuffled = await _shuffled(runner, samples)
        probes = [await _probe(runner, name, samples) for name in PROBES if name not in skip]
    finally:
        runner.close()
    fresh = await _in_a_fresh_process(spec, limits, samples)
    capabilities = description.capabilities
    checks = [
        _golden(cases, together),
        _judged(together),
        _latency(latency, capabilities.max_seconds),
        _same("determinism", cases, together, fresh, declared=not capabilities.deterministic),
        _same("order", cases, together, reversed_, shuffled, declared=not capabilities.deterministic),
    ]
    if capabilities.form != "group":
        checks.append(_same("batch", cases, together, alone, declared=not capabilities.deterministic))
    checks.append(_picklable(description))
    figures = {"latency_p50_s": latency.quantile(0.5), "latency_p99_s": latency.quantile(0.99)}
    return Examination(
        plugin=spec.name,
        description=description,
        checks=(*checks, *probes),
        outcomes=tuple(together),
        figures=figures,
    )


# ------------------------------------------------------------------------------------------------ ways to run it


async def _timed(runner: PluginRunner, samples: Sequence[Sample]) -> tuple[list[Outcome], LatencyHistogram]:
    """Each sample by itself, with its time; as often as it takes to have a 99th percentile worth the name."""
    latency = LatencyHistogram()
    rounds = max(1, min(5, _MAX_RUNS_TIMED // max(len(samples), 1)))
    outcomes: list[Outcome] = []
    for _ in range(rounds):
        outcomes = []
        for sample in samples:
            started = time.perf_counter()
            outcomes += await runner.score([sample])
            latency.add(time.perf_counter() - started)
    return outcomes, latency


async def _shuffled(runner: PluginRunner, samples: Sequence[Sample]) -> list[Outcome]:
    order = list(range(len(samples)))
    random.Random(0).shuffle(order)
    found = await runner.score([samples[index] for index in order])
    back: list[Outcome] = [found[0]] * len(samples) if found else []
    for place, index in enumerate(order):
        back[index] = found[place]
    return back


async def _in_a_fresh_process(spec: PluginSpec, limits: SandboxConfig, samples: Sequence[Sample]) -> list[Outcome]:
    """A second process has another hash seed and an empty module state."""
    runner = PluginRunner(spec, limits)
    try:
        return await runner.score(samples)
    finally:
        runner.close()


async def _probe(runner: PluginRunner, name: str, samples: Sequence[Sample]) -> Check:
    tasks = list({sample.task_key: sample for sample in samples if sample.reference}.values())[:_MAX_TASKS_PROBED]
    attempts = []
    for task in tasks:
        others = [other.reference for other in tasks if other.reference != task.reference]
        attempts.append(PROBES[name](task, others))
    outcomes = await runner.score(attempts)
    fooled = [t for t, o in zip(tasks, outcomes, strict=True) if o.score is not None and o.score >= PASSING_SCORE]
    broken = [o for o in outcomes if o.status in FAULTS]
    details = [f"passes for reference {task.reference[:60]!r}" for task in fooled] + [o.reason for o in broken]
    found = f"rewarded on {len(fooled)} of {len(tasks)} tasks"
    if broken:
        found += f", failed on {len(broken)}"
    return Check(
        name=f"probe {name}",
        verdict="fail" if fooled or broken else "pass",
        found=found,
        details=tuple(details[:_MAX_DETAILS]),
    )


# ------------------------------------------------------------------------------------------------ what it says


def _golden(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> Check:
    golden = [(case, outcome) for case, outcome in zip(cases, outcomes, strict=True) if case.is_golden]
    wrong = [(case, why) for case, outcome in golden if (why := case.fails(outcome)) is not None]
    if not golden:
        return Check(name="golden cases", verdict="note", found="no row has a score to compare with")
    return Check(
        name="golden cases",
        verdict="fail" if wrong else "pass",
        found=f"{len(golden) - len(wrong)} of {len(golden)} as expected",
        details=tuple(f"line {case.line}: {why}" for case, why in wrong[:_MAX_DETAILS]),
    )


def _judged(outcomes: Sequence[Outcome]) -> Check:
    faults = [outcome for outcome in outcomes if outcome.status in FAULTS]
    return Check(
        name="no faults",
        verdict="fail" if faults else "pass",
        found=f"{len(faults)} of {len(outcomes)} attempts raised, hung, died or got no number",
        details=tuple(dict.fromkeys(outcome.reason for outcome in faults))[:_MAX_DETAILS],
    )


def _latency(latency: LatencyHistogram, max_seconds: float) -> Check:
    p50, p99 = latency.quantile(0.5), latency.quantile(0.99)
    is_close = p99 > max_seconds / 2
    return Check(
        name="latency",
        verdict="fail" if is_close else "pass",
        found=f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms of {max_seconds:g} s",
        details=("more than half of the time limit: raise max_seconds or make it faster",) if is_close else (),
    )


def _same(
    name: str, cases: Sequence[Case], first: Sequence[Outcome], *others: Sequence[Outcome], declared: bool
) -> Check:
    """Whether every way to run it gave the same scores. A difference that was declared is a note."""
    meaning = {
        "determinism": "in a fresh process",
        "order": "in another order",
        "batch": "alone instead of together",
    }[name]
    changed = [
        f"line {case.line}: {_shown(first[index])}, {meaning} {_shown(other[index])}"
        for other in others
        for index, case in enumerate(cases)
        if first[index].score != other[index].score
    ]
    return Check(
        name=name,
        verdict="pass" if not changed else "note" if declared else "fail",
        found="same scores " + meaning if not changed else f"{len(changed)} scores differ {meaning}",
        details=tuple(changed[:_MAX_DETAILS]),
    )


def _picklable(description: Description) -> Check:
    return Check(
        name="picklable",
        verdict="pass" if description.picklable else "note",
        found="can be sent to another process" if description.picklable else "cannot be pickled; here it need not be",
    )


def _shown(outcome: Outcome) -> str:
    return "unjudged" if outcome.score is None else f"{outcome.score:g}"
