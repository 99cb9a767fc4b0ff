"""Fixed shares of domains; inside each domain another rule chooses.

With shares q_d (summing to 1) and n_d tasks given so far of n, a pick of B tasks wants

    need_d = q_d (n + B) - n_d

of domain d, negative needs counted as 0 and the rest scaled to B: the whole part of each, and one more for the largest
remainders until B are given. So the shares of what was given stay within a few tasks of q, as long as the domains have
free tasks; what a domain could not give, it is owed.
Assumption: shares are set by somebody who knows why. What it is not: adaptive; a domain that never teaches keeps its
share, and the run warns of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rl.ports import State
from rl.sampling.picker import NO_TASKS, Numbers, Picker, generator
from rl.verdict import Tally
from rollout.schema import Metric

MakeInner = Callable[[Numbers, int], Picker]  # the numbers of a domain's tasks, a seed


class Quotas:
    """Implements `rl.sampling.picker.Picker` over the pickers of the domains.

    Args:
        names: names of the D domains.
        domain_of: [N] domain of each task.
        shares: share of each domain by name, in any unit.
        make_inner: builds the picker of a domain, which numbers its tasks 0, 1, ... in the order given.

    Raises ValueError when a domain has no share or a share has no domain.
    """

    def __init__(
        self,
        names: Sequence[str],
        domain_of: npt.NDArray[np.int32],
        shares: Mapping[str, float],
        make_inner: MakeInner,
        *,
        seed: int,
    ) -> None:
        _check(names, shares)
        self._names = tuple(names)
        self._domain_of = domain_of
        total = sum(shares.values())
        self._shares = np.asarray([shares[name] / total for name in names])
        order = np.argsort(domain_of, kind="stable")
        starts = np.searchsorted(domain_of[order], np.arange(len(names) + 1))
        self._members = [order[a:b] for a, b in itertools.pairwise(starts)]
        self._place = np.empty(domain_of.size, dtype=np.int32)
        self._place[order] = np.arange(domain_of.size) - starts[domain_of[order]]
        self._inner = [make_inner(members, seed + 1 + d) for d, members in enumerate(self._members)]
        self._given = np.zeros(len(names), dtype=np.int64)
        self._seed = seed
        self._num_picks = 0

    def pick(self, count: int, busy: Numbers) -> Numbers:
        wanted = allocate(self._shares, self._given, count)
        picked = [self._of_domain(d, int(wanted[d]), busy) for d in range(len(self._names))]
        numbers = np.concatenate(picked)
        if not numbers.size:  # the domains whose turn it is have no free task: the first that has some
            numbers = next(found for d in range(len(self._names)) if (found := self._of_domain(d, count, busy)).size)
        self._num_picks += 1
        return generator(self._seed, "quotas", self._num_picks).permutation(numbers)

    def update(self, number: int, tally: Tally) -> None:
        self._inner[self._domain_of[number]].update(int(self._place[number]), tally)

    def state_dict(self) -> State:
        return {
            "num_picks": self._num_picks,
            "given": self._given.tolist(),
            "inner": {name: inner.state_dict() for name, inner in zip(self._names, self._inner, strict=True)},
        }

    def load_state_dict(self, state: State) -> None:
        self._num_picks = state["num_picks"]
        self._given = np.asarray(state["given"], dtype=np.int64)
        for name, inner in zip(self._names, self._inner, strict=True):
            inner.load_state_dict(state["inner"][name])

    def metrics(self) -> list[Metric]:
        shares = self._given / max(1, self._given.sum())
        given = zip(self._names, shares, strict=True)
        found = [Metric(name=f"sampler/{name}/share", value=float(share), reduce="last") for name, share in given]
        for name, inner in zip(self._names, self._inner, strict=True):
            for metric in inner.metrics():
                leaf = metric.name.removeprefix("sampler/")
                found.append(Metric(name=f"sampler/{name}/{leaf}", value=metric.value, reduce=metric.reduce))
        return found

    def _of_domain(self, domain: int, count: int, busy: Numbers) -> Numbers:
        """Up to `count` tasks of one domain. What its picker does not give now is owed to it in the next pick."""
        taken = self._place[busy[self._domain_of[busy] == domain]].astype(np.int64)
        count = min(count, self._members[domain].size - taken.size)
        if count <= 0:
            return NO_TASKS
        picked = self._inner[domain].pick(count, taken)
        self._given[domain] += picked.size
        numbers: Numbers = self._members[domain][picked]
        return numbers


def allocate(shares: npt.NDArray[np.float64], given: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """[D] tasks of each domain in a pick of `count`, so that the sums approach the shares."""
    need = np.maximum(0.0, shares * (given.sum() + count) - given)
    need *= count / need.sum()  # what some have had too much of, the others share
    whole: npt.NDArray[np.int64] = np.floor(need + 1e-9).astype(np.int64)
    remainder = np.argsort(-(need - whole), kind="stable")
    whole[remainder[: count - int(whole.sum())]] += 1
    return whole


def _check(names: Sequence[str], shares: Mapping[str, float]) -> None:
    if set(names) != set(shares):
        raise ValueError(
            f"sampling.sampler.shares must name the domains of the training tasks, {sorted(names)}; "
            f"missing {sorted(set(names) - set(shares))}, unknown {sorted(set(shares) - set(names))}"
        )
