"""The look at labelled solutions while a step scorer is trained online."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prm.actor_model import start_model_scorer
from prm.config import SeparatorSplitter
from prm.data import StepRow, write_rows
from prm.models.config import ImplicitPrmConfig, OnlineConfig, ProbeConfig
from prm.probe import Probe


def row(name: str, *labels: float | None) -> StepRow:
    spans = tuple((index + 2, index + 3) for index in range(len(labels)))
    steps, tokens = tuple("x" for _ in labels), tuple(range(len(labels) + 2))
    return StepRow(
        id=name, question="q", steps=steps, labels=labels, token_ids=tokens, prompt_len=2, spans=spans, source="s"
    )


def probe_of(tmp_path: Path, *rows: StepRow, max_rows: int = 200) -> Probe:
    write_rows(tmp_path / "labels.jsonl", rows)
    config = ProbeConfig(data=str(tmp_path / "labels.jsonl"), max_rows=max_rows)
    return Probe(config, None, SeparatorSplitter())


def scores(*values: float) -> np.ndarray:
    return np.asarray(values, np.float32)


def test_worked_figures(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, row("wrong", 1.0, 0.0, None), row("right", 1.0, 1.0), row("also", 0.0, None))
    assert [item.spans for item in probe.items] == [((2, 3), (3, 4), (4, 5)), ((2, 3), (3, 4)), ((2, 3), (3, 4))]
    assert probe.figures([scores(2, -1, 5), scores(3, 1), scores(-2, 4)]) == {"probe_f1": 1.0, "probe_incomplete": 0.0}
    # One of two errors is placed, the right one is let pass: 2 * 0.5 * 1 / 1.5. Shifting every score changes nothing.
    halved = probe.figures([scores(2, -1, 5), scores(3, 1), scores(4, -2)])
    assert halved["probe_f1"] == pytest.approx(2 / 3)
    assert probe.figures([scores(9, 6, 12), scores(10, 8), scores(11, 5)]) == halved


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, row("wrong", 1.0, 0.0), row("right", 1.0, 1.0))
    found = probe.figures([scores(2, -1), scores(3, float("nan"))])
    assert found == {"probe_f1": 0.0, "probe_incomplete": 0.5}


def test_rows_of_unknown_error_are_left_out(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, row("unknown", 1.0, None), row("a", 1.0), row("b", 0.0), max_rows=1)
    assert len(probe.items) == 1
    with pytest.raises(ValueError, match="says of no solution where its first error is; give ProcessBench rows"):
        probe_of(tmp_path, row("unknown", 1.0, None))


def test_a_file_that_is_not_there_is_named_before_anything_starts() -> None:
    config = ImplicitPrmConfig(online=OnlineConfig(probe=ProbeConfig(data="no/labels.jsonl")))
    with pytest.raises(
        ValueError, match=r"prm\.online\.probe\.data names 'no/labels\.jsonl', and there is no such file"
    ):
        start_model_scorer(config, start_model="model", state_dir="unused")
