"""Every strategy on every task, once: searches on the engines, verdicts and step scores of what they found."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from budgets.evaluation.majority import canonical
from launch.search.engines import EngineExtender, EngineReviser, Engines, StepValuer, group_of
from launch.search.plan import SearchPlan, Unit, units
from launch.search.spread import order_of
from launch.search.store import Searched, SearchStore, Solution
from prm.search.revisions import revisions
from prm.search.step_beam import Found, step_beam
from prm.search.tree import tree_search
from rewards.outcome import Sample, samples_of
from rl.ports import Representer, StepScorer
from rl.verdict import is_correct
from rollout.schema import Job, Outcome, Purpose


class SampleJudge(Protocol):
    """The verifier service: `rewards.judge.Judge`."""

    async def judge(self, samples: Sequence[Sample]) -> list[Outcome]: ...


class Progress(Protocol):
    """Told how many searches are finished, and how many of them were found on disk."""

    def advance(self, num_samples: int, *, was_kept: bool) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What searches run on."""

    engines: Engines
    scorer: StepScorer
    judge: SampleJudge
    num_places: int  # responses that the engines take at a time
    representer: Representer | None = None  # hidden states of samples, for their coreset


async def collect(plan: SearchPlan, parts: Parts, store: SearchStore, progress: Progress) -> list[Searched]:
    """Search what the store does not have; everything that the plan asks for, in its order."""
    wanted = list(units(plan))
    missing = [unit for unit in wanted if store.get(unit.key) is None]
    if len(missing) < len(wanted):
        progress.advance(len(wanted) - len(missing), was_kept=True)
    waiting = iter(missing)
    widest = max((unit.strategy.width for unit in missing), default=1)

    async def work() -> None:
        for unit in waiting:  # shared by all workers: each takes the next
            store.add(unit.key, await search(plan, unit, parts))
            progress.advance(1, was_kept=False)

    async with asyncio.TaskGroup() as workers:
        for _ in range(min(len(missing), max(1, parts.num_places // widest))):
            workers.create_task(work())
    return kept(plan, store) or []


def kept(plan: SearchPlan, store: SearchStore) -> list[Searched] | None:
    """Everything in the order of the plan, or None while something is missing."""
    all_found = [store.get(unit.key) for unit in units(plan)]
    return None if None in all_found else [item for item in all_found if item is not None]


async def search(plan: SearchPlan, unit: Unit, parts: Parts) -> Searched:
    """One strategy on one task."""
    job = Job(
        group_id=f"search-{unit.strategy.name}-{unit.task.key}",
        task=unit.task,
        num_siblings=1,
        budget=plan.budget,
        sampling=plan.sampling,
        purpose=Purpose.EVAL,
    )
    ended, tokens = await _run(plan, unit, job, parts)
    group = group_of(job, ended.branches)
    scores = await parts.scorer.score(group)
    outcomes = await parts.judge.judge(samples_of(group))
    solutions = []
    for branch, value, steps, outcome in zip(ended.branches, ended.values, scores, outcomes, strict=True):
        trajectory = branch.trajectory
        solutions.append(
            Solution(
                text=trajectory.text.encode(errors="replace").decode(),
                answer=canonical(trajectory.answer_text),
                correct=is_correct(outcome),
                tokens=int(trajectory.sampled.sum()),
                scores=None if steps is None else tuple(map(float, steps.scores)),
                value=value,
            )
        )
    kinds = [str(steps.kind) for steps in scores if steps is not None]
    order = None
    if plan.coreset and unit.strategy.kind == "samples":
        assert parts.representer is not None
        order = await order_of(parts.representer, group.trajectories, unit.key)
    return Searched(
        task=unit.task.key,
        strategy=unit.strategy.name,
        tokens=tokens,
        kind=kinds[0] if kinds else "",
        solutions=tuple(solutions),
        order=order,
    )


async def _run(plan: SearchPlan, unit: Unit, job: Job, parts: Parts) -> tuple[Found, int]:
    """The solutions of one strategy and the tokens sampled for them."""
    strategy = unit.strategy
    extender = EngineExtender(
        engines=parts.engines,
        job=job,
        separator=plan.separator,
        seed=plan.seed,
        max_step_tokens=plan.max_step_tokens,
    )
    valuer = StepValuer(scorer=parts.scorer, job=job, aggregate=plan.aggregate, is_signed=strategy.kind == "tree")
    match strategy.kind:
        case "samples":
            branches = await extender.extend([extender.root()] * strategy.numbers[0], num_steps=None)
            ended = Found(branches=tuple(branches), values=(math.nan,) * len(branches))
        case "beam" | "lookahead":
            num_beams, width, *ahead = strategy.numbers
            ended = await step_beam(
                extender,
                valuer,
                num_beams=num_beams,
                width=width,
                max_depth=plan.max_depth,
                lookahead=ahead[0] if ahead else 0,
            )
        case "tree":
            ended = await tree_search(
                extender,
                valuer,
                num_simulations=strategy.numbers[0],
                num_children=strategy.numbers[1],
                max_depth=plan.max_depth,
            )
        case "revisions":
            rounds, *chains = strategy.numbers
            reviser = EngineReviser(engines=parts.engines, job=job, seed=plan.seed)
            ended = await revisions(reviser, valuer, num_rounds=rounds, num_chains=chains[0] if chains else 1)
            return ended, reviser.num_tokens
    return ended, extender.num_tokens
