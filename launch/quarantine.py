"""Tasks whose own reference their verifier does not accept: set aside once per run, and named in a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch.manifest import write_json
from rollout.schema import Task

_MAX_CHARS = 200  # of a question or reference in the report

Check = Callable[[Sequence[Task]], list[tuple[Task, str]]]


def quarantined(path: Path, tasks: Sequence[Task], check: Check, *, max_share: float) -> dict[str, str]:
    """Reason by key of every task that must be left out. `path` is the report, which is written first and then stands.

    Raises ValueError when more than `max_share` of the tasks are bad: then the data or the verifier is wrong as a
    whole. Such a report does not stand, so that the check is made again when the data has been mended.
    """
    report = _read(path)
    if report is None or _is_too_much(len(report["quarantined"]), report["tasks"], max_share):
        report = {"tasks": len(tasks), "quarantined": {task.key: _entry(task, why) for task, why in check(tasks)}}
        write_json(path, report)
    bad = {key: str(entry["reason"]) for key, entry in report["quarantined"].items()}
    if _is_too_much(len(bad), report["tasks"], max_share):
        raise ValueError(
            f"the references of {len(bad)} of {report['tasks']} tasks cannot be judged, more than "
            f"rewards.max_bad_references ({max_share:g}) allows; {example(bad)}; all are in {path}. Check the answer "
            f"column and the verifier's name, or raise the setting"
        )
    return bad


def example(bad: dict[str, str]) -> str:
    """One of the tasks with its reason."""
    key, reason = next(iter(bad.items()))
    return f"for example {key}: {reason}"


def _is_too_much(bad: int, tasks: int, max_share: float) -> bool:
    return bad > max_share * tasks


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def _entry(task: Task, reason: str) -> dict[str, str]:
    return {
        "reason": reason,
        "reference": task.answer[:_MAX_CHARS],
        "verifier": task.verifier,
        "source": task.source,
        "question": task.prompt[-1].content[:_MAX_CHARS],
    }
