"""Pictures of a finished run for a README: its last screen, and accuracy against thinking tokens, as SVG files."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from launch.screen import SPLIT_METRICS, EffortNow, Snapshot, live_view, results
from rl.report.curves import Series
from rl.report.data import RunData, load_run
from rl.report.picture import accuracy_svg
from rl.report.plots import matching

WIDTH = 108  # characters


def write_pictures(directory: Path, out: Path) -> list[Path]:
    """Write `terminal.svg` and `accuracy_tokens.svg` of the run in `directory` below `out`; return their paths."""
    run = load_run(directory)
    out.mkdir(parents=True, exist_ok=True)
    modes = [mode for evaluation in (run.before, run.after) if evaluation is not None for mode in evaluation.modes]
    pictures = {"terminal.svg": terminal_svg(run), "accuracy_tokens.svg": accuracy_svg(run.before, run.after, mode=(modes or ["sampled"])[0])}
    for name, svg in pictures.items():
        (out / name).write_text(svg, encoding="utf-8")
    return [out / name for name in pictures]


def terminal_svg(run: RunData) -> str:
    """The screen with which the run ended, drawn by the code that draws it live."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    now = last_snapshot(run)
    console.print(live_view(now, clock=0.0, width=WIDTH, is_ascii=False, quiet_after_s=1.0))
    console.print()
    for renderable in results(run.before, run.after, phases=run.phases):
        console.print(renderable)
    console.print(Text(f"report: {run.directory / 'report.html'}", style="bold"), soft_wrap=True)
    svg = console.export_svg(title=f"ponder train {run.directory.resolve().name}")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # fonts of the reader's machine, none fetched


def last_snapshot(run: RunData) -> Snapshot:
    """What was on the screen after the last step, from the metrics."""
