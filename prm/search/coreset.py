"""A small set of solutions that differ as much as possible, by what a model's hidden states say about them.

    L = I / lambda;  pick one at random;  then repeat:  L -= L h h' L / (1 + h' L h)  for the last pick h,
    pick the solution not yet taken with the largest  h' L h

h [d] is the mean hidden state of a solution, as `rl/learner/representation.py` computes it, and L the inverse of
lambda I plus the sum of h h' over the picks, kept by Sherman and Morrison's formula; h' L h is how badly the picks
explain h. RepExp's inference-time selection (arXiv 2510.11686), d = 512 and lambda = 1: a verifier finds a right answer
after fewer checks than in random order, for which (N + 1) / (c + 1) checks are expected with c right ones of N.

What it is not: a choice of the best solution; it knows nothing of right and wrong, and is worth its features only where
something afterwards can tell.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def coreset(features: FloatArray, size: int, *, ridge: float = 1.0, first: int) -> list[int]:
    """Places of `size` solutions in the order of picking. `features` [N, d]; `first` is the first pick.

    Raises ValueError when there are fewer than `size` of them or the features are not finite.
    """
    num, dimension = features.shape
    if not 1 <= size <= num or not 0 <= first < num or ridge <= 0:
        raise ValueError(f"need 1 <= size <= {num}, 0 <= first < {num} and ridge > 0, got {size}, {first}, {ridge}")
    if not np.isfinite(features).all():
        raise ValueError("features must be finite; leave solutions without a response out")
    inverse = np.eye(dimension) / ridge
    scores = (features @ inverse * features).sum(axis=1)
    picks = [first]
    while len(picks) < size:
        last = features[picks[-1]]
        moved = inverse @ last
        scale = 1 + last @ moved
        inverse -= np.outer(moved, moved) / scale
        scores -= (features @ moved) ** 2 / scale
        free = scores.copy()
        free[picks] = -np.inf
        picks.append(int(np.argmax(free)))
    return picks
