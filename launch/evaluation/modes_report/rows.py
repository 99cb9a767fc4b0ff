"""The table of modes, row by row: what Markdown, terminal and page all show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADINGS = (
    "mode",
    "pass@1",
    "against base",
    "pass@k",
    "majority@k",
    "thinking tokens",
    "of base",
    "answer tokens",
    "truncated",
    "leaks",
    "kept budget",
    "unjudged",
)
MISSING = "-"


def table_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """One row of texts per mode, in the order of `HEADINGS`. Frontier modes carry a star."""
    return [_row(name, report, results) for name, report in results["modes"].items()]


def _row(name: str, report: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    against = results["against_base"].get(name)
    most = str(results["num_samples"])
    star = " *" if name in results["frontier"]["modes"] else ""
    return [
        name + star,
        share_interval(report["pass@1"]),
        "base" if against is None else _difference(against["accuracy_difference"]),
        _share(report["pass@k"].get(most, {}).get("value")),
        _share(report["majority@k"].get(most, {}).get("value")),
        tokens(report["thinking_tokens"]),
        "" if against is None else _ratio(against["thinking_tokens_ratio"]),
        tokens(report["answer_tokens"]),
        _share(report["truncated"]),
        _share(report["leak_rate"]),
        MISSING if report["adherence"] is None else _share(report["adherence"]["kept"]),
        f"{report['num_attempts'] - report['num_judged']:,}",
    ]


def share_interval(estimate: Mapping[str, Any]) -> str:
    """`62.5 % [60.1, 64.9]`."""
    if estimate["value"] is None:
        return MISSING
    return f"{100 * estimate['value']:.1f} % [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def tokens(figures: Mapping[str, Any]) -> str:
    """Mean and 95th percentile: `31.2 (p95 48)`."""
    return MISSING if figures["mean"] is None else f"{figures['mean']:,.1f} (p95 {figures['p95']:,.0f})"


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f} %"


def _difference(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return MISSING
    return f"{100 * estimate['value']:+.1f} [{100 * estimate['low']:+.1f}, {100 * estimate['high']:+.1f}]"


def _ratio(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return MISSING
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"
