"""The first wrong step by binary search over completions, and which rollout to search next.

    lo = 0, hi = M;  while hi - lo > 1:  mid = (lo + hi) // 2;  MC(mid) > 0 ? lo = mid : hi = mid      -> step hi - 1
    Q(s, r) = alpha^(1 - MC(s)) * beta^(len(r) / L)          U(s) = c * sqrt(sum_i N_i) / (1 + N_s)

MC(k) is the share of right completions after k steps. The search costs about log2 M estimates instead of M. The next
rollout to search is the wrong one with the largest Q + U among states with 0 < MC < 1: near-solved states and short
rollouts first. alpha 0.5, beta 0.9, L 500 words, c 0.125.
Source: OmegaPRM (arXiv 2406.06592), constants as in a re-implementation; here L counts tokens.
Assumption: MC does not rise again after it fell to 0. Where it does, the search still ends, at a step whose left
neighbor was seen above 0.
What it is not: the first step that is false. It is the first after which no completion was right.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from prm.data import StepRow
from prm.label.completion import Completer, row_of_solution
from prm.label.prefix import cut_at
from prm.steps import Step
from rollout.schema import Task, Trajectory

ALPHA, BETA, LENGTH, EXPLORATION = 0.5, 0.9, 500.0, 0.125
Estimator = Callable[[int], Awaitable[float | None]]  # of MC after so many steps; None without a verdict


@dataclass(frozen=True, slots=True)
class Found:
    """0-based index of the first wrong step, and every estimate made: steps kept to MC."""

    index: int
    probes: dict[int, float]


async def first_bad(num_steps: int, estimate: Estimator) -> Found | None:
    """Search a solution whose answer is wrong. None when an estimate had no verdict. At most ceil(log2 M) probes."""
    low, high = 0, num_steps
    probes: dict[int, float] = {}
    while high - low > 1:
        middle = (low + high) // 2
        value = await estimate(middle)
        if value is None:
            return None
        probes[middle] = value
        if value > 0:
            low = middle
        else:
            high = middle
    return Found(high - 1, probes)


def rollout_value(mc: float, length: float) -> float:
    """Q(s, r) of a wrong rollout of so many tokens from a state with this MC."""
    return float(ALPHA ** (1.0 - mc) * BETA ** (length / LENGTH))


def exploration(visits: int, all_visits: int) -> float:
    """U(s)."""
    return EXPLORATION * math.sqrt(all_visits) / (1 + visits)


@dataclass(slots=True, eq=False)
class State:
    """A prefix with its estimate and the wrong rollouts from it that were not searched yet."""

    mc: float
    wrong: list[Trajectory]
    visits: int = 0


def select(states: Sequence[State], start: int) -> tuple[State, Trajectory] | None:
    """The state and rollout to search next, None when there is none. `start`: length of the prompt in tokens."""
    total = sum(state.visits for state in states)
    best: tuple[float, State, Trajectory] | None = None
    for state in states:
        if not 0 < state.mc < 1:
            continue
        for rollout in state.wrong:
            score = rollout_value(state.mc, len(rollout.token_ids) - start) + exploration(state.visits, total)
            if best is None or score > best[0]:
                best = (score, state, rollout)
    return None if best is None else (best[1], best[2])


async def label_by_search(
    task: Task,
    solution: Trajectory,
    steps: Sequence[Step],
    outcome: float | None,
    completer: Completer,
    states: list[State] | None = None,
) -> StepRow | None:
    """Hard labels of one solution up to its first wrong step; a right solution's steps are all right.

    None without a verdict or a step. `states` collects the prefixes that were estimated, with their wrong rollouts.
    """
    if outcome is None or not steps:
        return None
    labels: list[float | None] = [1.0] * len(steps)
    probes: dict[int, float] = {}
    if outcome <= 0.5:

        async def estimate(kept: int) -> float | None:
            found = await completer.estimate(task, cut_at(solution, steps[kept - 1].span.end))
            if states is not None and found.value is not None:
                states.append(State(found.value, list(found.wrong_rollouts)))
            return found.value

        found = await first_bad(len(steps), estimate)
        if found is None:
            return None
        labels = [1.0] * found.index + [0.0] + [None] * (len(steps) - found.index - 1)
        probes = found.probes
    return row_of_solution(
        task, solution, steps, labels, kind="hard", labeller="search", outcome=outcome,
        meta={"probes": {str(kept): mc for kept, mc in sorted(probes.items())}},
    )  # fmt: skip


async def grow(
    task: Task,
    cut: Callable[[Trajectory], Sequence[Step]],
    completer: Completer,
    root: Trajectory,
    *,
    searches: int,
) -> list[StepRow]:
    """OmegaPRM's tree of one task: up to `searches` wrong rollouts, each searched once, chosen by Q + U.

    `root` is the prompt alone. Rows of wrong rollouts; none when the task is always or never solved from the prompt.
    """
    first = await completer.estimate(task, root)
    if first.value is None:
        return []
    states = [State(first.value, list(first.wrong_rollouts))]
    rows: list[StepRow] = []
    seen: set[bytes] = set()
    while len(rows) < searches and (chosen := select(states, root.prompt_len)) is not None:
        state, rollout = chosen
        state.visits += 1
        state.wrong.remove(rollout)
        if rollout.token_ids.tobytes() in seen:
            continue
        seen.add(rollout.token_ids.tobytes())
        row = await label_by_search(task, rollout, cut(rollout), 0.0, completer, states)
        if row is not None:
            rows.append(row)
    return rows
