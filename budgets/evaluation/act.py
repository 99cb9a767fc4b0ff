"""ACT score: accuracy kept and tokens saved, in one number.

    A_m = accuracy_m / accuracy_base        C_m = 1 - tokens_m / tokens_base
    S   = mean over modes of  beta_m * A_m + (1 - beta_m) * C_m

with beta 1 for the most thorough mode and 0.5 for the others. Source: ThinkDial (arXiv 2508.18773), which reports 100 S
and measures against a model trained without modes; here the base is a mode of the same evaluation, or of another one.
Tokens are thinking tokens; the paper does not say which it counts. What it is not: a probability. A mode that costs
more than the base has a negative C, and S can exceed 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OTHER_BETA = 0.5


def act_scores(
    points: Mapping[str, tuple[float, float]], modes: Sequence[str], base: tuple[float, float]
) -> dict[str, float]:
    """Score of each of `modes`, the most thorough first, from (tokens, accuracy) of each and of the base.

    Raises ValueError unless the base has positive tokens and accuracy.
    """
    tokens, accuracy = base
    if not (tokens > 0 and accuracy > 0):
        raise ValueError(f"the ACT score needs a base with tokens and accuracy above 0, got {tokens}, {accuracy}")
    scores = {}
    for rank, mode in enumerate(modes):
        beta = 1.0 if rank == 0 else OTHER_BETA
        x, y = points[mode]
        scores[mode] = beta * y / accuracy + (1 - beta) * (1 - x / tokens)
    return scores
