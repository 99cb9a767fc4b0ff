"""Min-form credit: an answer is worth its worst step (PURE).

Formula: with signed scores p = 2q - 1 in [-1, 1] and temperature T,
    w = softmax(-p / T) over the steps,  r*_k = w_k p_k,  R = sum_k r*_k, a soft minimum: min p <= R <= mean p,
    returns G_k = sum_{j >= k} r*_j;   strict: G_k = min(G_k, G_{k+1}), from the end.
    baseline "token":   b_i = sum_{l != i} R_l / sum_{l != i} tokens_l, taken once for each token that is left;
    baseline "answer":  b_i = mean_{l != i} R_l, taken once.
Source: PURE, arXiv 2504.15275; "token" is its final recipe. "answer" is ours.
Assumption: a solution is as good as its weakest link, and p of a step does not depend on the others.
What it is not: the minimum. Where all steps are nearly alike the soft minimum is near their mean, and more good steps
raise it a little; a lower temperature or "strict" tightens it. The token baseline taxes length where the siblings'
values are positive and pays for it where they are negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl.credit.steps.rows import FloatArray, Row, Values, mean_of_others, returns


def soft_min_rewards(signed: FloatArray, *, temperature: float) -> FloatArray:
    """[S] rewards r* of signed scores [S]; they sum to the soft minimum."""
    logits = -signed / temperature
    weights = np.exp(logits - logits.max())
    rewards: FloatArray = signed * weights / weights.sum()
    return rewards


def strict_returns(rewards: FloatArray) -> FloatArray:
    """[S] sums of later rewards, none larger than a later one. There is no padding in a row, so no zero joins in."""
    return np.minimum.accumulate(returns(rewards)[::-1])[::-1]


def min_form_terms(rows: Sequence[Row], *, temperature: float, strict: bool, per_token: bool) -> list[Values]:
    """Per sibling, one value a step; 0 where there is no other sibling to compare with."""
    rewards = [None if row is None else soft_min_rewards(2 * row.scores - 1, temperature=temperature) for row in rows]
    values = [None if r is None else float(r.sum()) for r in rewards]
    lengths = [None if row is None else float(row.num_tokens) for row in rows]
    others = zip(mean_of_others(values), mean_of_others(lengths), strict=True)
    terms: list[Values] = []
    for row, own, (value, length) in zip(rows, rewards, others, strict=True):
        if row is None or own is None:
            terms.append(None)
        elif value is None or length is None:
            terms.append(own * 0.0)
        else:
            tokens_left = returns(row.lengths.astype(np.float64))
            baseline = tokens_left * (value / length) if per_token else value
            terms.append((strict_returns(own) if strict else returns(own)) - baseline)
    return terms
