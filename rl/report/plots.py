"""The plots of the report as plotly figures. The page, which knows light from dark, colors text and grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

from rl.report.curves import (
    Series,
    aligned,
    downsample,
    matching,
    ranked_names,
    running_mean,
    smoothing_window,
    stretch_means,
)
from rl.report.data import ACCURACY, DROPPED, REWARD, STALENESS, THINKING, TIME_METRICS, Evaluation, RunData

COLORS = {"low": "#2a9d8f", "medium": "#d98e1f", "high": "#7a5cc7"}
PALETTE = ("#3f7fbf", "#c8553d", "#4f9d4f", "#b0579b", "#8a7f2d", "#5b6b7a", "#cf7a9a", "#2f9fb5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One small plot of curves over training steps.

    `metrics` are names of metrics, or patterns with one star: what the star stands for is then the curve's name.
    """

    title: str
    metrics: tuple[str, ...]
    kind: Literal["lines", "stack"] = "lines"
    is_share: bool = False  # drawn in percent
    unit: str = ""


PANELS = (
    Panel(title="Reward", metrics=(REWARD,)),
    Panel(title="Training accuracy by effort", metrics=(ACCURACY,), is_share=True),
    Panel(title="Thinking tokens by effort", metrics=(THINKING,), unit="tokens"),
    Panel(title="Reward by source of tasks", metrics=("source/*/reward_mean",)),
    Panel(title="Weight of domains", metrics=("reweight/domain/*/weight",)),
    Panel(title="Reward before / now by domain", metrics=("reweight/domain/*/convergence",)),
    Panel(title="Instability of reward by domain", metrics=("reweight/domain/*/instability",)),
    Panel(title="Share of domains among groups", metrics=("sampler/*/share",), is_share=True),
    Panel(title="Groups without contrast", metrics=("groups/all_right", "groups/all_wrong"), is_share=True),
    Panel(title="Response length", metrics=("response/tokens_mean", "response/tokens_p95"), unit="tokens"),
    Panel(title="Truncated responses by effort", metrics=("train/*/truncated",), is_share=True),
    Panel(title="Mean advantage by response length", metrics=("advantage/mean_of_*",)),
    Panel(title="Size of the advantage by response length", metrics=("advantage/size_of_*",)),
    Panel(title="Entropy", metrics=("loss/entropy",), unit="nats per token"),
    Panel(title="Clipped tokens", metrics=("loss/clip_low", "loss/clip_high"), is_share=True),
    Panel(title="Mismatch between engine and learner", metrics=("mismatch/k3",), unit="KL (k3), nats"),
    Panel(title="Time of a step", metrics=tuple(TIME_METRICS.values()), kind="stack", unit="seconds"),
    Panel(title="Staleness", metrics=(STALENESS,), unit="steps"),
    Panel(title="Idle", metrics=("idle/*",), is_share=True),
    Panel(title="Age of samples, in batches", metrics=("staleness/lag_*",), kind="stack", is_share=True),
    Panel(title="Age of tokens, in batches", metrics=("staleness/tokens_lag_*",), kind="stack", is_share=True),
    Panel(title="Dropped groups by reason", metrics=(DROPPED,), kind="stack", unit="groups"),
    Panel(title="Directions in use", metrics=("geometry/rankme", "geometry/covariance_rank"), unit="effective rank"),
    Panel(title="Decay of the spectrum", metrics=("geometry/alpha_req",)),
    Panel(title="Gradient by layer", metrics=("gradients/nuclear/*",), unit="nuclear norm"),
    Panel(title="Gradient jumps between layers", metrics=("gradients/*/mad",), unit="nuclear norm"),
)


def curve_figures(run: RunData) -> dict[str, dict[str, Any]]:
    """Figure JSON of every panel that has data, by title."""
    figures = {}
    for panel in PANELS:
        curves = matching(run.series, panel.metrics)
        if curves:
            figures[panel.title] = _figure(panel, curves)
    return figures


def color_of(name: str, names: Sequence[str]) -> str:
    """The same color for the same effort in every plot; other names take theirs by position."""
    others = [other for other in names if other not in COLORS]
    return COLORS[name] if name in COLORS else PALETTE[others.index(name) % len(PALETTE)]


