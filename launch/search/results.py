"""From finished searches to results: accuracy of every method against the tokens it generated.

Independent samples are evaluated at n = 1, 2, 4, ... of them: a task's value is the mean over subsets of n (all, or
`MAX_SUBSETS` seeded ones), so one pool of samples serves every n. A search is one point for each rule that chooses
among what it ended with. Every method is compared with majority voting at equal tokens: majority's accuracy on each
task is interpolated between the two n whose mean tokens enclose the method's, and the difference is paired by task.
Outside of the measured range there is no comparison.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from budgets.evaluation import intervals
from budgets.evaluation.intervals import number
from budgets.evaluation.pass_at_k import ladder, pass_at_k
from launch.search import spread
from launch.search.plan import SAMPLES
from launch.search.store import Searched, Solution
from prm.search.aggregate import Aggregate, aggregate
from prm.search.compute_optimal import compute_optimal
from prm.search.vote import Rule, share_right, winners
from rollout.schema import ScoreKind, StepScores, StepSpan

FORMAT = 1
MAX_SUBSETS = 24
NUM_SCORED = 4  # samples whose mean score predicts how hard a task is
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point:
    """One method: `accuracy` and `tokens` [N] per task, NaN where unjudged. `group` is the line that it belongs to."""

    name: str
    group: str
    accuracy: FloatArray
    tokens: FloatArray

    @property
    def mean_tokens(self) -> float:
        return float(np.nanmean(self.tokens))


def evaluate_searches(
    searched: Sequence[Searched], *, tasks: Sequence[str], name: Aggregate, num_bins: int, seed: int
) -> dict[str, Any]:
    """All statistics as JSON. `name` is how step scores become one number. Raises ValueError for an impossible one."""
    by_strategy: defaultdict[str, dict[str, Searched]] = defaultdict(dict)
    for item in searched:
        by_strategy[item.strategy][item.task] = item
    samples = by_strategy.pop(SAMPLES)
    kinds = {item.kind for item in searched if item.kind}
    if len(kinds) > 1:
        raise ValueError(f"step scores of different kinds cannot be compared, got {', '.join(sorted(kinds))}")
    kind = ScoreKind(next(iter(kinds))) if kinds else ScoreKind.PROB
    reading = _Reading(name=name, kind=kind, seed=seed)
    rules: list[Rule] = ["best_of_n", "weighted_best_of_n"]
    if kind is not ScoreKind.PROB:
        rules.append("weighted_majority")
    points = sample_points(samples, tasks, ["majority", *rules], reading)
    for strategy, found in by_strategy.items():
        points += [_search_point(strategy, rule, found, tasks, reading) for rule in rules]
    majority = [point for point in points if point.group == "majority"]
    mixed = _mixes(points, samples, tasks, reading, num_bins)
    return {
        "format": FORMAT,
        "num_tasks": len(tasks),
        "num_samples": max((len(samples[task].solutions) for task in tasks), default=0),
        "aggregate": name,
        "score_kind": str(kind) if kinds else None,
        "unscored": _unscored(searched, reading),
        "coreset": spread.report(samples, tasks, seed=seed),
        "methods": {point.name: _report(point, majority, seed) for point in [*points, *mixed]},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """How step scores are read."""

    name: Aggregate
    kind: ScoreKind
    seed: int

    def value(self, solution: Solution) -> float:
        if solution.scores is None:
            return math.nan
        size = len(solution.scores)
        spans = tuple(StepSpan(start=i, end=i + 1) for i in range(size))
        scores = np.asarray(solution.scores, dtype=np.float32)
        return aggregate(StepScores(spans=spans, scores=scores, kind=self.kind, scorer="stored"), self.name)

    def right(self, solutions: Sequence[Solution], values: Sequence[float], rule: Rule) -> float:
        """Accuracy of what the rule chooses; NaN where it cannot choose or nobody could judge the choice."""
        answers = [solution.answer for solution in solutions]
        places = winners(answers, values, rule, are_probabilities=self.kind is ScoreKind.PROB)
        if not places and (rule == "majority" or not all(math.isnan(v) for v in values)):
            return 0.0  # nobody answered
        return share_right(places, [solution.correct for solution in solutions], answers)


def sample_points(
    samples: Mapping[str, Searched], tasks: Sequence[str], rules: Sequence[Rule], reading: _Reading
) -> list[Point]:
    """Every rule at every n, and pass@n: what a perfect choice would give."""
    most = min(len(samples[task].solutions) for task in tasks)
    found = []
    for n in ladder(most):
        columns: dict[str, list[float]] = {rule: [] for rule in (*rules, "pass")}
        tokens = []
        for task in tasks:
            solutions = samples[task].solutions
            values = [reading.value(solution) for solution in solutions]
            subsets = list(_subsets(len(solutions), n, reading.seed))
            for rule in rules:
                parts = [reading.right([solutions[i] for i in s], [values[i] for i in s], rule) for s in subsets]
                columns[rule].append(_known_mean(parts))
            judged = [solution.correct for solution in solutions if solution.correct is not None]
            columns["pass"].append(pass_at_k(len(judged), sum(judged), n))
            tokens.append(n * sum(solution.tokens for solution in solutions) / len(solutions))
        found += [
            Point(name=f"{rule}@{n}", group=rule, accuracy=np.asarray(values), tokens=np.asarray(tokens))
            for rule, values in columns.items()
        ]
    return found


def _search_point(
    strategy: str, rule: Rule, found: Mapping[str, Searched], tasks: Sequence[str], reading: _Reading
) -> Point:
    accuracy = []
    for task in tasks:
        solutions = found[task].solutions
        accuracy.append(reading.right(solutions, [reading.value(s) for s in solutions], rule))
    tokens = np.asarray([found[task].tokens for task in tasks], dtype=np.float64)
    return Point(name=f"{strategy} {rule}", group=strategy, accuracy=np.asarray(accuracy), tokens=tokens)


def _mixes(
    points: Sequence[Point], samples: Mapping[str, Searched], tasks: Sequence[str], reading: _Reading, num_bins: int
) -> list[Point]:
    """The best method of each bin of difficulty at each n, chosen on the other half of the tasks."""
    if len(tasks) < 2 * num_bins:
        return []
    oracle = [_known_mean([float(s.correct) for s in samples[t].solutions if s.correct is not None]) for t in tasks]
    predicted = [_known_mean([reading.value(s) for s in samples[t].solutions[:NUM_SCORED]]) for t in tasks]
    levels = [point for point in points if point.group == "majority"]
    found = []
    for title, difficulty in (("predicted", np.asarray(predicted)), ("oracle", np.asarray(oracle))):
        known = ~np.isnan(difficulty)
        if known.sum() < 2 * num_bins:
            continue
        for level, above in itertools.pairwise([*levels, None]):
            assert level is not None
            limit = math.inf if above is None else above.mean_tokens
            usable = [
                point
                for point in points
                if point.group != "pass" and level.mean_tokens <= point.mean_tokens + 1e-9 and point.mean_tokens < limit
            ]
            table = np.stack([point.accuracy[known] for point in usable])[:, :, None]
            mixed = compute_optimal(table, difficulty[known], num_bins=num_bins, seed=reading.seed)
            picked = mixed.chosen[1 - mixed.folds, mixed.bins, 0]
            costs = np.stack([point.tokens[known] for point in usable])
            accuracy, tokens = np.full(len(tasks), np.nan), np.full(len(tasks), np.nan)
            accuracy[known] = mixed.value[:, 0]
            tokens[known] = costs[picked, np.arange(int(known.sum()))]
            name = f"mix by {title} difficulty, {level.name.partition('@')[2]} samples or more"
            found.append(Point(name=name, group=f"mix ({title})", accuracy=accuracy, tokens=tokens))
    return found


def _report(point: Point, majority: Sequence[Point], seed: int) -> dict[str, Any]:
    against = at_equal_tokens(majority, point.mean_tokens)
    gain = None
    if against is not None:
        difference, _ = intervals.paired(point.accuracy, against, seed=seed)
        gain = difference.as_json()
    return {
        "group": point.group,
        "accuracy": intervals.mean(point.accuracy, seed=seed, is_share=True).as_json(),
        "tokens": number(point.mean_tokens),
        "num_tasks": int((~np.isnan(point.accuracy)).sum()),
        "gain_over_majority": gain,
    }


def at_equal_tokens(points: Sequence[Point], tokens: float) -> FloatArray | None:
    """[N] accuracy of a line of methods at so many mean tokens, linear between its points; None outside of them."""
    ordered = sorted(points, key=lambda point: point.mean_tokens)
    for low, high in itertools.pairwise(ordered):
        start, end = low.mean_tokens, high.mean_tokens
        if start * (1 - 1e-9) <= tokens <= end * (1 + 1e-9):
            share = (tokens - start) / (end - start) if end > start else 0.0
            mixed: FloatArray = (1 - share) * low.accuracy + share * high.accuracy
            return mixed
    return None


def _subsets(size: int, n: int, seed: int) -> Iterable[Sequence[int]]:
    if math.comb(size, n) <= MAX_SUBSETS:
        return itertools.combinations(range(size), n)
    rng = np.random.default_rng([seed, size, n])
    return [rng.choice(size, size=n, replace=False).tolist() for _ in range(MAX_SUBSETS)]


def _known_mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _unscored(searched: Sequence[Searched], reading: _Reading) -> int:
    """Solutions without a number to compare them by."""
    return sum(math.isnan(reading.value(solution)) for item in searched for solution in item.solutions)
