"""Which groups learn from a demonstration, and with which advantage.

    HPT     per prompt: solved > gate: its answers, by reinforcement learning; else its demonstration, by supervision
    LUFFY   the demonstration joins the group, A = 1 - mean(scores and 1), and the answers stay

    gate = -1 is pure reinforcement learning, gate = the group size is pure supervision.

Sources: HPT, Lv et al. 2025 (arXiv 2509.04419); LUFFY, Yan et al. 2025 (arXiv 2504.14945), whose own advantage also
divides by the group's deviation; `group` here does not.

Assumption: the advantages of the answers are over the answers alone, so a demonstration shifts no baseline. The two
losses are averages of their own (`rl.packing.weigh`), added with `coefficient`; the published code sums the one and
averages the other, so its coefficient and its gradient clipping do not carry over.

What it is not: imitation of whatever is shown. A solution that does not arrive at the task's answer is not learned, and
is pushed down only if asked for.
"""

from __future__ import annotations

from collections.abc import Sequence


def learns_from_demonstration(num_right: int, gate: int) -> bool:
    """The hard switch of HPT."""
    return num_right <= gate


def group_advantage(scores: Sequence[float]) -> float:
    """Of a demonstration with score 1 among answers with these judged scores."""
    return 1.0 - (sum(scores) + 1.0) / (len(scores) + 1)
