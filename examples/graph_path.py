"""A shortest way through a graph, with a score for every move: `verify` for the answer, `start` for the steps.

    ponder rewards check examples/graph_path.py:verify --data examples/graph_path.jsonl

The task's columns: `edges` (pairs such as "A B"), `start`, `goal`. A step of the thinking is a move, such as A>B.
"""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np

from prm.config import NewlineSplitter
from prm.steps import cut_steps
from rewards.outcome import Sample, judged, unjudged, unparseable
from rewards.plugins.contract import declare
from rollout.schema import Group, Metric, Outcome, ScoreKind, Status, StepScores, Trajectory


@declare(reads_thinking=False)
def verify(sample: Sample) -> Outcome:
    """1 for a shortest way, 0.5 for a longer one, 0 for what is no way."""
    graph = nx.Graph(edge.split() for edge in sample.meta["edges"])
    start, goal = sample.meta["start"], sample.meta["goal"]
    if start not in graph or goal not in graph or not nx.has_path(graph, start, goal):
        return unjudged(Status.BAD_REFERENCE, f"no way leads from {start} to {goal}")
    places = sample.answer.replace(",", " ").split()
    if not places:
        return unparseable("no answer")
    if len(places) > 2 * len(graph) or places[0] != start or places[-1] != goal or not nx.is_path(graph, places):
        return judged(0.0, "not a way from start to goal")
    return judged(1.0 if len(places) - 1 == nx.shortest_path_length(graph, start, goal) else 0.5)


class LegalMoves:
    """Scores a step 1 when it goes on from where the last legal move ended, along an edge; 0 when it does not."""

    async def score(self, group: Group) -> tuple[StepScores | None, ...]:
        return tuple(self._score(trajectory, group.job.task.meta) for trajectory in group.trajectories)

    def _score(self, trajectory: Trajectory, meta: Any) -> StepScores:
        graph, here = nx.Graph(edge.split() for edge in meta["edges"]), meta["start"]
        steps, scores = cut_steps(trajectory, NewlineSplitter()), []
        for step in steps:
            origin, _, target = step.text.replace(" ", "").partition(">")
            scores.append(float(origin == here and graph.has_edge(origin, target)))
            here = target if scores[-1] else here
        spans = tuple(step.span for step in steps)
        return StepScores(spans=spans, scores=np.array(scores, np.float32), kind=ScoreKind.PROB, scorer="legal moves")

    def metrics(self) -> list[Metric]:
        return []

    def close(self) -> None: ...


def start(settings: Any, make_pool: Callable[[], Any]) -> LegalMoves:
    return LegalMoves()
