"""Step-level beam search: after every step only the best branches go on.

    root: sample B1 * B2 first steps
    then: sample B2 next steps for each of the open beams, drop equal ones,
          keep the B1 - (number of finished beams) best by value; a finished beam keeps its place

AlphaMath's SBS (arXiv 2405.03553) with B2 = 5 and a value head; the beam search of Snell et al. (arXiv 2408.03314) is
B1 = N / M, B2 = M with N samples and M = 4. With lookahead k > 0 a step is valued by where k greedy steps lead from it
(Snell et al.), which costs k + 1 times the tokens, all of them counted.

Widening the root to B1 * B2 is a reconstruction: the papers do not say what the first round does with B1 > 1. What it
is not: a search for the most likely text; the model's probabilities play no part in what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prm.search.ports import Branch, Extender, Valuer, distinct, rank


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """Solutions that a search ends with, the best first, and the value of each (NaN: unjudged)."""

    branches: tuple[Branch, ...]
    values: tuple[float, ...]


def found(branches: Sequence[Branch], values: Sequence[float]) -> Found:
    """Sorted by value; equal ones stay in their order."""
    order = sorted(range(len(branches)), key=lambda i: -rank(values[i]))
    return Found(branches=tuple(branches[i] for i in order), values=tuple(values[i] for i in order))


async def step_beam(
    extender: Extender, valuer: Valuer, *, num_beams: int, width: int, max_depth: int = 40, lookahead: int = 0
) -> Found:
    """`num_beams` is B1, `width` B2. Beams still open after `max_depth` steps are written to their end."""
    if min(num_beams, width, max_depth) < 1 or lookahead < 0:
        raise ValueError(
            f"step_beam needs num_beams, width and max_depth >= 1 and lookahead >= 0, got {num_beams}, {width}, "
            f"{max_depth}, {lookahead}"
        )
    done: list[Branch] = []
    beams = [extender.root()] * num_beams
    for _ in range(max_depth):
        if not beams:
            break
        grown = distinct(await extender.extend([beam for beam in beams for _ in range(width)]))
        values = await _look_ahead(extender, valuer, grown, lookahead)
        order = sorted(range(len(grown)), key=lambda i: -rank(values[i]))
        kept = [grown[i] for i in order[: num_beams - len(done)]]
        done += [branch for branch in kept if branch.ended]
        beams = [branch for branch in kept if not branch.ended]
    done += await extender.extend(beams, num_steps=None) if beams else []
    return found(done, await valuer.value(done))


async def _look_ahead(extender: Extender, valuer: Valuer, branches: Sequence[Branch], steps: int) -> list[float]:
    if steps:
        branches = await extender.extend(branches, num_steps=steps, greedy=True)
    return await valuer.value(branches)
