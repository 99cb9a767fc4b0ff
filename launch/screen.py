"""How a run looks in the terminal: pure functions from a snapshot to rich renderables or to one plain line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.box import ROUNDED
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rl.report.curves import ranked_names
from rl.report.data import MODES, TIME_METRICS, EvalPoint, Evaluation

PART_STYLES = {"generate": "cyan", "judge": "magenta", "learn": "green", "publish": "yellow"}
BAR_WIDTH = 32
# C0 controls but tab and newline, DEL, C1 controls, and the marks that turn the reading direction around
_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")
_BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_PLAIN_BLOCKS = "_.-:=+*#"


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortNow:
    """One effort in the newest step that held groups of it. `accuracy` is None when nothing was judged."""

    accuracy: float | None
    thinking_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything on the screen. Replaced as a whole, so that the thread that draws never sees half an update."""

    title: str
    num_steps: int
    step: int = 0
    phases: Mapping[str, float] = field(default_factory=dict)  # finished phases -> seconds
    running: str = ""  # the phase under way
    phase_started: float = 0.0  # clock, seconds
    phase_done: int = 0
    phase_total: int | None = None
    phase_note: str = ""
    last_step_at: float = 0.0  # clock, seconds: the last step or, before the first one, the start of training
    seconds_per_step: float | None = None
    reward: float | None = None
    rewards: tuple[float, ...] = ()
    efforts: Mapping[str, EffortNow] = field(default_factory=dict)
    tokens_per_s: float | None = None
    split: Mapping[str, float] = field(default_factory=dict)  # part -> seconds of the last step
    idle: Mapping[str, float] = field(default_factory=dict)  # role -> share of the last step without work
    dropped: Mapping[str, int] = field(default_factory=dict)  # reason -> groups of the whole run
    num_groups: int = 0  # groups of the whole run
    groups_since_step: int = 0
    warning: str = ""

    @property
    def seconds_left(self) -> float | None:
        """None before the first step and after the last one."""
        if self.seconds_per_step is None or self.step >= self.num_steps:
            return None
        return self.seconds_per_step * (self.num_steps - self.step)


def duration(seconds: float) -> str:
    """ "4.2 s", "3:07" or "1:02:09"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def sparkline(values: Sequence[float], *, width: int, is_ascii: bool) -> str:
    """The last `width` values as blocks between their own lowest and highest."""
    blocks = _PLAIN_BLOCKS if is_ascii else _BLOCKS
    shown = values[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((value - low) * scale)] for value in shown)


def spaced(name: str) -> str:
    """A phase's name as a person writes it."""
    return name.replace("_", " ")


