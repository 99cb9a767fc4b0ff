"""Sequential revisions: a solution, then another in view of it, and so on; the choice is among all of them.

    y_1 ~ policy(x),   y_{t+1} ~ policy(x, y_{t-m+1}, ..., y_t),   m the most that are shown

Snell et al. (arXiv 2408.03314) show up to four earlier attempts to a model trained to revise, and choose among the
whole chain, because revising turns a good share of right answers wrong. Several chains side by side trade sequential
for parallel attempts. What it is not: of use with a model that was never shown attempts; measure it against as many
independent samples. The paper picks the attempts to show by edit distance in training; here the last ones are shown.
"""

from __future__ import annotations

import asyncio

from prm.search.ports import Branch, Reviser, Valuer
from prm.search.step_beam import Found, found


async def revisions(
    reviser: Reviser, valuer: Valuer, *, num_rounds: int, num_chains: int = 1, num_shown: int = 4
) -> Found:
    """`num_chains` chains of `num_rounds` solutions each."""
    if min(num_rounds, num_chains, num_shown) < 1:
        raise ValueError(
            f"revisions need num_rounds, num_chains and num_shown >= 1, got {num_rounds}, {num_chains}, {num_shown}"
        )

    async def chain() -> list[Branch]:
        written: list[Branch] = []
        for _ in range(num_rounds):
            written.append(await reviser.attempt(written[-num_shown:]))
        return written

    chains = await asyncio.gather(*(chain() for _ in range(num_chains)))
    branches = [branch for written in chains for branch in written]
    return found(branches, await valuer.value(branches))
