"""Accuracy against generated tokens as SVG: one line a method, tokens on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 12, 40
NUM_COLORS = 8  # of the page's style


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A method in the plot, in pixels, with what its tooltip says."""

    x: float
    y: float
    low: float
    high: float
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The methods of one group, by tokens."""

    name: str
    color: str
    dots: tuple[Dot, ...]
    is_dashed: bool  # its color is another line's, too, or it is a bound and no method

    @property
    def path(self) -> str:
        return " ".join(f"{'L' if i else 'M'}{dot.x:.1f} {dot.y:.1f}" for i, dot in enumerate(self.dots))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Everything that the page draws."""

    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM


def draw(methods: Mapping[str, Mapping[str, Any]]) -> Plot:
    """Methods without a verdict or without tokens are not drawn."""
    shown = {name: m for name, m in methods.items() if m["accuracy"]["value"] is not None and m["tokens"]}
    costs = [float(m["tokens"]) for m in shown.values()] or [1.0]
    low, high = min(costs), max(costs) * 1.0001
    values = [m["accuracy"][end] for m in shown.values() for end in ("low", "high")] or [0.0, 1.0]
    bottom, top = math.floor(10 * float(min(values))) / 10, math.ceil(10 * float(max(values))) / 10

    def x(tokens: float) -> float:
        return LEFT + 12 + (WIDTH - LEFT - RIGHT - 24) * math.log(tokens / low) / math.log(high / low)

    def y(share: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (share - bottom) / ((top - bottom) or 1))

    groups: dict[str, list[Dot]] = {}
    for name, m in sorted(shown.items(), key=lambda item: item[1]["tokens"]):
        accuracy = m["accuracy"]
        note = f"{name}: {100 * accuracy['value']:.1f} % at {m['tokens']:,.0f} tokens"
        place = Dot(
            x=x(m["tokens"]), y=y(accuracy["value"]), low=y(accuracy["low"]), high=y(accuracy["high"]), note=note
        )
        groups.setdefault(m["group"], []).append(place)
    order = list(dict.fromkeys(m["group"] for m in shown.values()))
    lines = tuple(
        Line(
            name=group,
            color=f"var(--m{i % NUM_COLORS})",
            dots=tuple(groups[group]),
            is_dashed=i >= NUM_COLORS or group == "pass",
        )
        for i, group in enumerate(order)
    )
    steps = range(round(10 * bottom), round(10 * top) + 1)
    return Plot(
        lines=lines,
        x_ticks=tuple((x(tick), f"{tick:,.0f}") for tick in _ticks(low, high)),
        y_ticks=tuple((y(step / 10), f"{10 * step} %") for step in steps),
    )


def _ticks(low: float, high: float) -> Sequence[float]:
    """1, 2 and 5 times powers of ten within the range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
