"""Recorded groups as what the loop had in its hands: samples for a reward, scored groups for a credit rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewards.outcome import Sample
from rl.record_reader import RecordedGroup, RecordedStep, RecordedTrajectory
from rollout.schema import (
    Finish,
    Group,
    Job,
    Message,
    Outcome,
    PolicySpan,
    Sampling,
    ScoredGroup,
    ScoreKind,
    Status,
    StepScores,
    StepSpan,
    Task,
    TokenBudget,
    Trajectory,
)


def group_of(recorded: RecordedGroup, task: Task | None) -> Group:
    """The group, for judging and for credit. `task` brings the columns that are not recorded.

    Tokens after the prompt count as sampled and have no log-probabilities: marks that were put in by force are not
    told apart here, which moves a mean over tokens a little and a sign never.
    """
    prompt = tuple(Message(role=role, content=content) for role, content in recorded.prompt)  # type: ignore[arg-type]
    known = task or Task(
        key=recorded.task_key, prompt=prompt, answer=recorded.reference, verifier="", source=recorded.source
    )
    budget = TokenBudget(
        effort=recorded.effort,
        max_prompt_tokens=1,
        max_thinking_tokens=recorded.max_thinking_tokens,
        max_answer_tokens=1,
        instruction=recorded.instruction,
    )
    job = Job(
        group_id=recorded.group_id,
        task=known,
        num_siblings=len(recorded.trajectories),
        budget=budget,
        sampling=Sampling(),
    )
    return Group(job=job, trajectories=tuple(_trajectory(recorded.group_id, t) for t in recorded.trajectories))


def samples_of_recorded(recorded: RecordedGroup, group: Group) -> list[Sample]:
    return [Sample.of(trajectory, group.job) for trajectory in group.trajectories]


def outcomes_of_recorded(recorded: RecordedGroup) -> tuple[Outcome, ...]:
    """The verdicts that the run went by."""
    return tuple(
        Outcome(status=Status(t.status), score=t.score, parts=t.parts, reason=t.outcome_reason)
        for t in recorded.trajectories
    )


def scored_group(recorded: RecordedGroup, group: Group, outcomes: Sequence[Outcome]) -> ScoredGroup:
    """The group with these verdicts, and with step scores and shaping terms as they were recorded."""
    names = {name for t in recorded.trajectories for name in t.shaped}
    shaped = {
        name: np.asarray([t.shaped.get(name, 0.0) for t in recorded.trajectories], dtype=np.float32) for name in names
    }
    steps = tuple(_steps(t.steps, t.scorer) for t in recorded.trajectories)
    return ScoredGroup(group=group, outcomes=tuple(outcomes), steps=steps, shaped=shaped)


def tasks_by_key(tasks: Sequence[Task]) -> Mapping[str, Task]:
    return {task.key: task for task in tasks}


def _trajectory(group_id: str, recorded: RecordedTrajectory) -> Trajectory:
    length = len(recorded.token_ids)
    ends = np.zeros(length, dtype=np.int32)
    ends[recorded.prompt_len :] = len(recorded.text)  # no one asks for tokens of a span here
    return Trajectory(
        group_id=group_id,
        sibling=recorded.sibling,
        token_ids=np.asarray(recorded.token_ids, dtype=np.int32),
        sampled=np.arange(length) >= recorded.prompt_len,
        sampler_logprobs=np.zeros(length, dtype=np.float32),
        char_ends=ends,
        prompt_len=recorded.prompt_len,
        text=recorded.text,
        thinking=recorded.thinking,
        answer=recorded.answer,
        finish=Finish(recorded.finish),
        policy=PolicySpan(
            start=recorded.version_start,
            end=recorded.version_end,
            switches=tuple(recorded.version_switches.items()),
        ),
        error=recorded.error,
    )


def _steps(recorded: tuple[RecordedStep, ...] | None, scorer: str | None) -> StepScores | None:
    if recorded is None:
        return None
    scores: list[Any] = [np.nan if step.score is None else step.score for step in recorded]
    return StepScores(
        spans=tuple(StepSpan(start=step.start, end=step.end) for step in recorded),
        scores=np.asarray(scores, dtype=np.float32),
        kind=ScoreKind.Q,  # the kind with the widest bounds; credit reads the numbers
        scorer=scorer or "recorded",
    )
