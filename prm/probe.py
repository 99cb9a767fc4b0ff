"""Whether a step scorer that is trained online still finds the first errors in solutions whose labels are known.

ProcessBench's F1 (`prm/evaluate.py`) on one file of labels, at the threshold that is best on these very rows: an upper
bound, and one that a drift of the scale does not move. So what falls is the ability to find errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prm.config import SplitterConfig
from prm.evaluate import Scores, best_threshold, localization
from prm.formats import read_any
from prm.models.config import ProbeConfig
from prm.steps import separator_of
from prm.train_examples import item_of_row


class Probe:
    """Labelled solutions as items for a scorer, in the order of the file."""

    def __init__(self, config: ProbeConfig, tokenizer: Any, splitter: SplitterConfig) -> None:
        """Raises ValueError for a file of no known format, or one that says of no solution where its first error is."""
        _, rows = read_any(Path(config.data))
        known = [(row, row.first_error) for row in rows if row.first_error is not None][: config.max_rows]
        if not known:
            raise ValueError(
                f"prm.online.probe.data = {config.data} says of no solution where its first error is; give "
                "ProcessBench rows, or step labels without gaps"
            )
        self.every = config.every
        self.items = tuple(item_of_row(row, tokenizer, joiner=separator_of(splitter)) for row, _ in known)
        self._labels = [first_error for _, first_error in known]

    def figures(self, scores: Sequence[Scores]) -> dict[str, float]:
        """From one array of step scores an item: F1, and the share of solutions that the model could not read whole."""
        found = localization(self._labels, scores, best_threshold(self._labels, scores))
        return {"probe_f1": found.f1, "probe_incomplete": found.num_incomplete / len(scores)}
