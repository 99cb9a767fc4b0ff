"""modes.md: the results as tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from launch.evaluation.modes_report.rows import HEADINGS, MISSING, share_interval, table_rows


def render_markdown(results: Mapping[str, Any]) -> str:
    """The whole file."""
    most, base = results["num_samples"], results["base"]
    parts = [
        "# Thinking modes",
        f"Policy {_cell(results['policy'].get('name') or results['policy'].get('file', ''))}: "
        f"{results['num_tasks']} tasks, {most} samples each, base mode {_cell(base)}. Brackets are 95 % intervals from "
        "resampling tasks; those against the base are paired. * is on the frontier. k is "
        f"{most} for pass@k and majority@k; unjudged samples leave every share.",
        _table(HEADINGS, table_rows(results)),
        _frontier(results),
        "## Accuracy by difficulty",
        "A task's difficulty is the success rate of its other samples: hard below 1/3, easy from 2/3.",
        _slices(results, "by_difficulty", results["difficulty_bins"]["names"]),
    ]
    if len(results["sources"]) > 1:
        parts += ["## Accuracy by source", _slices(results, "by_source", results["sources"])]
    if any(report["calibration"] for report in results["modes"].values()):
        parts += ["## Self-assessed difficulty", _tags(results)]
    return "\n\n".join(parts) + "\n"


def _frontier(results: Mapping[str, Any]) -> str:
    frontier, act = results["frontier"], results["act"]
    names = ", ".join(map(_cell, frontier["modes"])) or "no mode"
    lines = [f"Frontier: {names}. Area under accuracy against thinking tokens: {_number(frontier['area'])}."]
    if act is not None:
        scores = ", ".join(f"{_cell(name)} {_number(score)}" for name, score in act["modes"].items())
        lines.append(f"ACT score against {_cell(act['base'])}: {_number(act['mean'])} ({scores}).")
    return " ".join(lines)


def _slices(results: Mapping[str, Any], key: str, names: Sequence[str]) -> str:
    rows = [
        [mode, *(f"{share_interval(report[key][n]['accuracy'])} (n {report[key][n]['num_judged']})" for n in names)]
        for mode, report in results["modes"].items()
    ]
    return _table(["mode", *names], rows)


def _tags(results: Mapping[str, Any]) -> str:
    heads = ["mode", "tagged", "agrees with measured", "correlation", "accuracy easy / hard", "tokens easy / hard"]
    rows = []
    for mode, report in results["modes"].items():
        found = report["calibration"]
        if found is not None:
            tags = [found["by_tag"][tag] for tag in ("easy", "hard")]
            pairs = [" / ".join(_number(tag[key]) for tag in tags) for key in ("accuracy", "thinking_tokens")]
            rows.append([mode, *(_number(found[key]) for key in ("tagged", "agreement", "correlation")), *pairs])
    return _table(heads, rows)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---", *(["---:"] * (len(headings) - 1))], *rows]
    return "\n".join(
        "| " + " | ".join(_cell(cell) if i != 1 else cell for cell in line) + " |" for i, line in enumerate(lines)
    )


def _cell(text: str) -> str:
    """Names come from recipes and data: nothing in them may end a cell or become markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"
