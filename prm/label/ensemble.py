"""Labels by several readings of one solution with the reference answer at hand, and agreement between them.

    votes     one a style and sample: the first wrong paragraph, -1 for none; a vote that does not restate the reference
              answer is dropped
    keep      at least `min_votes` votes, at least `agreement` of them for one index, and not "no error" for a wrong
              answer
    labels    1 up to the first error, 0 at it, none after

A reconstruction: the ensemble and the reverse verification with the reference are described by AURORA (arXiv
2502.11520), its prompts and merge rule are not public; the styles, the vote and the thresholds here are ours.
Assumption: the reader's mistakes differ between styles.
What it is not: independent of the answer. A solution with a right answer and a flawed step keeps its flaw.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prm.data import StepRow
from prm.label.ports import Critic
from rollout.schema import Message

STYLES: Mapping[str, str] = {
    "checker": "Go through the paragraphs one at a time. For each say whether it follows and is computed right.",
    "backwards": "Start from the reference answer and work back: find the first paragraph that makes it unreachable.",
    "solver": "Solve the problem yourself first. Then find the first paragraph where the solution goes wrong.",
    "sceptic": "Assume that the solution hides a mistake and look for it as hard as you can; if there is none, say so.",
}
_TASK = (
    "You are given a problem, its reference answer, and a solution in numbered paragraphs. {style}\n"
    'Reply with one JSON object and nothing else: {{"analysis": "...", "first_error": N, "reference": "..."}}, where '
    "first_error is the number of the earliest wrong paragraph or -1 if there is none, and reference is the reference "
    "answer, copied."
)
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)
NO_ERROR = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSettings:
    """How many readings, and how much they must agree."""

    samples: int = 1
    min_votes: int = 3
    agreement: float = 0.75
    temperature: float = 0.7
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """A row, or why there is none; and the votes by style (None: no usable reply)."""

    row: StepRow | None
    reason: str
    votes: Mapping[str, tuple[int | None, ...]]


def messages_for(style: str, row: StepRow, *, with_reference: bool = True) -> tuple[Message, ...]:
    """The question to the reader. Texts are quoted as JSON, so that none can pose as another part."""
    problem = {"problem": row.question, "paragraphs": {str(i): text for i, text in enumerate(row.steps)}}
    if with_reference:
        problem["reference_answer"] = row.answer
    return (
        Message(role="system", content=_TASK.format(style=STYLES[style])),
        Message(role="user", content=json.dumps(problem, ensure_ascii=False, indent=1)),
    )


def read_vote(reply: str | None, row: StepRow) -> int | None:
    """The index a reply names, -1 for none; None for a reply that is not of the form or restates another answer."""
    found = _OBJECT.search(reply or "")
    if found is None:
        return None
    try:
        value = json.loads(found.group())
    except (json.JSONDecodeError, RecursionError):
        return None
    index = value.get("first_error") if isinstance(value, dict) else None
    if isinstance(index, bool) or not isinstance(index, int) or not NO_ERROR <= index < len(row.steps):
        return None
    if "".join(str(value.get("reference", "")).split()) != "".join(row.answer.split()):
        return None
    return index


def decide(votes: Sequence[int], row: StepRow, settings: EnsembleSettings) -> tuple[int | None, str]:
    """The index that the votes agree on, or None and why not."""
    if len(votes) < settings.min_votes:
        return None, "too few votes"
    index, count = Counter(votes).most_common(1)[0]
    if count < settings.agreement * len(votes):
        return None, "no agreement"
    if index == NO_ERROR and row.outcome is not None and row.outcome <= 0.5:
        return None, "no error found in a wrong solution"
    return index, "kept"


def labels_to(first_error: int, num_steps: int) -> tuple[float | None, ...]:
    """1 up to the first error, 0 at it, None after; all 1 for -1."""
    if first_error == NO_ERROR:
        return (1.0,) * num_steps
    return (*([1.0] * first_error), 0.0, *([None] * (num_steps - first_error - 1)))


async def label_by_ensemble(row: StepRow, critic: Critic, settings: EnsembleSettings) -> Decision:
    """Ask every style `samples` times. The order of the styles changes nothing."""

    async def vote(style: str, sample: int) -> int | None:
        seed = settings.seed + sample
        return read_vote(await critic.ask(messages_for(style, row), temperature=settings.temperature, seed=seed), row)

    asked = [(style, sample) for style in sorted(STYLES) for sample in range(settings.samples)]
    replies = await asyncio.gather(*(vote(*one) for one in asked))
    votes = {
        style: tuple(v for (s, _), v in zip(asked, replies, strict=True) if s == style) for style in sorted(STYLES)
    }
    index, reason = decide([v for v in replies if v is not None], row, settings)
    if index is None:
        return Decision(None, reason, votes)
    changes = {"labels": labels_to(index, len(row.steps)), "kind": "hard", "labeller": "ensemble"}
    return Decision(_replaced(row, changes), reason, votes)


def consensus(first: StepRow, second: StepRow) -> bool:
    """Both label the same solution and find the same first error: Qwen's filter (arXiv 2501.07301), which keeps about
    two fifths of what completions and a judge label."""
    same = first.question == second.question and first.steps == second.steps
    return same and first.first_error is not None and first.first_error == second.first_error


def kappa(a: Sequence[int | None], b: Sequence[int | None]) -> float:
    """Cohen's kappa of two styles over the solutions on which both voted; NaN without any."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not pairs:
        return float("nan")
    observed = sum(x == y for x, y in pairs) / len(pairs)
    left, right = Counter(x for x, _ in pairs), Counter(y for _, y in pairs)
    expected = sum(left[v] * right[v] for v in left) / len(pairs) ** 2
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def _replaced(row: StepRow, changes: Mapping[str, object]) -> StepRow:
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]  # checked by the row
