"""What a person sees of one attempt: its texts cut at the steps, every step with its score, and what became of it.

Made from the recorded groups, so the HTML page and the terminal pager show the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rl.record_reader import RecordedGroup, RecordedTrajectory, iter_groups, recorded_steps
from rl.verdict import CORRECT_AT
from rollout.schema import CharSpan, Status

T = TypeVar("T")

NUM_SHADES = 9  # shade 0 is the worst score, 8 the best; the middle one is neutral
GROUPS_FOLDER = "groups"  # the Parquet files, below a run's directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of text: a step of the attempt, or what lies between steps (`step` is None)."""

    text: str
    step: int | None = None  # number of the step in the whole attempt, from 1
    score: float | None = None  # None where not a step, or where the scorer could not judge it
    shade: int | None = None  # 0..NUM_SHADES - 1 where there is a score
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """One recorded trajectory together with its group."""

    group: RecordedGroup
    trajectory: RecordedTrajectory

    @property
    def outcome(self) -> str:
        """One of "right", "wrong", or the status of an attempt whose answer could not be judged or read."""
        score = self.trajectory.score
        if self.trajectory.status != Status.JUDGED or score is None:
            return self.trajectory.status
        return "right" if score >= CORRECT_AT else "wrong"

    @property
    def fate(self) -> str:
        """ "trained", "dropped: zero variance", "evaluated: greedy"."""
        fate = self.group.fate
        return f"{fate.name}: {fate.reason}" if fate.reason else fate.name

    @property
    def thinking(self) -> tuple[Piece, ...]:
        return cut_at_steps(self.trajectory, self.trajectory.thinking)

    @property
    def answer(self) -> tuple[Piece, ...]:
        return cut_at_steps(self.trajectory, self.trajectory.answer)

    @property
    def num_response_tokens(self) -> int:
        return len(self.trajectory.token_ids) - self.trajectory.prompt_len


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which attempts to show; every field that is given must match."""

    effort: str | None = None
    outcome: str | None = None  # "right", "wrong" or a status
    step: int | None = None
    fate: str | None = None  # "trained", "dropped", "baseline" or "evaluated"
    task: str | None = None  # a task key or its beginning

    def admits(self, attempt: Attempt) -> bool:
        """Whether every given field matches."""
        group = attempt.group
        return (
            self.effort in (None, group.effort)
            and self.outcome in (None, attempt.outcome)
            and self.step in (None, group.fate.step)
            and self.fate in (None, group.fate.name)
            and group.task_key.startswith(self.task or "")
        )


ANYTHING = Filter()


def attempts(directory: Path, wanted: Filter = ANYTHING, *, steps: range | None = None) -> Iterator[Attempt]:
    """Attempts recorded in the run `directory`, in the order of training; with fate "evaluated", of the evaluations."""
    if wanted.step is not None:
        steps = range(wanted.step, wanted.step + 1)
    is_evaluation = wanted.fate == "evaluated"
    for group in iter_groups(
        directory / GROUPS_FOLDER, steps=steps, effort=wanted.effort, fate=wanted.fate, evaluations=is_evaluation
    ):
        for trajectory in group.trajectories:
            attempt = Attempt(group=group, trajectory=trajectory)
            if wanted.admits(attempt):
                yield attempt


def cut_at_steps(trajectory: RecordedTrajectory, within: CharSpan | None) -> tuple[Piece, ...]:
    """The text of `within` in pieces that add up to the whole of it; a step that reaches over an end is cut there."""
    if within is None:
        return ()
    steps = trajectory.steps or ()
    scores = [step.score for step in steps if step.score is not None]
    pieces: list[Piece] = []
    position, end = within
    for number, step in enumerate(steps, start=1):
        start_char, end_char = max(step.char_start, position), min(step.char_end, end)
        if end_char <= start_char:
            continue
        if start_char > position:
            pieces.append(Piece(text=trajectory.text[position:start_char]))
        pieces.append(
            Piece(
                text=trajectory.text[start_char:end_char],
                step=number,
                score=step.score,
                shade=None if step.score is None else shade_of(step.score, scores),
                note=step.note,
            )
        )
        position = end_char
    if position < end:
        pieces.append(Piece(text=trajectory.text[position:end]))
    return tuple(pieces)


def shade_of(score: float, scores: Sequence[float]) -> int:
    """Shade of one of an attempt's `scores`: by its value when all lie in [0, 1], as P(step is good) does; otherwise by
    its size against the largest one, zero in the middle, as for increments of a log-ratio."""
    if all(0.0 <= other <= 1.0 for other in scores):
        share = score
    else:
        share = 0.5 + score / (2 * max(abs(other) for other in scores))
    return min(int(share * NUM_SHADES), NUM_SHADES - 1)


def sample(directory: Path, *, num_attempts: int, max_steps: int = 16) -> list[Attempt]:
    """At most `num_attempts` attempts from at most `max_steps` training steps spread over the run, in order.

    Every kind of (effort, outcome, fate) gets its fair share, so that a rare one, such as a timeout, is not lost among
    hundreds of right answers; within a kind the picks are spread over the run. Nothing is random: the same run gives
    the same page.
    """
    kinds: dict[tuple[str, str, str], list[Attempt]] = {}
    for step in spread(recorded_steps(directory / GROUPS_FOLDER), max_steps):
        for attempt in attempts(directory, steps=range(step, step + 1)):
            kinds.setdefault((attempt.group.effort, attempt.outcome, attempt.group.fate.name), []).append(attempt)
    shares = fair_shares([len(found) for found in kinds.values()], num_attempts)
    picked = [a for found, share in zip(kinds.values(), shares, strict=True) for a in spread(found, share)]
    return sorted(picked, key=lambda a: (a.group.fate.step, a.group.group_id, a.trajectory.sibling))


def spread(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` items at equal distances, the first and the last included."""
    if len(items) <= limit:
        return list(items)
    if limit < 2:
        return list(items[:limit])
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def fair_shares(sizes: Sequence[int], total: int) -> list[int]:
    """How many to take of each kind: at most `total` together, nobody more than one above one that has items left."""
    shares = [0] * len(sizes)
    while total > 0 and any(share < size for share, size in zip(shares, sizes, strict=True)):
        for index, size in enumerate(sizes):
            if shares[index] < size and total > 0:
                shares[index] += 1
                total -= 1
    return shares
