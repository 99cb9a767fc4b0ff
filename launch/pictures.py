"""Pictures of a finished run for a README: its last screen, and accuracy against thinking tokens, as SVG files."""

from __future__ import annotations

import collections
import io
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from launch.screen import EffortNow, Snapshot, live_view, results
from rl.record_reader import ledger
from rl.report.curves import matching
from rl.report.data import ACCURACY, REWARD, THINKING, TIME_METRICS, TOKENS_PER_S, RunData, load_run
from rl.report.picture import accuracy_svg
from rl.report.trajectories import GROUPS_FOLDER

WIDTH = 108  # characters


def write_pictures(directory: Path, out: Path) -> list[Path]:
    """Write `terminal.svg` and `accuracy_tokens.svg` of the run in `directory` below `out`; return their paths."""
    run = load_run(directory)
    out.mkdir(parents=True, exist_ok=True)
    modes = [mode for evaluation in (run.before, run.after) if evaluation is not None for mode in evaluation.modes]
    pictures = {
        "terminal.svg": terminal_svg(run),
        "accuracy_tokens.svg": accuracy_svg(run.before, run.after, mode=(modes or ["sampled"])[0]),
    }
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
    """What was on the screen after the last training step, from the metrics."""
    step = run.num_steps
    rewards = run.series[REWARD].values if REWARD in run.series else ()
    accuracy = matching(run.series, [ACCURACY])
    thinking = matching(run.series, [THINKING])
    entries = ledger(run.directory / GROUPS_FOLDER)
    times = matching(run.series, list(TIME_METRICS.values()))
    return Snapshot(
        title=run.directory.resolve().name,
        num_steps=step,
        step=step,
        phases=run.phases,
        reward=rewards[-1] if rewards else None,
        rewards=rewards,
        efforts={
            name: EffortNow(
                accuracy=accuracy[name].values[-1] if name in accuracy else None, thinking_tokens=series.values[-1]
            )
            for name, series in thinking.items()
        },
        tokens_per_s=run.series[TOKENS_PER_S].values[-1] if TOKENS_PER_S in run.series else None,
        split={part: series.values[-1] for part, series in times.items()},
        dropped=collections.Counter(entry.reason for entry in entries if entry.fate == "dropped"),
        num_groups=len(entries),
    )
