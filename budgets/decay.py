"""RMT's token budget: the number of tokens that the prompt asks for falls over training.

    B(t) = max(least, floor(first * factor^(t / T)))        t = 0 .. T

Source: Reinforcement Mid-Training (arXiv 2509.24375), with first = 800, factor = 0.2, least = 1. Its summaries print
the exponent as t / T or t / T^k; with t / T the last value is 160, and the thinking lengths that it reports, 186 and
188 tokens, are the budget at nine tenths of the training.

Assumption: t counts training steps and the first one has t = 0. What it is not: a cap. The number is what the prompt
says (`{tokens}` in the instruction), and the reward for meeting it is the shaping `triangle`.
"""

from __future__ import annotations

import math


def tokens_at(t: float, total: float, *, first: int, least: int, factor: float) -> int:
    """B(t), for t held within 0 and `total`."""
    share = min(max(t / total, 0.0), 1.0)
    # Powers that ought to be whole may come out a hair below, and the floor would take a token from them.
    return max(least, math.floor(first * math.pow(factor, share) + 1e-9))
