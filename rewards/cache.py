"""`VerdictCache`: verdicts that may be given again, in a bounded number, with a count of how often they were."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from rollout.schema import Outcome


class VerdictCache:
    """The `max_size` verdicts used last, by question. 0 keeps none.

    Only scored outcomes are kept: a timeout or a crash says nothing of the question and may be gone the next time.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._verdicts: OrderedDict[Hashable, Outcome] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, question: Hashable) -> Outcome | None:
        """The verdict on this question, None when it is not known. Counts as used."""
        verdict = self._verdicts.get(question)
        if verdict is None:
            self.misses += 1
            return None
        self.hits += 1
        self._verdicts.move_to_end(question)
        return verdict

    def put(self, question: Hashable, outcome: Outcome) -> None:
        """Keep a verdict; an outcome without a score is passed over."""
        if not self._max_size or not outcome.is_scored:
            return
        self._verdicts[question] = outcome
        if len(self._verdicts) > self._max_size:
            self._verdicts.popitem(last=False)
