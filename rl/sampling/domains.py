"""Watches for a source of tasks that never gives a signal while others do: it costs tokens, and no drought ends it."""

from __future__ import annotations

from rl.ports import State
from rl.verdict import Tally

PATIENCE = 64
"""Groups of one source in a row without right and wrong answers after which it is named."""


class DomainWatch:
    """Per source, its groups in a row without a signal: how many, all right, all wrong."""

    def __init__(self) -> None:
        self._droughts: dict[str, list[int]] = {}

    def observe(self, source: str, tally: Tally) -> str | None:
        """A warning when this group makes a drought of PATIENCE groups, in a run with more than one source."""
        row = self._droughts.setdefault(source, [0, 0, 0])
        if tally.is_informative:
            row[:] = [0, 0, 0]
            return None
        row[0] += 1
        row[1] += tally.num_judged > 0 and tally.num_right == tally.num_judged
        row[2] += tally.num_judged > 0 and tally.num_right == 0
        if row[0] != PATIENCE or len(self._droughts) == 1:
            return None
        return (
            f"{PATIENCE} groups of source {source!r} in a row gave no training signal ({row[1]} all right, {row[2]} "
            f"all wrong, {PATIENCE - row[1] - row[2]} unjudged): all right, give it harder tasks; all wrong, easier "
            f"ones or a longer cold start; unjudged, look at its verifier. A smaller share in a sampler of type "
            f"'quotas' makes it cost less"
        )

    def state_dict(self) -> State:
        return {source: list(row) for source, row in self._droughts.items()}

    def load_state_dict(self, state: State) -> None:
        self._droughts = {source: list(row) for source, row in state.items()}
