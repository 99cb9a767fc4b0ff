"""Step labels in the files of others: PRM800K, Math-Shepherd, ProcessBench, PRMBench.

read_any(path)   recognizes the format by the fields of the first row
PRM800K          every completion of every step is one solution: the chosen steps before it, then itself. Labels -1,
                 0, 1; prefixes never hold a step rated -1. Quality-control rows, rows without a usable end
                 (bad_problem, give_up) and unrated completions are left out.
Math-Shepherd    "input" with a tag behind each step, "label" with + or - in its place
ProcessBench     the index of the first wrong step, -1 if none; steps after it have no label
PRMBench         error_steps, counted from 1; all steps have a label
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prm.data import StepRow, content_id, json_line, read_json_lines, read_rows

_TAG = "\u043a\u0438"  # Math-Shepherd's step tag
_STEP_NAME = re.compile(r"(?=Step 1:)")
Row = Mapping[str, Any]


def read_any(path: Path) -> tuple[str, list[StepRow]]:
    """The format's name and its rows. Raises ValueError for a file of no known format, or a row that breaks it."""
    if not path.is_file():
        raise ValueError(f"{path} is no file; name a file of step labels")
    if path.suffix == ".parquet":
        return "ponder", read_rows(path)
    values = list(read_json_lines(path))
    if not values:
        raise ValueError(f"{path} holds no row")
    name = recognize(values[0])
    if name is None:
        raise ValueError(
            f"{path}: rows with the fields {sorted(values[0])[:12]} are of no known format; known are ponder, "
            f"{', '.join(_READERS)}"
        )
    if name == "ponder":
        return name, read_rows(path)
    rows: list[StepRow] = []
    for number, value in enumerate(values, start=1):
        try:
            rows += _READERS[name](value)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"{path}, row {number} is not of format {name}: {error!r}") from error
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from error
    return name, list({row.id: row for row in rows}.values())


def recognize(value: Row) -> str | None:
    """Name of the format that a row has the fields of, or None."""
    fields = set(value)
    for name, needed in (
        ("ponder", {"steps", "labels", "kind"}),
        ("processbench", {"problem", "steps", "label"}),
        ("prmbench", {"modified_process", "error_steps"}),
        ("prm800k", {"question", "label"}),
        ("math_shepherd", {"input", "label"}),
    ):
        if needed <= fields:
            return name
    return None


def _processbench(row: Row) -> Iterator[StepRow]:
    steps, label = tuple(row["steps"]), int(row["label"])
    if not -1 <= label < len(steps):
        raise ValueError(f"label {label} is no step of {len(steps)}")
    wrong: tuple[float | None, ...] = (*([1.0] * label), 0.0, *([None] * (len(steps) - label - 1)))
    right = row.get("final_answer_correct")
    yield StepRow(
        id=str(row.get("id") or content_id(row["problem"], steps)),
        question=row["problem"],
        steps=steps,
        labels=(1.0,) * len(steps) if label == -1 else wrong,
        labeller="human",
        outcome=None if right is None else float(right),
        source=str(row.get("id", "")).rpartition("-")[0],
        generator=row.get("generator") or "",
    )


def _prmbench(row: Row) -> Iterator[StepRow]:
    steps, wrong = tuple(row["modified_process"]), {int(number) - 1 for number in row["error_steps"]}
    if not wrong <= set(range(len(steps))):
        raise ValueError(f"error_steps are counted from 1 to {len(steps)}, got {row['error_steps']}")
    yield StepRow(
        id=str(row.get("idx") or content_id(steps)),
        question=row.get("modified_question") or row["question"],
        steps=steps,
        labels=tuple(float(index not in wrong) for index in range(len(steps))),
        labeller="prmbench",
        source=str(row.get("classification", "")),
        meta={"reason": str(row.get("reason", ""))},
    )


def _math_shepherd(row: Row) -> Iterator[StepRow]:
    pieces = row["input"].split(_TAG)
    marks = _marks(row["input"], row["label"])
    question, first = _head(pieces[0])
    steps = [first, *(piece.strip() for piece in pieces[1:-1])]
    if pieces[-1].strip() or len(marks) != len(steps):
        raise ValueError(f"{len(marks)} labels for {len(steps)} steps")
    yield StepRow(
        id=content_id(question, steps),
        question=question,
        steps=tuple(steps),
        labels=tuple(float(mark == "+") for mark in marks),
        labeller="completion",
        outcome=float(marks[-1] == "+"),
        source=str(row.get("task", "")),
    )


def _head(text: str) -> tuple[str, str]:
    question, *rest = _STEP_NAME.split(text, maxsplit=1)
    if not rest:
        raise ValueError("no 'Step 1:' ends the question")
    return question.strip(), rest[0].strip()


