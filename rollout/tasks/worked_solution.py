"""A worked solution in three lengths: as written, its calculations alone, nothing.

    whole         "He sold 25 + 14 = 39 boxes on Friday."    the steps as they are
    calculations  "25 + 14 = 39"                             every "expression = number" of the steps, a line each
    nothing       ""                                         the answer at once

These are the demonstrations a cold start needs for a high, a medium and a low effort, made without a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rollout.config import SolutionConfig

_CALCULATION = re.compile(r"[$(]*\d[\d.,%$\s\u00d7x*+\-\u2212/\u00f7()]*=[ \t]*\$?-?\d[\d,]*(?:\.\d+)?")

_ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's notes for a calculator, "<<25+14=39>>", which no answer should copy


def demonstrations(config: SolutionConfig, solution: str, answer: str) -> dict[str, dict[str, str]] | None:
    """`Task.meta["demonstrations"]` from the text of a solution, or None if it does not arrive at `answer`.

    Args:
        solution: the steps, then `config.mark`, then the final answer.
        answer: the task's reference; a solution that ends otherwise would teach a wrong answer.
    """
    steps, mark, final = _ANNOTATION.sub("", solution).rpartition(config.mark)
    if not mark or _plain(final) != _plain(answer):
        return None
    thinking = {"whole": steps.strip(), "calculations": "\n".join(calculations(steps)), "nothing": ""}
    return {
        effort: {"thinking": _framed(thinking[length]), "answer": f" {answer}"}
        for effort, length in config.efforts.items()
    }


def calculations(steps: str) -> list[str]:
    """Every "expression = number" in `steps`, in order; "48=48" says nothing and is left out."""
    found = (" ".join(match.group().split()) for match in _CALCULATION.finditer(steps))
    return [claim for claim in found if _plain(claim.partition("=")[0]) != _plain(claim.partition("=")[2])]


def metadata_solution(config: SolutionConfig, metadata: Mapping[str, object], family: str) -> str:
    """The solution among an item's metadata. Raises ValueError when the family writes none there."""
    solution = metadata.get(config.field)
    if not isinstance(solution, str):
        raise ValueError(
            f"solutions.field must name a text in the metadata of {family!r}, got {config.field!r}; "
            f"its fields are {', '.join(sorted(metadata))}"
        )
    return solution


def _framed(thinking: str) -> str:
    """Thinking stands on lines of its own between the marks."""
    return f"\n{thinking}\n" if thinking else "\n"


def _plain(number: str) -> str:
    """4,125.0 and 4125 are one number."""
    bare = number.strip().replace(",", "").lstrip("$")
    return bare.rstrip("0").rstrip(".") if "." in bare else bare
