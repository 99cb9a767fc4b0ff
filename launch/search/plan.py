"""What `ponder eval search` is asked for: independent samples of each task, and searches of several kinds.

beam:B1xB2            step-level beam search, B1 beams of B2 next steps each      beam:2x4
lookahead:B1xB2xK     the same, a step valued after K further greedy steps        lookahead:2x4x1
tree:SIMSxCHILDREN    tree search with PUCT                                       tree:20x4
revisions:ROUNDS      one chain of solutions, each in view of the earlier ones    revisions:4
revisions:ROUNDSxN    N such chains                                               revisions:4x2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from launch.evaluation.store import digest
from prm.search.aggregate import Aggregate
from rollout.schema import Sampling, Task, TokenBudget

Kind = Literal["samples", "beam", "lookahead", "tree", "revisions"]
NUM_NUMBERS: Mapping[str, tuple[int, ...]] = {"beam": (2,), "lookahead": (3,), "tree": (2,), "revisions": (1, 2)}
MAX_NUMBER = 4096
SAMPLES = "samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A way of spending tokens on a task."""

    name: str
    kind: Kind
    numbers: tuple[int, ...]

    @property
    def width(self) -> int:
        """Responses written at the same time."""
        first, second = self.numbers[0], self.numbers[-1]
        match self.kind:
            case "samples":
                return first
            case "beam" | "lookahead":
                return first * self.numbers[1]
            case "tree":
                return second
            case "revisions":
                return second if len(self.numbers) > 1 else 1


def parse_strategies(text: str) -> tuple[Strategy, ...]:
    """Raises ValueError for a name or a number that is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"a search can be measured once, {', '.join(twice)} comes twice")
    return tuple(_strategy(name) for name in names)


def _strategy(name: str) -> Strategy:
    kind, _, rest = name.partition(":")
    parts = rest.split("x")
    known = NUM_NUMBERS.get(kind)
    if known is None or len(parts) not in known or not all(p.isdecimal() and 0 < int(p) <= MAX_NUMBER for p in parts):
        raise ValueError(
            f"unknown search {name!r}: it must read beam:B1xB2, lookahead:B1xB2xK, tree:SIMULATIONSxCHILDREN or "
            f"revisions:ROUNDS[xCHAINS], with numbers from 1 to {MAX_NUMBER}"
        )
    return Strategy(name=name, kind=kind, numbers=tuple(map(int, parts)))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What is to be generated. `context` is all that it depends on besides task and strategy."""

    tasks: tuple[Task, ...]
    strategies: tuple[Strategy, ...]
    budget: TokenBudget
    sampling: Sampling
    aggregate: Aggregate
    separator: str
    max_step_tokens: int
    max_depth: int
    seed: int
    coreset: bool = False  # also the order in which a verifier would look at the samples
    context: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One strategy on one task, with its key in the store."""

    key: str
    strategy: Strategy
    task: Task


def units(plan: SearchPlan) -> Iterator[Unit]:
    """Everything, strategy by strategy."""
    common = {
        "context": dict(plan.context),
        "budget": asdict(plan.budget),
        "aggregate": plan.aggregate,
        "separator": plan.separator,
        "bounds": [plan.max_step_tokens, plan.max_depth],
        "seed": plan.seed,
    }
    for strategy in plan.strategies:
        ordered = {"coreset": True} if plan.coreset and strategy.kind == "samples" else {}
        shared = digest({**common, **ordered, "strategy": strategy.name})
        for task in plan.tasks:
            key = digest({"shared": shared, "task": task.key, "verifier": task.verifier})
            yield Unit(key=key, strategy=strategy, task=task)
