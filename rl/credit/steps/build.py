"""From settings to the step rule they describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rl.credit.process_config import (
    CenteredSteps,
    ClippedSteps,
    DeltaSteps,
    GroupReturns,
    LeaveOneOutReturns,
    MinForm,
    ProcessSection,
    Progress,
    StepTerm,
)
from rl.credit.steps.centered import centered_terms
from rl.credit.steps.clip_delta import clip_terms, delta_terms
from rl.credit.steps.group_returns import group_return_terms
from rl.credit.steps.leave_one_out import largest_return, leave_one_out_terms
from rl.credit.steps.min_form import min_form_terms
from rl.credit.steps.process import GroupRows, Process, TermProcess, TermRule, process_without_terms
from rl.credit.steps.progress import progress_terms
from rl.credit.steps.rows import Values, pooled
from rollout.schema import ScoreKind


def build_process(section: ProcessSection | None) -> Process:
    """The part that `section` describes; none leaves outcome credit alone."""
    process = process_without_terms(section)
    if process is not None:
        return process
    assert isinstance(section, StepTerm)
    return TermProcess(section.model_copy(update={"weight": 1.0}) if _weighs(section) else section, _rule(section))


def _weighs(section: StepTerm) -> bool:
    """Whether the rule has the weight inside, where its cap is."""
    return isinstance(section, CenteredSteps)


def _rule(section: StepTerm) -> TermRule:
    match section:
        case CenteredSteps():
            return _each(lambda g: centered_terms(g.rows, weight=section.weight, cap=section.cap))
        case GroupReturns():
            return _each(lambda g: group_return_terms(g.rows))
        case MinForm():
            per_token = section.baseline == "token"
            return _each(
                lambda g: min_form_terms(
                    g.rows, temperature=section.temperature, strict=section.strict, per_token=per_token
                )
            )
        case Progress():
            return _each(lambda g: _progress(section, g))
        case LeaveOneOutReturns():
            return lambda groups: _leave_one_out(section, groups)
        case ClippedSteps() | DeltaSteps():
            return lambda groups: _clip_delta(section, groups)
    raise AssertionError(f"no step rule for {section}")


def _each(rule: Callable[[GroupRows], list[Values]]) -> TermRule:
    return lambda groups: [rule(group) for group in groups]


def _progress(section: Progress, group: GroupRows) -> list[Values]:
    if group.kind is ScoreKind.Q:
        if section.best_of > 1:
            raise ValueError(
                f"credit.process.best_of = {section.best_of} turns probabilities into those of the best attempt, and "
                "the scorer gives cumulative values; set best_of = 1"
            )
        return progress_terms(group.rows, start=0.0)
    return progress_terms(group.rows, start=group.right_share, attempts=section.best_of)


def _leave_one_out(section: LeaveOneOutReturns, groups: Sequence[GroupRows]) -> list[list[Values]]:
    scale = largest_return([g.rows for g in groups]) if section.batch_norm else 1.0
    return [leave_one_out_terms(g.rows, gamma=section.gamma, scale=scale) for g in groups]


def _clip_delta(section: ClippedSteps | DeltaSteps, groups: Sequence[GroupRows]) -> list[list[Values]]:
    threshold = section.threshold
    if threshold is None:
        scores = pooled([row for group in groups for row in group.rows])
        threshold = float(scores.mean()) if scores.size else 0.0
    if isinstance(section, ClippedSteps):
        return [clip_terms(g.rows, threshold=threshold) for g in groups]
    return [delta_terms(g.rows, clip_at=threshold if section.clip else None) for g in groups]