def visible(text: str) -> str:
    """`text` without any character that a terminal would obey: control characters become escapes such as \\x1b.

    Newlines and tabs stay. What a model wrote may move the cursor, rename the window or hide what follows.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def plain_step(now: Snapshot) -> str:
    """One line for a log file: no color, no control character, the same fields in the same order in every line."""
    fields = [f"step {now.step}/{now.num_steps}"]
    fields.append("reward -" if now.reward is None else f"reward {now.reward:.3f}")
    fields += [f"{name} {percent(e.accuracy)} {e.thinking_tokens:.1f} tok" for name, e in now.efforts.items()]
    if now.tokens_per_s is not None:
        fields.append(f"{now.tokens_per_s:,.0f} tok/s")
    if now.split:
        fields.append(" ".join(f"{part} {now.split[part]:.2f}s" for part in TIME_METRICS if part in now.split))
    if now.idle:
        fields.append("idle " + " ".join(f"{role} {percent(share)}" for role, share in now.idle.items()))
    fields.append(f"dropped {sum(now.dropped.values())}/{now.num_groups}")
    if now.seconds_left is not None:
        fields.append(f"left {duration(now.seconds_left)}")
    return " | ".join(fields)


def heartbeat_line(now: Snapshot, clock: float) -> str:
    """What is known while nothing completes."""
    quiet = duration(clock - max(now.last_step_at, now.phase_started))
    phase = now.running or "run"
    if phase != "train":
        done = "" if now.phase_total is None else f", {now.phase_done}/{now.phase_total}"
        return f"{phase}: still running after {quiet}{done}"
    return f"train: no step completed for {quiet}; after step {now.step}, {now.groups_since_step} groups finished since"


def live_view(now: Snapshot, *, clock: float, width: int, is_ascii: bool, quiet_after_s: float) -> Stack:
    """The whole live screen; at most about 14 lines."""
    parts: list[Text | Table] = [_phases(now, clock)]
    if now.running and now.phase_total is not None:
        parts.append(_bar_row(now.running, now.phase_done, now.phase_total, now.phase_note))
    if now.running in ("", "train") or now.step:
        left = "" if now.seconds_left is None else f"{duration(now.seconds_left)} left"
        parts.append(_bar_row("train", now.step, now.num_steps, left))
        parts.append(_numbers(now, width=width, is_ascii=is_ascii))
        parts.append(_efforts_and_times(now, is_ascii=is_ascii))
    if now.dropped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(now.dropped.items()))
        parts.append(_labeled("dropped", f"{sum(now.dropped.values())} of {now.num_groups} groups: {reasons}"))
    if now.running and clock - max(now.last_step_at, now.phase_started) >= quiet_after_s:
        parts.append(Text(heartbeat_line(now, clock), style="yellow"))
    if now.warning:
        parts.append(Text(f"warning: {now.warning}", style="yellow"))
    return Stack(*parts)


def results(
    before: Evaluation | None, after: Evaluation | None, *, phases: Mapping[str, float]
) -> list[RenderableType]:
    """What is said at the end: accuracy and thinking tokens before and after per effort, and where the time went."""
    table = Table(title="Held-out accuracy (95% interval) and thinking tokens", title_justify="left", box=ROUNDED)
    for title in ("effort", "decoding"):
        table.add_column(title)
    for title in ("before", "after", "change", "thinking before", "after"):
        table.add_column(title, justify="right")
    shown = [evaluation for evaluation in (before, after) if evaluation is not None]
    places = {place: None for evaluation in shown for place in evaluation.points}
    for mode in ranked_names([mode for _, mode in places], MODES):
        for effort in ranked_names([effort for effort, other in places if other == mode]):
            ends = [None if e is None else e.points.get((effort, mode)) for e in (before, after)]
            table.add_row(effort, mode, *_result_cells(*ends))
        table.add_section()
    spent = "   ".join(f"{spaced(name)} {duration(seconds)}" for name, seconds in phases.items())
    return [table, *([_labeled("time", spent)] if spent else [])] if shown else []


def _result_cells(before: EvalPoint | None, after: EvalPoint | None) -> list[Text]:
    accuracies = [
        Text("-") if p is None else Text(f"{percent(p.accuracy)} [{100 * p.low:.1f}, {100 * p.high:.1f}]")
        for p in (before, after)
    ]
    tokens = [Text("-") if p is None else Text(f"{p.thinking_tokens:.1f}") for p in (before, after)]
    if before is None or after is None:
        return [*accuracies, Text("-"), *tokens]
    points = 100 * (after.accuracy - before.accuracy)
    style = "green" if after.low > before.high else "red" if after.high < before.low else ""
    return [*accuracies, Text(f"{points:+.1f}", style=style), *tokens]


def _phases(now: Snapshot, clock: float) -> Text:
    line = Text(now.title, style="bold")
    for name, seconds in now.phases.items():
        line.append(f"   {spaced(name)} ", style="not bold dim")
        line.append(duration(seconds), style="not bold")
    if now.running:
        line.append(f"   {spaced(now.running)} {duration(clock - now.phase_started)}", style="bold cyan")
    return line


def _bar_row(label: str, done: int, total: int, note: str) -> Table:
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(total, 1), completed=done, width=BAR_WIDTH)
    row.add_row(Text(f"{label:<9}", style="dim"), bar, Text(f"{done}/{total}", style="bold"), Text(note))
    return row


def _labeled(label: str, value: str) -> Text:
    return Text.assemble((f"{label:<10}", "dim"), value)


def _numbers(now: Snapshot, *, width: int, is_ascii: bool) -> Text:
    line = Text.assemble((f"{'reward':<10}", "dim"), ("-" if now.reward is None else f"{now.reward:.3f}", "bold"))
    line.append("  " + sparkline(now.rewards, width=max(min(width - 50, 60), 8), is_ascii=is_ascii), style="cyan")
    if now.tokens_per_s is not None:
        line.append(f"  {now.tokens_per_s:,.0f} tokens/s")
    if now.seconds_per_step is not None:
        line.append(f"  {now.seconds_per_step:.2f} s/step", style="dim")
    return line


def _efforts_and_times(now: Snapshot, *, is_ascii: bool) -> Table:
    efforts = Table.grid(padding=(0, 2))
    for _ in range(3):
        efforts.add_column(justify="right")
    efforts.add_row(*(Text(title, style="dim") for title in ("effort", "accuracy", "thinking")))
    for name, effort in now.efforts.items():
        efforts.add_row(name, Text(percent(effort.accuracy), style="bold"), f"{effort.thinking_tokens:.1f} tok")
    times = Table.grid(padding=(0, 1))
    total = sum(now.split.values())
    for part in (part for part in TIME_METRICS if part in now.split):
        seconds = now.split[part]
        bar = ("#" if is_ascii else "\u2586") * round(16 * seconds / total) if total else ""
        times.add_row(Text(part, style="dim"), f"{seconds:.2f} s", Text(bar, style=PART_STYLES[part]))
    if now.idle:
        shares = ", ".join(f"{role} {percent(share)}" for role, share in now.idle.items())
        times.add_row(Text("idle", style="dim"), "", Text(shares))
    both = Table.grid(padding=(0, 4))
    both.add_row(efforts, times)
    return both
