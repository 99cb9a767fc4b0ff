"""Centred step term: which steps of a response were better than the group's steps on the whole.

Formula: for every token t inside step k of sibling i
    P_it = clip(weight * (q_ik - mean(q)), -cap, +cap)
with the mean over all judged steps of all judged siblings of the group, and 0 at tokens outside every step, in steps
without a score, and in siblings without step scores. It is added to the outcome advantage: A_it = A_i + P_it.
Source: a step-wise variant of process supervision in DeepSeekMath (arXiv 2402.03300, section 4.1.3) without the sum
over later steps. That sum pays for the number of steps: eight steps of 0.9 beat two of 0.9. Here the number of steps
earns nothing.
Assumption: a step's score says something about that step alone and scores of one group are comparable.
What it is not: a return. A step gets no credit for what it makes possible later; the outcome advantage carries that.
Guards: the term is centred, so good-looking steps do not raise a group's total; it is capped, so it cannot outvote the
outcome when cap is below the outcome advantage; and it is left out of groups without a right answer (`on_all_wrong`),
where it would be the only signal and so the place where a scorer gets hacked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rollout.schema import Float32Array, StepScores


def step_terms(
    steps: Sequence[StepScores | None], lengths: Sequence[int], *, weight: float, cap: float
) -> list[Float32Array]:
    """Step terms, one [L] array per sibling of `lengths`; pass None for a sibling that must leave the mean.

    Raises ValueError when the group mixes score kinds, which share no scale.
    """
    kinds = {s.kind for s in steps if s is not None}
    if len(kinds) > 1:
        raise ValueError(
            f"step scores of one group must be of one kind, got {sorted(kinds)}: use one step scorer per run"
        )
    scores = np.concatenate([np.empty(0, np.float32), *(s.scores for s in steps if s is not None)]).astype(np.float64)
    center = float(np.nanmean(scores)) if (~np.isnan(scores)).any() else 0.0
    terms = []
    for scored, length in zip(steps, lengths, strict=True):
        term = np.zeros(length, dtype=np.float32)
        if scored is not None:
            for span, score in zip(scored.spans, scored.scores, strict=True):
                if not np.isnan(score):
                    term[span.start : span.end] = np.clip(weight * (float(score) - center), -cap, cap)
        terms.append(term)
    return terms
