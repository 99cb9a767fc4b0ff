"""Contamination: what is found, what is not, and what a run leaves out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.cli import app
from rollout.config import TasksConfig
from rollout.schema import Message, Task, task_key
from rollout.tasks.load import load_tasks
from rollout.tasks.overlap import find_overlaps, reduced, twins

LONG = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)


def task(text: str, answer: str = "1") -> Task:
    prompt = (Message(role="system", content="Answer."), Message(role="user", content=text))
    return Task(key=task_key(prompt, answer), prompt=prompt, answer=answer, verifier="exact", source="test")


def test_what_is_compared() -> None:
    assert reduced(task("What is \uff13 + 4?\n *Please*")) == ("what", "is", "3", "+", "4", "*", "please", "*")
    assert reduced(task("3-5")) != reduced(task("3+5"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (LONG.upper().replace(",", " ;"), "same_text"),
        (f"Here is a puzzle for you. {LONG} Think step by step.", "ngrams"),
        (LONG.replace("Natalia sold", "Last spring Natalia sold", 1), "ngrams"),
        (LONG.replace("48", "50"), "ngrams"),  # an edited copy
        (" ".join(reversed(LONG.split())), None),
        ("Natalia sold clips to 48 of her friends.", None),
        ("How much is 17 times 3?", None),
    ],
)
def test_overlaps(text: str, kind: str | None) -> None:
    found = find_overlaps([task(text)], [task("An unrelated question"), task(LONG)], ngram=13, share=0.7)
    assert [o.kind for o in found] == ([] if kind is None else [kind])
    assert all(o.evaluation.prompt[1].content == LONG for o in found)


def test_short_questions_are_compared_whole() -> None:
    assert find_overlaps([task("3 + 4 =", "7")], [task("3+4=")])
    assert not find_overlaps([task("3 + 4 + 5 =")], [task("3 + 4 =")])


def test_twins() -> None:
    groups = twins([task("a b"), task("c"), task("A, b!"), task("d")])
    assert [[t.prompt[1].content for t in group] for group in groups] == [["a b", "A, b!"]]


def write(path: Path, questions: list[str]) -> str:
    path.write_text("".join(json.dumps({"prompt": q, "answer": str(n)}) + "\n" for n, q in enumerate(questions)))
    return str(path)


def tasks_config(tmp_path: Path, **more: object) -> TasksConfig:
    train = write(tmp_path / "train.jsonl", [LONG, "first", "second", "third"])
    held = write(tmp_path / "held.jsonl", ["fourth", f"So: {LONG}"])
    further = write(tmp_path / "further.jsonl", ["Second!"])
    return TasksConfig.model_validate(
        {
            "train": {"type": "files", "paths": [train]},
            "held_out": {"num_tasks": 2, "source": {"type": "files", "paths": [held]}},
            **({"decontaminate": {"against": [{"type": "files", "paths": [further]}], **more}} if more else {}),
        }
    )


def test_injected_evaluation_questions_are_left_out(tmp_path: Path) -> None:
    kept = load_tasks(tasks_config(tmp_path), seed=0, procedural={})
    assert len(kept.train) == 4
    assert not kept.overlaps
    clean = load_tasks(tasks_config(tmp_path, share=0.5), seed=0, procedural={})
    assert sorted(t.prompt[0].content for t in clean.train) == ["first", "third"]
    assert {(o.task.prompt[0].content, o.kind) for o in clean.overlaps} == {(LONG, "ngrams"), ("second", "same_text")}


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    config = tasks_config(tmp_path, share=0.5)
    held = {"num_tasks": 4, "source": {"type": "files", "paths": [write(tmp_path / "t.jsonl", [LONG, "first!"] * 2)]}}
    train = {"type": "files", "paths": [write(tmp_path / "u.jsonl", ["First", LONG.lower()])]}
    bad = TasksConfig.model_validate({**config.model_dump(), "train": train, "held_out": held})
    with pytest.raises(ValueError, match="each of 2 repeats an evaluation task"):
        load_tasks(bad, seed=0, procedural={})


def test_the_command_reports_and_says_so_in_its_exit_code(tmp_path: Path) -> None:
    config = tasks_config(tmp_path, share=0.5)
    tables = config.model_dump(mode="json")
    out = tmp_path / "report.json"
    settings = [
        f"tasks.train={{ type = 'files', paths = ['{tables['train']['paths'][0]}'] }}",
        f"tasks.held_out.source={{ type = 'files', paths = ['{tables['held_out']['source']['paths'][0]}'] }}",
        "tasks.held_out.num_tasks=2",
        "evaluate.num_tasks=2",
    ]
    arguments = ["tasks", "check", "quickstart", *(part for s in settings for part in ("--set", s))]
    runner = CliRunner()
    trained_on = runner.invoke(app, [*arguments, "--out", str(out)])
    assert trained_on.exit_code == 1, trained_on.output
    assert "repeat an evaluation task" in trained_on.output
    assert [row["kind"] for row in json.loads(out.read_text())["overlaps"]] == ["ngrams"]
    left_out = runner.invoke(app, [*arguments, "--set", "tasks.decontaminate.ngram=13"])
    assert left_out.exit_code == 0, left_out.output
