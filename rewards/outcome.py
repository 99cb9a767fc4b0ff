"""What a verifier sees: one attempt as plain strings and numbers, without the task's or the trajectory's arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rollout.schema import Finish, Group, Job, Message, Outcome, Status, Task, Trajectory

# Nothing was generated, or it was cut off from outside: there is nothing that could be judged.
UNJUDGEABLE_FINISHES = frozenset({Finish.PROMPT_TOO_LONG, Finish.ABORTED, Finish.ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Immutable, picklable view of one attempt. `reference` and `meta` are the task's; texts are the policy's: hostile.

    `settings` is what the recipe says to the verifier that is asked.

    `answer` is the text after the closing thinking mark, "" when there is none; `closed` says whether there was one.
    `completion` is all that the policy wrote, marks and thinking included, without the end-of-sequence mark.
    """

    task_key: str
    prompt: tuple[Message, ...]
    reference: str
    verifier: str
    thinking: str
    answer: str
    closed: bool
    text: str
    finish: Finish
    effort: str
    sibling: int = 0
    skills: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    group_id: str = ""
    end: int | None = None  # where the completion ends in `text`; None: at its end
    token_ids: tuple[int, ...] = ()  # [response tokens] as they were sampled, forced ones included
    max_thinking_tokens: int | None = None

    @property
    def completion(self) -> str:
        return self.text[: self.end]

    @property
    def question(self) -> str:
        """The contents of the messages, joined by blank lines: the prompt without a chat template."""
        return "\n\n".join(message.content for message in self.prompt)

    @classmethod
    def of(cls, trajectory: Trajectory, job: Job) -> Sample:
        """The view of one trajectory of a job."""
        return cls(
            task_key=job.task.key,
            prompt=job.task.prompt,
            reference=job.task.answer,
            verifier=job.task.verifier,
            thinking=trajectory.thinking_text,
            answer=trajectory.answer_text,
            closed=trajectory.answer is not None,
            text=trajectory.text,
            finish=trajectory.finish,
            effort=job.budget.effort,
            sibling=trajectory.sibling,
            skills=job.task.skills,
            meta=job.task.meta,
            source=job.task.source,
            group_id=job.group_id,
            end=_end(trajectory),
            token_ids=tuple(trajectory.token_ids[trajectory.prompt_len :].tolist()),
            max_thinking_tokens=job.budget.max_thinking_tokens,
        )

    @classmethod
    def of_reference(cls, task: Task) -> Sample:
        """A perfect attempt: the task's own reference given as the answer. What a sound verifier must score 1."""
        return cls(
            task_key=task.key,
            prompt=task.prompt,
            reference=task.answer,
            verifier=task.verifier,
            thinking="",
            answer=task.answer,
            closed=True,
            text=task.answer,
            finish=Finish.STOP,
            effort="reference",
            skills=task.skills,
            meta=task.meta,
            source=task.source,
        )

    def with_reference_as_answer(self) -> Sample:
        """The same sample had the policy answered with the reference itself."""
        return replace(self.answer_only(), answer=self.reference, text=self.reference, closed=True, finish=Finish.STOP)

    def answer_only(self) -> Sample:
        """The same sample for a reader who must not see the thinking, nor what it could be guessed from."""
        return replace(self, thinking="", text=self.answer, end=None, token_ids=(), sibling=0, group_id="")


def _end(trajectory: Trajectory) -> int | None:
    """Answer or open thinking are the last of a completion; what follows them is the end-of-sequence mark."""
    last = trajectory.answer or trajectory.thinking
    return None if last is None else last[1]


def samples_of(group: Group) -> list[Sample]:
    """One sample per sibling, in order."""
    return [Sample.of(trajectory, group.job) for trajectory in group.trajectories]


def judged(score: float, reason: str = "") -> Outcome:
    """A verdict. `score` in [0, 1]; raises ValueError otherwise."""
    return Outcome(status=Status.JUDGED, score=score, reason=reason)


def unparseable(reason: str) -> Outcome:
    """The policy gave nothing that can be judged: its fault, so it scores 0."""
    return Outcome(status=Status.UNPARSEABLE_ANSWER, score=0.0, reason=reason)


def unjudged(status: Status, reason: str) -> Outcome:
    """No verdict, for a reason that is not the policy's. Raises ValueError for a status that carries a score."""
    return Outcome(status=status, score=None, reason=reason)