def accuracy_figures(before: Evaluation | None, after: Evaluation | None) -> dict[str, dict[str, Any]]:
    """Accuracy against thinking tokens, one figure per decoding mode: hollow before, filled after."""
    shown = [e for e in (before, after) if e is not None]
    tokens = [p.thinking_tokens for e in shown for p in e.points.values()]
    figures = {}
    for mode in [m for m in ("sampled", "greedy") if any(m in e.modes for e in shown)]:
        efforts = ranked_names([effort for e in shown for effort, other in e.points if other == mode])
        traces = [trace for effort in efforts for trace in _journey(effort, mode, before, after, efforts)]
        layout = _layout("thinking tokens (mean)", "held-out accuracy")
        layout["xaxis"]["range"] = [-0.06 * max(tokens, default=1.0) - 0.5, 1.12 * max(tokens, default=1.0) + 0.5]
        layout["yaxis"] |= {"tickformat": ".0%", "range": [0, 1.02]}
        figures[mode] = go.Figure(data=traces, layout=layout).to_plotly_json()
    return figures


def _journey(
    effort: str, mode: str, before: Evaluation | None, after: Evaluation | None, efforts: Sequence[str]
) -> list[go.Scatter]:
    """The way of one effort from before to after: a dotted line and two points with their intervals."""
    color = color_of(effort, efforts)
    ends = [
        (name, e.points[effort, mode])
        for name, e in (("before", before), ("after", after))
        if e and (effort, mode) in e.points
    ]
    way = go.Scatter(
        x=[p.thinking_tokens for _, p in ends],
        y=[p.accuracy for _, p in ends],
        mode="lines",
        line={"color": color, "width": 1.5, "dash": "dot"},
        legendgroup=effort,
        showlegend=False,
        hoverinfo="skip",
    )
    return [way] + [
        go.Scatter(
            x=[point.thinking_tokens],
            y=[point.accuracy],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [point.high - point.accuracy],
                "arrayminus": [point.accuracy - point.low],
                "color": color,
                "thickness": 1.4,
                "width": 5,
            },
            mode="markers",
            name=f"{effort}, {name}",
            legendgroup=effort,
            marker={
                "size": 12,
                "color": color,
                "symbol": "circle" if name == "after" else "circle-open",
                "line": {"width": 2, "color": color},
            },
            hovertemplate=f"{effort}, {name}<br>%{{y:.1%}} at %{{x:.1f}} tokens<extra></extra>",
        )
        for name, point in ends
    ]


def _figure(panel: Panel, curves: Mapping[str, Series]) -> dict[str, Any]:
    names = list(curves)
    layout = _layout("step", panel.unit)
    if panel.is_share:
        layout["yaxis"] |= {"tickformat": ".2~%", "rangemode": "tozero"}
    layout["showlegend"] = len(names) > 1
    if panel.kind == "stack":
        traces = [_stacked(name, series, names) for name, series in aligned(curves).items()]
    else:
        traces = [trace for name in names for trace in _smoothed(name, curves[name], names)]
    figure: dict[str, Any] = go.Figure(data=traces, layout=layout).to_plotly_json()
    return figure


def _smoothed(name: str, series: Series, names: Sequence[str]) -> list[go.Scatter]:
    """The raw curve, faint, and its running mean."""
    color = color_of(name, names)
    window = smoothing_window(len(series))
    thin, smooth = downsample(series), downsample(running_mean(series, window))
    raw = go.Scatter(
        x=thin.steps,
        y=thin.values,
        mode="lines" if len(series) > 1 else "markers",
        name=name,
        legendgroup=name,
        showlegend=window == 1,
        line={"color": color, "width": 1},
        opacity=1.0 if window == 1 else 0.3,
    )
    if window == 1:
        return [raw]
    mean = go.Scatter(
        x=smooth.steps, y=smooth.values, mode="lines", name=name, legendgroup=name, line={"color": color, "width": 2.2}
    )
    return [raw, mean]


def _stacked(name: str, series: Series, names: Sequence[str]) -> go.Scatter:
    thin = stretch_means(series)
    line = {"width": 0.5, "color": color_of(name, names)}
    return go.Scatter(x=thin.steps, y=thin.values, mode="lines", name=name, stackgroup="all", line=line)


def _layout(x_title: str, y_title: str) -> dict[str, Any]:
    return {
        "template": {},
        "margin": {"l": 54, "r": 12, "t": 8, "b": 40},
        "xaxis": {"title": {"text": x_title}, "zeroline": False},
        "yaxis": {"title": {"text": y_title}, "zeroline": False, "exponentformat": "e"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "hovermode": "closest",
    }
