"""Tree search with PUCT and a value for every step; no rollouts and no answer checking while searching.

    select   child with the largest  Q + c * P * sqrt(N_parent) / (1 + N_child),   Q = mean of the values backed up
    expand   an open leaf by `num_children` sampled steps, equal ones joined
    value    of a leaf, from the step scorer; a terminal leaf has the value of its solution
    backup   N += 1 and W += value on the path to the root

AlphaMath (arXiv 2405.03553) at inference: lambda = 0, so nothing but the value counts. The prior P is
exp(mean log-probability of the step's tokens), as in its code; its paper has the mean log-probability itself. A child
never visited has Q = 0, so values should lie around 0: probabilities p are used as 2 p - 1. Defaults are the paper's.

What it is not: a search with checked answers, which is how AlphaMath makes its training values; for these the value of
a terminal leaf has to come from the verifier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from prm.search.ports import Branch, Extender, Valuer, distinct, rank
from prm.search.step_beam import Found, found

C_PUCT = 1.25


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """A branch with what the search knows of it. `value` NaN: unjudged, backed up as 0, the middle."""

    branch: Branch
    prior: float = 1.0
    value: float = math.nan
    visits: int = 0
    total: float = 0.0
    depth: int = 0
    children: list[Node] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return self.total / self.visits if self.visits else 0.0


def puct(mean: float, prior: float, parent_visits: int, visits: int, c: float) -> float:
    """The score of a child."""
    return mean + c * prior * math.sqrt(parent_visits) / (1 + visits)


async def tree_search(
    extender: Extender,
    valuer: Valuer,
    *,
    num_simulations: int = 40,
    num_children: int = 5,
    max_depth: int = 8,
    c: float = C_PUCT,
) -> Found:
    """Every solution that the search came to, by value, after the one on the path of the largest Q.

    A path that does not end within the tree is written to its end.
    """
    root = Node(branch=extender.root())
    await _expand(root, extender, valuer, num_children)
    for _ in range(num_simulations):
        path = select(root, c)
        leaf = path[-1]
        back_up(path, 0.0 if math.isnan(leaf.value) else leaf.value)
        if not leaf.branch.ended and leaf.depth < max_depth:
            await _expand(leaf, extender, valuer, num_children)
    best = best_leaf(root).branch
    ends = [node.branch for node in nodes(root) if node.branch.ended]
    first = best if best.ended else (await extender.extend([best], num_steps=None))[0]
    others = [branch for branch in distinct(ends) if branch.key != first.key]
    values = await valuer.value([first, *others])
    rest = found(others, values[1:])
    return Found(branches=(first, *rest.branches), values=(values[0], *rest.values))


def select(root: Node, c: float) -> list[Node]:
    """The path from the root to a leaf; equal scores go to the first child."""
    path = [root]
    while path[-1].children:
        parent = path[-1]
        path.append(max(parent.children, key=lambda n: puct(n.mean, n.prior, parent.visits, n.visits, c)))
    return path


def back_up(path: Sequence[Node], value: float) -> None:
    """Count a visit with its value on every node of the path."""
    for node in path:
        node.visits += 1
        node.total += value


def best_leaf(root: Node) -> Node:
    """Down the tree by the largest Q among visited children, the more visited of equal ones."""
    node = root
    while visited := [child for child in node.children if child.visits]:
        node = max(visited, key=lambda child: (child.mean, child.visits))
    return node


def nodes(root: Node) -> list[Node]:
    """All nodes, parents before children."""
    everything = [root]
    for node in everything:
        everything += node.children
    return everything


async def _expand(node: Node, extender: Extender, valuer: Valuer, num_children: int) -> None:
    grown = distinct(await extender.extend([node.branch] * num_children))
    values = await valuer.value(grown)
    node.children = [
        Node(branch=branch, prior=step_prior(node.branch, branch), value=value, depth=node.depth + 1)
        for branch, value in sorted(zip(grown, values, strict=True), key=lambda pair: -rank(pair[1]))
    ]


def step_prior(before: Branch, after: Branch) -> float:
    """exp of the mean log-probability of the tokens that were sampled between the two; 1 if there are none."""
    start = len(before.trajectory.token_ids)
    sampled = after.trajectory.sampled[start:]
    logprobs = after.trajectory.sampler_logprobs[start:][sampled]
    return float(np.exp(logprobs.mean(dtype=np.float64))) if len(logprobs) else 1.0
