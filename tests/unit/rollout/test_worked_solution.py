"""Worked solutions of a family become demonstrations of three lengths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rollout.config import FilesSource, ReasoningGymSource, SolutionConfig
from rollout.tasks.files import load_files
from rollout.tasks.reasoning_gym import load_reasoning_gym
from rollout.tasks.worked_solution import calculations, demonstrations

SOLUTION = "He sold 25 + 14 = 39 boxes.\nThat is 48=48 a day, so 39 x $8 = $312.\n#### 312"


def test_each_effort_gets_its_length() -> None:
    shown = demonstrations(SolutionConfig(field="answer_cot"), SOLUTION, "312")
    assert shown is not None
    assert shown["high"] == {"thinking": f"\n{SOLUTION.rpartition('####')[0].strip()}\n", "answer": " 312"}
    assert shown["medium"]["thinking"] == "\n25 + 14 = 39\n39 x $8 = $312\n"
    assert shown["low"] == {"thinking": "\n", "answer": " 312"}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("so it makes 16500*$0.25=$4125.0 a week.", ["16500*$0.25=$4125.0"]),
        ("35 \u00d7 3 = 105 and (12-3)/3 = 3.", ["35 \u00d7 3 = 105", "(12-3)/3 = 3"]),
        ("30% of 40 is 12", []),
        ("James gets 48=48 mails", []),
        ("5 - 9 = -4", ["5 - 9 = -4"]),
    ],
)
def test_calculations_are_found(steps: str, expected: list[str]) -> None:
    assert calculations(steps) == expected


@pytest.mark.parametrize(("answer", "is_kept"), [("4125", True), ("4,125.0", True), ("4126", False), ("412", False)])
def test_a_solution_must_arrive_at_the_answer(answer: str, is_kept: bool) -> None:
    shown = demonstrations(SolutionConfig(field="answer_cot"), "1 + 1 = 2\n#### 4125.0", answer)
    assert (shown is not None) is is_kept


def test_a_solution_without_the_mark_is_none() -> None:
    assert demonstrations(SolutionConfig(field="answer_cot"), "it is 2", "2") is None


def test_gsm_symbolic_tasks_carry_demonstrations_of_the_configured_efforts() -> None:
    source = ReasoningGymSource(
        family="gsm_symbolic",
        num_tasks=40,
        solutions=SolutionConfig(field="answer_cot", efforts={"brief": "calculations"}),
    )
    tasks = load_reasoning_gym(source, seed=5)
    assert 30 <= len(tasks) <= 40
    assert all(list(task.meta["demonstrations"]) == ["brief"] for task in tasks)
    assert all(task.meta["demonstrations"]["brief"]["answer"] == f" {task.answer}" for task in tasks)


def test_a_family_without_solutions_is_refused() -> None:
    source = ReasoningGymSource(family="chain_sum", num_tasks=2, solutions=SolutionConfig(field="answer_cot"))
    with pytest.raises(ValueError, match=r"solutions\.field must name a text in the metadata of 'chain_sum'"):
        load_reasoning_gym(source, seed=5)


def test_rows_of_a_file_carry_demonstrations(tmp_path: Path) -> None:
    rows = [
        {"question": "25 and 14?", "answer": "It is 25 + 14 = <<25+14=39>>39.\n#### 39"},
        {"question": "no way to 7?", "answer": "I guess.\n####"},
    ]
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    settings = {"paths": [str(path)], "answer_pattern": r"####\s*(.*)", "columns": {"prompt": "question"}}
    (task,) = load_files(FilesSource.model_validate({**settings, "solutions": {"field": "answer"}, "limit": 1}))
    assert task.answer == "39"
    assert task.meta["demonstrations"]["high"]["thinking"] == "\nIt is 25 + 14 = 39.\n"


def test_a_row_whose_solution_ends_elsewhere_is_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "answer": "3", "solution": f"1 + 2 = 3\n#### {n}"} for n in (2, 3)]
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (task,) = load_files(FilesSource.model_validate({"paths": [str(path)], "solutions": {"field": "solution"}}))
    assert task.prompt[0].content == "3?"