def _marks(tagged: str, marked: str) -> list[str]:
    """The signs that stand in the labelled text where the other has a tag."""
    marks, at = [], 0
    pieces = tagged.split(_TAG)
    for piece in pieces[:-1]:
        if not marked.startswith(piece, at) or marked[at + len(piece) : at + len(piece) + 1] not in ("+", "-"):
            raise ValueError("the texts of input and label differ by more than the signs")
        at += len(piece) + 1
        marks.append(marked[at - 1])
    return marks


def _prm800k(row: Row) -> Iterator[StepRow]:
    label = row["label"]
    if row.get("is_quality_control_question") or label.get("finish_reason") in ("bad_problem", "give_up"):
        return
    question = row["question"]
    before: list[tuple[str, float]] = []
    for step in label["steps"]:
        for completion in step["completions"] or ():
            if completion["rating"] is not None:
                yield _rated(question, [*before, (completion["text"], float(completion["rating"]))])
        chosen = step.get("chosen_completion")
        if chosen is not None:
            pick = step["completions"][chosen]
            rating = pick["rating"]
        elif step.get("human_completion"):
            pick, rating = step["human_completion"], 1
        else:
            return
        if rating is None or rating < 0:
            return  # nothing right can be built on it
        before.append((pick["text"], float(rating)))


def _rated(question: Row, steps: list[tuple[str, float]]) -> StepRow:
    texts = tuple(text for text, _ in steps)
    return StepRow(
        id=content_id(question["problem"], texts),
        question=question["problem"],
        steps=texts,
        labels=tuple(rating for _, rating in steps),
        kind="three_way",
        labeller="human",
        answer=str(question.get("ground_truth_answer") or ""),
        source="prm800k",
    )


_READERS: dict[str, Callable[[Row], Iterator[StepRow]]] = {
    "processbench": _processbench,
    "prmbench": _prmbench,
    "prm800k": _prm800k,
    "math_shepherd": _math_shepherd,
}


# ------------------------------------------------------------------------------------------------ export


def write_as(name: str, path: Path, rows: list[StepRow]) -> int:
    """Write rows in another's format; returns how many. Rows that it cannot express are left out: a first error that
    is unknown for ProcessBench, labels other than right and wrong for Math-Shepherd."""
    writer = _WRITERS.get(name)
    if writer is None:
        raise ValueError(f"rows can be written as {', '.join(_WRITERS)}, got {name!r}")
    lines = [json_line(value) for row in rows if (value := writer(row)) is not None]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _to_processbench(row: StepRow) -> dict[str, Any] | None:
    if row.first_error is None:
        return None
    right = None if row.outcome is None else row.outcome > 0.5
    found = {"problem": row.question, "steps": list(row.steps), "final_answer_correct": right}
    return {"id": row.id, "generator": row.generator, **found, "label": row.first_error}


def _to_math_shepherd(row: StepRow) -> dict[str, Any] | None:
    if any(label not in (0, 1) for label in row.labels):
        return None
    numbered = [s if re.match(r"Step \d+:", s) else f"Step {n}: {s}" for n, s in enumerate(row.steps, start=1)]
    signs = ["+" if label else "-" for label in row.labels]
    texts = {
        name: row.question + " " + "\n".join(f"{s} {m}" for s, m in zip(numbered, marks, strict=True))
        for name, marks in (("input", [_TAG] * len(signs)), ("label", signs))
    }
    return {**texts, "task": row.source}


def _to_prm800k(row: StepRow) -> dict[str, Any] | None:
    ratings = [_rating(row.kind, label) for label in row.labels]
    steps = [
        {"completions": [{"text": text, "rating": rating, "flagged": False}], "human_completion": None,
         "chosen_completion": 0 if rating is not None and rating >= 0 else None}
        for text, rating in zip(row.steps, ratings, strict=True)
    ]  # fmt: skip
    reason = "found_error" if -1 in ratings else "solution"
    question = {"problem": row.question, "ground_truth_answer": row.answer}
    label = {"steps": steps, "total_time": 0, "finish_reason": reason}
    return {
        "labeler": row.labeller,
        "is_quality_control_question": False,
        "is_initial_screening_question": False,
        "question": question,
        "label": label,
    }


def _rating(kind: str, label: float | None) -> int | None:
    if label is None or kind in ("soft", "value"):
        return None
    return int(label) if kind == "three_way" else int(2 * label - 1)


def _to_prmbench(row: StepRow) -> dict[str, Any] | None:
    if row.kind != "hard" or None in row.labels:
        return None
    errors = [number for number, label in enumerate(row.labels, start=1) if label == 0]
    questions = dict.fromkeys(("question", "modified_question", "original_question"), row.question)
    process = {"modified_process": list(row.steps), "error_steps": errors}
    reason = str(row.meta.get("reason", ""))
    return {"idx": row.id, **questions, **process, "classification": row.source, "reason": reason}


_WRITERS: dict[str, Callable[[StepRow], dict[str, Any] | None]] = {
    "processbench": _to_processbench,
    "prmbench": _to_prmbench,
    "prm800k": _to_prm800k,
    "math_shepherd": _to_math_shepherd,
}
