"""Settings of the built-in verifiers: what `[rewards.components.NAME.settings]` may hold for each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CodeSettings(_Settings):
    """`code`: programs against tests."""

    isolation: Literal["namespaces", "limits"] = "namespaces"
    """`namespaces` refuses to judge where the kernel does not grant them; `limits` leaves the file system visible."""

    max_seconds: Annotated[float, Field(gt=0, le=600)] = 6.0
    """Wall seconds of one test; processor seconds too, rounded up."""

    max_total_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Wall seconds of all tests of one answer together; what has not run by then counts as failed."""

    max_memory_mib: Annotated[int, Field(ge=64, le=1 << 16)] = 512
    """Memory of a program, of each of its processes and of all of them together, in MiB."""

    max_processes: Annotated[int, Field(ge=1, le=256)] = 16
    """Processes and threads that a program may have at once."""

    max_disk_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    """Room for files, which live in memory and are gone after the last test."""

    max_output_kib: Annotated[int, Field(ge=1, le=1 << 16)] = 1024
    """What one test may print or return; more fails the test."""

    stop_at_first_failure: bool = False
    """Run no further test once one has failed; `pass_rate` then counts the rest as failed."""

    python: str = ""
    """Interpreter (3.11 or newer) to run programs with; empty is the one that runs ponder."""

    packages: tuple[str, ...] = ()
    """Directories that programs may import from, shown to them read-only; without any only the standard library."""


def code_seconds(settings: CodeSettings) -> float:
    """Wall seconds that judging one answer may take: the tests, and starting the jail on a busy machine."""
    return settings.max_total_seconds + 30.0


class ChoiceSettings(_Settings):
    """`choice`: letters of multiple choice."""

    letters: Annotated[str, Field(pattern="^[A-Z]{2,26}$")] = "ABCDEFGHIJ"
    """Letters that name an option; a task that carries its options in `meta.options` has as many as those."""


class TextSettings(_Settings):
    """`text`: words against words."""

    take: Literal["answer", "last_line", "box"] = "answer"
    """What is compared: the whole answer, its last line, or its last box."""

    case_sensitive: bool = False
    """Whether capital letters count."""

    punctuation: bool = False
    """Whether punctuation counts."""

    min_similarity: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Similarity from which on the answer is right; 1 wants equal texts."""

    measure: Literal["characters", "words", "word_set"] = "characters"
    """Similarity by edits of characters, by characters after sorting the words, or by the words in common."""

    graded: bool = False
    """Score with the similarity itself from `min_similarity` on, instead of 1."""


class RegularExpressionSettings(_Settings):
    """`regular_expression`: a pattern that the answer must match."""

    whole: bool = True
    """The pattern must match the whole answer, white space around it apart, not only a part."""

    ignore_case: bool = False
    """Letters match whatever their case."""

    max_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Time for one match; an answer on which the pattern takes longer scores 0."""


class LanguageSettings(_Settings):
    """`language`: which language the text is in."""

    language: Annotated[str, Field(pattern="^([a-z]{2,3})?$")] = ""
    """ISO 639 code of the wanted language; empty takes the task's reference."""

    reads: Literal["answer", "thinking", "both"] = "answer"
    """Which part of the response must be in the language."""

    min_chars: Annotated[int, Field(ge=8, le=10_000)] = 40
    """Text is judged in pieces of at least so many letters; a response with fewer is too short to tell and scores 1."""

    min_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the text in the language from which on the score is 1 and below which it is 0; 0 scores the share."""


class RepetitionSettings(_Settings):
    """`repetition`: text that goes round in circles."""

    reads: Literal["answer", "thinking", "both"] = "both"
    """Which part of the response is looked at."""

    ngram: Annotated[int, Field(ge=1, le=64)] = 8
    """Words in a row that count as repeated when they were there before."""

    max_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of repeated n-grams up to which the score is 1."""

    graded: bool = False
    """Beyond `max_share` let the score fall linearly to 0 at a share of 1, instead of at once."""


class ReasoningGymSettings(_Settings):
    """`reasoning_gym`: the scorers of the families."""

    whole: bool = False
    """Whether anything below full marks scores 0: half of a puzzle is no solution of it."""
