"""The contract of a verifier, and what is known of the built-in ones.

A verifier is a function `verify(sample: Sample) -> Outcome`, named by 'module:attribute' (or
'path/file.py:attribute'). It runs in a killable process with limits on time and memory, is imported there once, and
may read anything of the sample. It returns

    judged(score)        a verdict, in [0, 1]; a wrong answer is judged 0
    unparseable(reason)  the policy gave nothing to judge: scores 0
    unjudged(Status.BAD_REFERENCE, reason)   the task's reference cannot be judged against: no score

Raising, hanging, dying or returning anything else is an unjudged outcome as well; it never becomes a zero.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from rewards.exact_answer import verify as verify_exact
from rewards.format import verify as verify_format
from rewards.llm_judge.settings import ModelJudgeSettings
from rewards.llm_judge.verify import verify as verify_by_model
from rewards.math_text import judge_text, question_of
from rewards.outcome import Sample
from rewards.settings import (
    ChoiceSettings,
    CodeSettings,
    LanguageSettings,
    ReasoningGymSettings,
    RegularExpressionSettings,
    RepetitionSettings,
    TextSettings,
    code_seconds,
)
from rollout.schema import Outcome

Verifier = Callable[[Sample], Outcome]

BUILT_IN_VERIFIERS: Mapping[str, str] = {
    "math": "rewards.math_answer:verify",
    "code": "rewards.code.verify:verify",
    "choice": "rewards.choice:verify",
    "text": "rewards.text:verify",
    "json_schema": "rewards.json_schema:verify",
    "regular_expression": "rewards.regular_expression:verify",
    "instructions": "rewards.instructions.verify:verify",
    "language": "rewards.language:verify",
    "llm_judge": "rewards.llm_judge.verify:verify",
    "repetition": "rewards.repetition:verify",
    "exact": "rewards.exact_answer:verify",
    "format": "rewards.format:verify",
    "reasoning_gym": "rewards.reasoning_gym_scorer:verify",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What the judge may assume of a verifier. The defaults hold for foreign code: assume nothing."""

    in_process: Callable[[Sample], Outcome | None] | None = None
    """Bounded pure string work that may run in the judge itself; None from it leaves the sample to the sandbox."""

    in_loop: Callable[[Sample], Awaitable[Outcome]] | None = None
    """Bounded work that mostly waits for a network: runs in the judge's event loop, cancelled at the deadline."""

    reads_only_answer: bool = False
    """Deterministic in (reference, answer, meta of the task, settings), so a verdict may be reused."""

    question: Callable[[Sample], Hashable] | None = None
    """All that the verdict depends on, where `reads_only_answer` holds; None: task, reference and the whole answer."""

    reference_check: str | None = None
    """Target that judges the reference alone, where giving it as the answer would prove nothing."""

    settings: type[BaseModel] | None = None
    """Schema of its settings, checked before a run starts; None checks nothing."""

    max_seconds: Callable[[Mapping[str, Any]], float] | None = None
    """Wall seconds that one sample may take under these settings, where `rewards.sandbox.max_seconds` is too short."""

    blames_answer: bool = False
    """Its running time depends on the texts only: if the reference alone is fine, exhaustion is the answer's fault."""


FOREIGN = Traits()

# Granted here and nowhere else: a plugin cannot declare itself safe to run unprotected.
TRAITS: Mapping[str, Traits] = {
    BUILT_IN_VERIFIERS["math"]: Traits(
        in_process=judge_text,
        reads_only_answer=True,
        question=question_of,
        reference_check="rewards.math_answer:check_reference",
        blames_answer=True,
    ),
    BUILT_IN_VERIFIERS["code"]: Traits(
        reference_check="rewards.code.verify:check_reference",
        settings=CodeSettings,
        max_seconds=lambda settings: code_seconds(CodeSettings.model_validate(settings)),
    ),
    BUILT_IN_VERIFIERS["choice"]: Traits(reads_only_answer=True, settings=ChoiceSettings),
    BUILT_IN_VERIFIERS["text"]: Traits(
        reads_only_answer=True, reference_check="rewards.text:check_reference", settings=TextSettings
    ),
    BUILT_IN_VERIFIERS["json_schema"]: Traits(
        reads_only_answer=True, reference_check="rewards.json_schema:check_reference", blames_answer=True
    ),
    BUILT_IN_VERIFIERS["regular_expression"]: Traits(
        reads_only_answer=True,
        reference_check="rewards.regular_expression:check_reference",
        settings=RegularExpressionSettings,
        max_seconds=lambda settings: RegularExpressionSettings.model_validate(settings).max_seconds + 2.0,
        blames_answer=True,
    ),
    BUILT_IN_VERIFIERS["instructions"]: Traits(
        reads_only_answer=True, reference_check="rewards.instructions.verify:check_reference", blames_answer=True
    ),
    BUILT_IN_VERIFIERS["language"]: Traits(
        reference_check="rewards.language:check_reference", settings=LanguageSettings
    ),
    BUILT_IN_VERIFIERS["llm_judge"]: Traits(
        in_loop=verify_by_model,
        reference_check="rewards.llm_judge.verify:check_reference",
        settings=ModelJudgeSettings,
    ),
    BUILT_IN_VERIFIERS["repetition"]: Traits(settings=RepetitionSettings),
    BUILT_IN_VERIFIERS["exact"]: Traits(in_process=verify_exact, reads_only_answer=True),
    BUILT_IN_VERIFIERS["format"]: Traits(in_process=verify_format),
    BUILT_IN_VERIFIERS["reasoning_gym"]: Traits(
        reads_only_answer=True,
        reference_check="rewards.reasoning_gym_scorer:check_reference",
        settings=ReasoningGymSettings,
    ),
}


def traits_of(target: str) -> Traits:
    return TRAITS.get(target, FOREIGN)
