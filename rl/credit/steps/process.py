"""How step scores take part in credit: before the outcome advantage, beside it, or in its place.

prepare     before: choose who trains (`filter`), or add to the rewards (`shaping`)
advantages  after: add a term per step, held within a share of the outcome's (most rules), or spare the right steps
            of wrong answers (`first_error`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rl.credit.process_config import FirstError, ProcessSection, RewardShaping, StepFilter, StepTerm
from rl.credit.steps.filter import kept_answers
from rl.credit.steps.first_error import first_error_advantages
from rl.credit.steps.rows import FloatArray, Row, Values, rows_of
from rl.credit.steps.shaping import answer_scores, shaped_rewards
from rl.segments import Segments, joined
from rl.verdict import is_correct
from rollout.schema import Metric, Outcome, ScoredGroup, ScoreKind, Status

SHAPING_TERM = "step_shaping"
"""Name of the reward component that `shaping` adds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupRows:
    """What a step rule reads of one group."""

    rows: Sequence[Row]
    kind: ScoreKind | None
    right_share: float  # of the judged answers; 0 where none is judged


TermRule = Callable[[Sequence[GroupRows]], Sequence[Sequence[Values]]]
"""Groups of a batch to one value a step."""


class Process:
    """No step scores: the outcome's advantage on every token, the control of all rules."""

    def prepare(self, groups: Sequence[ScoredGroup]) -> Sequence[ScoredGroup]:
        """The groups that the outcome rule is given."""
        return groups

    def advantages(self, groups: Sequence[ScoredGroup], outcome: Sequence[FloatArray]) -> list[list[FloatArray]]:
        """Per group and sibling, [L] advantages, from [G] outcome advantages; NaN stays NaN everywhere."""
        return [
            [np.full(len(t.token_ids), value) for t, value in zip(scored.group.trajectories, values, strict=True)]
            for scored, values in zip(groups, outcome, strict=True)
        ]

    def metrics(self) -> list[Metric]:
        """Of the last batch."""
        return []


class TermProcess(Process):
    """Adds a term, scaled down as a whole where it would exceed its share of the outcome advantage."""

    def __init__(self, section: StepTerm, rule: TermRule) -> None:
        self._section = section
        self._rule = rule
        self._metrics: list[Metric] = []

    def advantages(self, groups: Sequence[ScoredGroup], outcome: Sequence[FloatArray]) -> list[list[FloatArray]]:
        trajectories = [t for scored in groups for t in scored.group.trajectories]
        segments = Segments.of([t.token_ids for t in trajectories])
        values = joined(outcome, np.float64)
        term = self._term(groups, segments)
        sampled = joined([t.sampled for t in trajectories], np.bool_)
        scale = self._scale(values, term[sampled], segments.within(sampled))
        whole = iter(segments.split(np.repeat(values, segments.lengths) + scale * term))
        return [[next(whole) for _ in scored.group.trajectories] for scored in groups]

    def metrics(self) -> list[Metric]:
        return self._metrics

    def _term(self, groups: Sequence[ScoredGroup], segments: Segments) -> FloatArray:
        """The term of every token of all answers, end to end."""
        read = [self._read(scored) for scored in groups]
        term = np.zeros(int(segments.lengths.sum()))
        rows = (row for group in read for row in group.rows)
        values = (value for of_group in self._rule(read) for value in of_group)
        for offset, row, of_row in zip(segments.starts.tolist(), rows, values, strict=True):
            if row is not None and of_row is not None:
                for (start, end), value in zip(row.spans, of_row.tolist(), strict=True):
                    term[offset + start : offset + end] = value
        return self._section.weight * term

    def _read(self, scored: ScoredGroup) -> GroupRows:
        rows, kind = rows_of(scored, self._section)
        verdicts = [v for v in map(is_correct, scored.outcomes) if v is not None]
        if not any(verdicts) and not self._section.on_all_wrong:
            rows = [None] * len(rows)
        return GroupRows(rows=rows, kind=kind, right_share=sum(verdicts) / max(1, len(verdicts)))

    def _scale(self, outcome: FloatArray, term: FloatArray, tokens: Segments) -> float:
        """At most 1. Measured where there is an outcome signal; without any, as if the outcome's size were 1.

        `outcome` [N] one an answer; `term` over the sampled tokens of all, which are at `tokens`.
        """
        squares = tokens.reduce(np.add, term**2, 0.0)
        known = ~np.isnan(outcome) & (tokens.lengths > 0)
        signal, alone = known & (outcome != 0), known & (outcome == 0)
        num_tokens = float(tokens.lengths[signal].sum())
        outcome_squares = float((outcome[signal] ** 2 * tokens.lengths[signal]).sum())
        term_squares = float(squares[signal].sum())
        alone_squares, alone_tokens = float(squares[alone].sum()), float(tokens.lengths[alone].sum())
        if num_tokens:
            outcome_rms, term_rms = np.sqrt(outcome_squares / num_tokens), np.sqrt(term_squares / num_tokens)
        else:
            outcome_rms, term_rms = 1.0, np.sqrt(alone_squares / max(1.0, alone_tokens))
        scale = min(1.0, self._section.share * outcome_rms / term_rms) if term_rms > 0 else 1.0
        self._metrics = [
            Metric(name="credit/outcome_rms", value=float(outcome_rms) if num_tokens else 0.0, reduce="last"),
            Metric(name="credit/process_rms", value=float(scale * term_rms), reduce="last"),
            Metric(name="credit/process_to_outcome", value=float(scale * term_rms / outcome_rms), reduce="last"),
            Metric(name="credit/process_scale", value=float(scale), reduce="last"),
        ]
        return float(scale)


