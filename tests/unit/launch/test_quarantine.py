"""Bad references are set aside once and named; too many of them stop the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from launch.quarantine import quarantined
from rollout.schema import Task
from tests.fakes.rewards import task

TASKS = [task(prompt=f"{n}?", answer="bad" if n % 10 == 0 else str(n)) for n in range(100)]


class Checks:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, tasks: Sequence[Task]) -> list[tuple[Task, str]]:
        self.count += 1
        return [(one, "cannot be read") for one in tasks if one.answer == "bad"]


def test_bad_tasks_are_named_in_a_report_and_checked_once(tmp_path: Path) -> None:
    path, check = tmp_path / "quarantine.json", Checks()
    bad = quarantined(path, TASKS, check, max_share=0.1)
    assert bad == {one.key: "cannot be read" for one in TASKS if one.answer == "bad"} and len(bad) == 10
    report = json.loads(path.read_text())
    assert report["tasks"] == 100
    assert report["quarantined"][TASKS[10].key] == {
        "reason": "cannot be read", "reference": "bad", "verifier": "exact", "source": "test", "question": "10?"
    }  # fmt: skip
    assert quarantined(path, TASKS, check, max_share=0.1) == bad
    assert check.count == 1


def test_too_many_stop_the_run_until_the_data_is_mended(tmp_path: Path) -> None:
    path, check = tmp_path / "quarantine.json", Checks()
    with pytest.raises(ValueError, match=r"10 of 100 tasks .* rewards.max_bad_references \(0.09\).*cannot be read"):
        quarantined(path, TASKS, check, max_share=0.09)
    assert len(json.loads(path.read_text())["quarantined"]) == 10
    mended = [one for one in TASKS if one.answer != "bad"]
    assert quarantined(path, mended, check, max_share=0.09) == {}
    assert check.count == 2
