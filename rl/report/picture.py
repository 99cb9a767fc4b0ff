"""Accuracy against thinking tokens as a standalone SVG, for pages that show pictures and run no script.

The same points as the plot of the report. Written with the standard library's XML tree, so every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as Xml

from rl.report.curves import ranked_names
from rl.report.data import MODES, EvalPoint, Evaluation
from rl.report.plots import color_of

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 44, 56
TEXT, QUIET, LINE = "#1d2733", "#647182", "#dde2e8"
FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where the axes lie: thinking tokens from 0 to `max_tokens` across, accuracy from 0 to 1 upward."""

    max_tokens: float

    def x(self, tokens: float) -> float:
        return LEFT + 14 + (WIDTH - LEFT - RIGHT - 28) * tokens / self.max_tokens

    def y(self, accuracy: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * accuracy


def accuracy_svg(before: Evaluation | None, after: Evaluation | None, *, mode: str | None = None) -> str:
    """The picture: hollow before, filled after training, bars are 95% intervals.

    Without a `mode` it shows the first one that was evaluated.
    Raises ValueError when neither evaluation holds answers decoded in `mode`.
    """
    if mode is None:
        mode = next((m for e in (after, before) if e is not None for m in e.modes), MODES[0])
    ends = {name: e for name, e in (("before", before), ("after", after)) if e is not None and mode in e.modes}
    if not ends:
        raise ValueError(
            f"the picture needs an evaluation with {mode} decoding, and this run has none: evaluate it first"
        )
    efforts = ranked_names([effort for e in ends.values() for effort, other in e.points if other == mode])
    largest = max(point.thinking_tokens for e in ends.values() for (_, m), point in e.points.items() if m == mode)
    frame = Frame(max_tokens=_ceiling(largest))
    svg = Xml.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", width=str(WIDTH), height=str(HEIGHT)
    )
    svg.set("font-family", FONT)
    _box(svg, 0, 0, WIDTH, HEIGHT, "#ffffff")
    _text(svg, LEFT, 24, f"Held-out accuracy against thinking tokens ({mode}, 95% intervals)", size=15, color=TEXT)
    _axes(svg, frame)
    for effort in efforts:
        points = {name: e.points[effort, mode] for name, e in ends.items() if (effort, mode) in e.points}
        _journey(svg, frame, points, color_of(effort, efforts))
    _legend(svg, efforts)
    Xml.indent(svg)
    return Xml.tostring(svg, encoding="unicode") + "\n"


def _axes(svg: Xml.Element, frame: Frame) -> None:
    for fifth in range(6):
        y = frame.y(fifth / 5)
        _line(svg, LEFT, y, WIDTH - RIGHT, y, LINE)
        _text(svg, LEFT - 8, y + 4, f"{20 * fifth}%", anchor="end")
    for tick in _ticks(frame.max_tokens):
        x = frame.x(tick)
        _line(svg, x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 5, LINE)
        _text(svg, x, HEIGHT - BOTTOM + 20, f"{tick:g}", anchor="middle")
    _text(svg, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "thinking tokens (mean)", anchor="middle")


def _journey(svg: Xml.Element, frame: Frame, points: dict[str, EvalPoint], color: str) -> None:
    """The way of one effort: a dotted line, and for each end its interval and its mark."""
    places = [(frame.x(p.thinking_tokens), frame.y(p.accuracy)) for p in points.values()]
    if len(places) == 2:
        (x1, y1), (x2, y2) = places
        _line(svg, x1, y1, x2, y2, color, dash="2 5")
    for (name, point), (x, y) in zip(points.items(), places, strict=True):
        low, high = frame.y(point.low), frame.y(point.high)
        _line(svg, x, low, x, high, color)
        _line(svg, x - 5, low, x + 5, low, color)
        _line(svg, x - 5, high, x + 5, high, color)
        _mark(svg, x, y, color, is_filled=name == "after")


def _legend(svg: Xml.Element, efforts: Sequence[str]) -> None:
    x, y = WIDTH - RIGHT + 18, TOP + 12
    for effort in efforts:
        _mark(svg, x, y, color_of(effort, efforts), is_filled=True)
        _text(svg, x + 14, y + 4, effort, color=TEXT)
        y += 24
    for name, is_filled in (("before", False), ("after", True)):
        _mark(svg, x, y + 12, QUIET, is_filled=is_filled)
        _text(svg, x + 14, y + 16, name)
        y += 24


def _ceiling(value: float) -> float:
    """The end of the axis: the tick at or above `value`, at least 1."""
    step = _tick_step(max(value, 1.0))
    return max(math.ceil(value / step) * step, step)


def _ticks(ceiling: float) -> list[float]:
    step = _tick_step(ceiling)
    return [index * step for index in range(round(ceiling / step) + 1)]


def _tick_step(ceiling: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that makes at most 8 ticks."""
    power = 10.0 ** math.floor(math.log10(ceiling / 8))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * 8 >= ceiling)


def _box(svg: Xml.Element, x: float, y: float, width: float, height: float, color: str) -> None:
    Xml.SubElement(svg, "rect", x=f"{x:g}", y=f"{y:g}", width=f"{width:g}", height=f"{height:g}", fill=color)


def _line(svg: Xml.Element, x1: float, y1: float, x2: float, y2: float, color: str, *, dash: str = "") -> None:
    line = Xml.SubElement(svg, "line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", stroke=color)
    line.set("stroke-width", "1.5")
    if dash:
        line.set("stroke-dasharray", dash)


def _mark(svg: Xml.Element, x: float, y: float, color: str, *, is_filled: bool) -> None:
    mark = Xml.SubElement(svg, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="6", stroke=color)
    mark.set("fill", color if is_filled else "#ffffff")
    mark.set("stroke-width", "2")


def _text(
    svg: Xml.Element, x: float, y: float, content: str, *, size: int = 13, anchor: str = "start", color: str = QUIET
) -> None:
    text = Xml.SubElement(svg, "text", x=f"{x:.1f}", y=f"{y:.1f}", fill=color)
    text.set("font-size", str(size))
    text.set("text-anchor", anchor)
    text.text = content
