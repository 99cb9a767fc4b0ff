r"""majority@k: the probability that the most frequent answer of k samples of a task is right.

The vote of a sample is its answer in a canonical spelling: the content of the last \boxed{} if there is one, else the
text; white space, case and a final full stop do not count. Ties are drawn by lot: they count by the share of the tied
answers that are right. The value is the mean over all subsets of k of the n judged samples, or over `MAX_SUBSETS`
seeded ones where there are more (self-consistency, Wang et al. 2022, arXiv 2203.11171).

Assumption: an answer that reads the same gets the same verdict; where a verifier disagrees with itself, the share of
its verdicts counts. A judged sample without an answer has no vote; a subset without any vote is wrong. What it is not:
the verifier's idea of equality. 0.5 and 1/2 are two candidates here.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from budgets.evaluation.attempt import Attempt, FloatArray

MAX_SUBSETS = 200
_BOXED = re.compile(r"\\boxed\s*\{")


def canonical(answer: str) -> str:
    """The spelling under which answers are counted; "" for no answer."""
    return " ".join(_boxed(answer).split()).rstrip(" .").casefold()


def majority_at_k(votes: Sequence[str], correct: Sequence[bool], k: int, *, seed: int) -> float:
    """One task: `votes` are canonical answers of the judged samples. NaN with fewer than k of them."""
    size = len(votes)
    if size < k:
        return float("nan")
    totals: Counter[str] = Counter(votes)
    right: Counter[str] = Counter(vote for vote, is_right in zip(votes, correct, strict=True) if is_right)
    rate = {vote: right[vote] / count for vote, count in totals.items()}
    values = [_verdict([votes[i] for i in subset], rate) for subset in _subsets(size, k, seed)]
    return sum(values) / len(values)


def per_task(attempts: Sequence[Sequence[Attempt | None]], k: int, *, seed: int) -> FloatArray:
    """[N] values from [N][K] attempts, of which only judged ones vote."""
    values = []
    for row in attempts:
        judged = [a for a in row if a is not None and a.correct is not None]
        votes = [canonical(a.answer_text) for a in judged]
        values.append(majority_at_k(votes, [bool(a.correct) for a in judged], k, seed=seed))
    return np.asarray(values)


def _verdict(votes: Iterable[str], rate: dict[str, float]) -> float:
    counts = Counter(vote for vote in votes if vote)
    if not counts:
        return 0.0
    most = max(counts.values())
    tied = [vote for vote, count in counts.items() if count == most]
    return sum(rate[vote] for vote in tied) / len(tied)


def _subsets(size: int, k: int, seed: int) -> Iterable[Sequence[int]]:
    if math.comb(size, k) <= MAX_SUBSETS:
        return itertools.combinations(range(size), k)
    rng = np.random.default_rng([seed, size, k])
    return [rng.choice(size, size=k, replace=False).tolist() for _ in range(MAX_SUBSETS)]


def _boxed(text: str) -> str:
    """Content of the last box whose braces close, else the text."""
    starts = [match.end() for match in _BOXED.finditer(text)]
    for start in reversed(starts):
        depth = 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if not depth:
                return text[start:end]
    return text
