"""Monte-Carlo labels: how many of N completions from the end of a step arrive at the right answer.

    soft(k) = c_k / N            hard(k) = [c_k > 0]            c_k: right ones of N completions after step k

A step that ends the solution is as good as its outcome. After the first step with c = 0 nothing is labelled: what
follows a hopeless step is neither right nor wrong by this measure.
Source: Math-Shepherd (arXiv 2312.08935); the rule about later steps is from Lessons of Developing PRMs (2501.07301).
Assumption: the writer is about as able as the policy that will be judged.
What it is not: a check of the step. It measures "can be rescued": a lucky completion makes a wrong step right, the more
so the larger N is for hard labels (with success p a hard label is right with 1 - (1 - p)^N). A completion without a
verdict counts neither way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from prm.data import StepRow, content_id
from prm.label.ports import Opening, OutcomeJudge, Writer
from prm.label.prefix import cut_at, seed_of
from prm.steps import Step
from rollout.schema import Task, Trajectory


@dataclass(slots=True)
class Spent:
    """What labels have cost."""

    completions: int = 0
    tokens: int = 0
    reused: int = 0  # completions that an equal prefix had asked for already


@dataclass(frozen=True, slots=True)
class Estimate:
    """Right ones among judged completions from one prefix, and one of each sort, if there was one."""

    right: int
    judged: int
    wrong_rollouts: tuple[Trajectory, ...] = ()

    @property
    def value(self) -> float | None:
        """Share of right ones; None without a verdict."""
        return self.right / self.judged if self.judged else None


@dataclass(slots=True)
class Completer:
    """Estimates of prefixes; equal prefixes of one task share one."""

    writer: Writer
    judge: OutcomeJudge
    num: int = 8
    seed: int = 0
    spent: Spent = field(default_factory=Spent)
    _known: dict[tuple[str, bytes], Estimate] = field(default_factory=dict)

    async def estimate(self, task: Task, prefix: Trajectory) -> Estimate:
        """Complete a prefix `num` times and judge the answers."""
        key = (task.key, prefix.token_ids.tobytes())
        if key in self._known:
            self.spent.reused += self.num
            return self._known[key]
        openings = [Opening(prefix=prefix, seed=seed_of(self.seed, task, key[1], i)) for i in range(self.num)]
        written = await self.writer.write(task, openings)
        scores = await self.judge.judge(task, [item.trajectory for item in written])
        self.spent.completions += len(written)
        self.spent.tokens += sum(item.num_new_tokens for item in written)
        judged = [score for score in scores if score is not None]
        wrong = tuple(w.trajectory for w, s in zip(written, scores, strict=True) if s is not None and s <= 0.5)
        found = Estimate(sum(score > 0.5 for score in judged), len(judged), wrong)
        self._known[key] = found
        return found


async def label_by_completion(
    task: Task, solution: Trajectory, steps: Sequence[Step], outcome: float | None, completer: Completer
) -> StepRow:
    """Soft labels of one solution. `outcome`: is its own answer right, None if it has no verdict."""
    labels: list[float | None] = []
    counts: list[list[int]] = []
    for step in steps:
        if step.span.end >= _last_token(solution):
            labels.append(outcome)  # the solution ends here: there is nothing to complete
            continue
        found = await completer.estimate(task, cut_at(solution, step.span.end))
        labels.append(found.value)
        counts.append([found.right, found.judged])
        if found.value == 0:
            break
    labels += [None] * (len(steps) - len(labels))
    return row_of_solution(
        task, solution, steps, labels, kind="soft", labeller="completion", outcome=outcome, meta={"counts": counts}
    )


def row_of_solution(
    task: Task,
    solution: Trajectory,
    steps: Sequence[Step],
    labels: Sequence[float | None],
    *,
    kind: str,
    labeller: str,
    outcome: float | None,
    meta: dict[str, object] | None = None,
) -> StepRow:
    """A row with the tokens as they were sampled."""
    return StepRow(
        id=content_id(task.key, solution.token_ids.tolist(), labeller),
        question=task.prompt[-1].content,
        steps=tuple(step.text for step in steps),
        labels=tuple(labels),
        kind=kind,  # type: ignore[arg-type]  # checked by the row
        labeller=labeller,
        outcome=outcome,
        answer=task.answer,
        source=task.source,
        token_ids=tuple(solution.token_ids.tolist()),
        prompt_len=solution.prompt_len,
        spans=tuple((step.span.start, step.span.end) for step in steps),
        meta={"task_key": task.key, "version": solution.policy.end, **(meta or {})},
    )


def _last_token(solution: Trajectory) -> int:
    """Where the last token that is not the end-of-sequence mark ends: a step up to there leaves nothing to write."""
    return solution.tokens_of(solution.answer)[1] if solution.answer is not None else len(solution.token_ids)
