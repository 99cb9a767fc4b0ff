"""A search tree over steps with PUCT: values of steps, and preferences between steps that share a past.

    select   argmax over children of  Q + c * P * sqrt(N_parent) / (1 + N_child)         c = 1.25
    prior    P = exp(mean log-probability of the step's tokens)
    leaf     +1 right, -1 wrong; a leaf that is no end: V (if a value is given), else the mean over completions
    backup   Q = mean of the leaf values that passed through
    value    target of a step = Q of its edge; of an end: its own +1 or -1
    pairs    two children of a node, both visited, with Q apart by at least `margin`: the higher is preferred

Source: AlphaMath (arXiv 2405.03553) for the tree and the targets, whose prior is the length-averaged probability as in
its code; preference pairs as iTool mines them: the best
against the worst child of a node, at least 0.1 apart. The
estimate of a leaf by completions is of the general method, not the paper's, which has a value model from its second
round and zero before.
What it is not: a search for a good answer; it goes where Q or doubt is high, so that both right and wrong steps get
visits.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from prm.data import StepRow, content_id
from prm.label.completion import Completer, row_of_solution
from prm.label.ports import Opening
from prm.label.prefix import seed_of
from prm.steps import Step
from rollout.schema import Task, Trajectory

C_PUCT = 1.25
Value = Callable[[Trajectory], Awaitable[float | None]]  # in [-1, 1]


@dataclass(slots=True, eq=False)
class Node:
    """A prefix. Q and N belong to the edge that leads here."""

    trajectory: Trajectory
    prior: float = 1.0
    visits: int = 0
    total: float = 0.0
    terminal: float | None = None  # +1 or -1 at an end
    is_end: bool = False
    is_dead: bool = False  # an end without a verdict: it is left alone
    children: list[Node] = field(default_factory=list)

    @property
    def q(self) -> float:
        return self.total / self.visits if self.visits else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSettings:
    """Size of a tree."""

    simulations: int = 40
    width: int = 5
    max_depth: int = 8
    margin: float = 0.1
    stop: str = "\n"
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Two steps after one past; `gap` is the difference of their Q."""

    question: str
    past: str
    chosen: str
    rejected: str
    gap: float


def puct(q: float, prior: float, parent_visits: int, visits: int, c: float = C_PUCT) -> float:
    """What selection maximizes."""
    return q + c * prior * math.sqrt(parent_visits) / (1 + visits)


def backup(path: Sequence[Node], value: float) -> None:
    """Add a leaf's value to every edge that led there."""
    for node in path:
        node.visits += 1
        node.total += value