class FilterProcess(Process):
    """Leaves a part of each group out, as if it had not been sampled."""

    def __init__(self, section: StepFilter) -> None:
        self._section = section

    def prepare(self, groups: Sequence[ScoredGroup]) -> list[ScoredGroup]:
        return [self._chosen(scored) for scored in groups]

    def _chosen(self, scored: ScoredGroup) -> ScoredGroup:
        rows, _ = rows_of(scored, self._section)
        kept = kept_answers(
            [is_correct(o) for o in scored.outcomes],
            [np.nan if row is None else float(row.scores.mean()) for row in rows],
            keep=self._section.keep,
            right_share=self._section.right_share,
        )
        left_out = Outcome(status=Status.SKIPPED, score=None, reason="left out by credit.process of type filter")
        outcomes = (o if i in kept or o.score is None else left_out for i, o in enumerate(scored.outcomes))
        return replace(scored, outcomes=tuple(outcomes))


class ShapingProcess(Process):
    """Adds a reward that orders right among right and wrong among wrong, in groups that have both."""

    def __init__(self, section: RewardShaping) -> None:
        self._section = section

    def prepare(self, groups: Sequence[ScoredGroup]) -> list[ScoredGroup]:
        return [self._shaped(scored) for scored in groups]

    def _shaped(self, scored: ScoredGroup) -> ScoredGroup:
        verdicts = [is_correct(o) for o in scored.outcomes]
        if not {True, False} <= set(verdicts):
            return scored
        rows, kind = rows_of(scored, self._section)
        correct = np.asarray([v is True for v in verdicts], dtype=np.float64)
        scores = answer_scores(rows, kind, self._section.aggregate)
        rewards = shaped_rewards(scores, correct, alpha=self._section.alpha)
        change = np.nan_to_num(rewards - scored.outcome_scores.astype(np.float64))  # NaN where unjudged: read by nobody
        return replace(scored, shaped={**scored.shaped, SHAPING_TERM: change.astype(np.float32)})


class FirstErrorProcess(Process):
    """Moves the penalty of a wrong answer behind its right steps."""

    def __init__(self, section: FirstError) -> None:
        self._section = section

    def advantages(self, groups: Sequence[ScoredGroup], outcome: Sequence[FloatArray]) -> list[list[FloatArray]]:
        return [self._of_group(scored, values) for scored, values in zip(groups, outcome, strict=True)]

    def _of_group(self, scored: ScoredGroup, values: FloatArray) -> list[FloatArray]:
        rows, _ = rows_of(scored, self._section)
        return [
            first_error_advantages(
                row,
                float(value),
                len(trajectory.token_ids),
                correct=bool(is_correct(verdict)),
                threshold=self._section.threshold,
                prefix=self._section.prefix,
            )
            for row, value, trajectory, verdict in zip(
                rows, values, scored.group.trajectories, scored.outcomes, strict=True
            )
        ]


def process_without_terms(section: ProcessSection | None) -> Process | None:
    """The process of a section that adds no term; None for one that does."""
    if section is None:
        return Process()
    if isinstance(section, StepFilter):
        return FilterProcess(section)
    if isinstance(section, RewardShaping):
        return ShapingProcess(section)
    if isinstance(section, FirstError):
        return FirstErrorProcess(section)
    return None
