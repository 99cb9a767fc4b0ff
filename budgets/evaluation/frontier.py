"""What accuracy costs: the Pareto frontier of modes and the area under it.

A mode with mean tokens x and accuracy y is on the frontier if no other mode is at least as accurate with at most as
many tokens and better in one of the two. The area is that of the best accuracy affordable at each budget,

    area = 1/X * integral_0^X max{ y_m : x_m <= x } dx,    0 where no mode is affordable,

with X the largest x of the modes compared, so it lies in [0, 1]. Assumption: a mode is taken or left, mixing two modes
by lot is not counted (that would be the concave hull). What it is not: comparable between evaluations with different X;
give `limit` to compare two policies.
"""

from __future__ import annotations

from collections.abc import Mapping


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the (tokens, accuracy) points that nothing dominates, by tokens. Equal points are all kept."""

    def is_dominated(name: str) -> bool:
        x, y = points[name]
        return any(a <= x and b >= y and (a, b) != (x, y) for a, b in points.values())

    kept = [name for name in points if not is_dominated(name)]
    return sorted(kept, key=lambda name: (points[name][0], name))


def area_under(points: Mapping[str, tuple[float, float]], *, limit: float | None = None) -> float:
    """Area under the best affordable accuracy up to `limit` tokens, the largest of the points if None.

    NaN without points, or if the limit is 0.
    """
    if not points:
        return float("nan")
    end = max(x for x, _ in points.values()) if limit is None else limit
    if end <= 0:
        return float("nan")
    area, best, at = 0.0, 0.0, 0.0
    for x, y in sorted(points.values()):
        if x >= end:
            break
        area += best * (x - at)
        best, at = max(best, y), x
    return (area + best * (end - at)) / end