class Tree:
    """One task's tree."""

    def __init__(
        self, task: Task, root: Trajectory, completer: Completer, settings: TreeSettings, value: Value | None = None
    ) -> None:
        """`root`: the prompt alone. `value`: a value model in the place of completions."""
        self.root = Node(root)
        self._task = task
        self._completer = completer
        self._settings = settings
        self._value = value

    async def grow(self) -> None:
        """Run the simulations."""
        for _ in range(self._settings.simulations):
            path = self._select()
            leaf = path[-1]
            if not leaf.is_end and len(path) <= self._settings.max_depth:
                await self._expand(leaf)
                alive = [child for child in leaf.children if not child.is_dead]
                if alive:
                    leaf = max(alive, key=lambda child: child.prior)
                    path.append(leaf)
            value = await self._evaluate(leaf)
            if value is None:
                leaf.is_dead = True
                if leaf is self.root:
                    return
                continue
            backup(path, value)

    def _select(self) -> list[Node]:
        path = [self.root]
        while path[-1].children:
            alive = [child for child in path[-1].children if not child.is_dead]
            if not alive:
                break
            parent = path[-1]
            path.append(max(alive, key=lambda child: puct(child.q, child.prior, parent.visits, child.visits)))
        return path

    async def _expand(self, leaf: Node) -> None:
        """Sample candidate steps; equal ones become one child."""
        past = leaf.trajectory.token_ids
        width, seed = self._settings.width, self._settings.seed
        openings = [
            Opening(prefix=None if leaf is self.root else leaf.trajectory,
                    seed=seed_of(seed, self._task, past.tobytes(), index))
            for index in range(width)
        ]  # fmt: skip
        written = await self._completer.writer.write(self._task, openings, stop=self._settings.stop)
        self._completer.spent.tokens += sum(item.num_new_tokens for item in written)
        unique = {item.trajectory.token_ids.tobytes(): item for item in written if item.num_new_tokens}
        ends = [item.trajectory for item in unique.values() if item.ended]
        scores = iter(await self._completer.judge.judge(self._task, ends) if ends else ())
        for item in unique.values():
            child = Node(item.trajectory, prior=_prior(item.trajectory, len(past)), is_end=item.ended)
            if item.ended:
                score = next(scores)
                child.terminal = None if score is None else 2.0 * float(score > 0.5) - 1.0
                child.is_dead = score is None
            leaf.children.append(child)

    async def _evaluate(self, leaf: Node) -> float | None:
        if leaf.is_end:
            return leaf.terminal
        if self._value is not None:
            return await self._value(leaf.trajectory)
        found = await self._completer.estimate(self._task, leaf.trajectory)
        return None if found.value is None else 2.0 * found.value - 1.0

    def nodes(self) -> Iterator[tuple[Node, tuple[Node, ...]]]:
        """Every node below the root with the path that leads to it, itself the last."""
        waiting: list[tuple[Node, tuple[Node, ...]]] = [(child, (child,)) for child in self.root.children]
        while waiting:
            node, path = waiting.pop()
            yield node, path
            waiting += [(child, (*path, child)) for child in node.children]

    def rows(self, cut: Callable[[Trajectory], Sequence[Step]], *, per_outcome: int = 4) -> list[StepRow]:
        """Value targets along up to so many right and as many wrong ends, most visited first.

        A step is labelled by the edge that its last token completes; steps that no edge ends have no label.
        """
        ends = sorted(
            ((n, path) for n, path in self.nodes() if n.terminal is not None), key=lambda found: -found[0].visits
        )
        rows = []
        for sign in (1.0, -1.0):
            for node, path in [found for found in ends if found[0].terminal == sign][:per_outcome]:
                steps = cut(node.trajectory)
                by_end = {len(n.trajectory.token_ids): n.q for n in path if n.visits and not n.is_end}
                labels: list[float | None] = [by_end.get(step.span.end) for step in steps]
                rows.append(
                    row_of_solution(
                        self._task,
                        node.trajectory,
                        steps,
                        labels,
                        kind="value",
                        labeller="tree",
                        outcome=float(sign > 0),
                        meta={"visits": [n.visits for n in path]},
                    )
                )
        return rows

    def preferences(self) -> list[Preference]:
        """Pairs of steps after one past whose Q differ by at least the margin: of each node best against worst."""
        pairs = []
        for node in [self.root, *(found for found, _ in self.nodes())]:
            seen = sorted((c for c in node.children if c.visits), key=lambda child: child.q)
            if len(seen) > 1 and seen[-1].q - seen[0].q >= self._settings.margin:
                past = node.trajectory.text
                low, high = (child.trajectory.text[len(past) :] for child in (seen[0], seen[-1]))
                question = self._task.prompt[-1].content
                gap = seen[-1].q - seen[0].q
                pairs.append(Preference(question=question, past=past, chosen=high, rejected=low, gap=gap))
        return pairs


def _prior(trajectory: Trajectory, start: int) -> float:
    """exp of the mean log-probability of the sampled tokens from `start` on."""
    logprobs = trajectory.sampler_logprobs[start:][trajectory.sampled[start:]]
    return float(np.exp(logprobs.mean())) if logprobs.size else 1.0


def preference_id(pair: Preference) -> str:
    """Equal pairs have equal ids."""
    return content_id(pair.question, pair.past, pair.chosen, pair.rejected)
