"""`ponder coldstart` from its options to its files, with a scripted policy in the place of the engines."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launch import coldstart
from launch.coldstart import Options
from launch.evaluation.policies import LocalModel
from rollout.schema import Group, Job
from tests.fakes.budgets import attempt
from tests.unit.launch.test_cli import ponder


class Adder:
    """Thinks in as many steps as the effort has letters, and adds rightly, except sums that begin with 9."""

    num_places = 16

    def __init__(self) -> None:
        self.identity: dict[str, Any] = {}

    async def sample(self, job: Job) -> tuple[Group, tuple[()]]:
        question = job.task.prompt[0].content
        answer = "0" if question.startswith("9") else job.task.answer
        thinking = job.budget.prefix.removesuffix("</think>") or ";".join(["1+2+3"] * len(job.budget.effort))
        trajectories = [
            attempt(i, length=len(thinking) + len(answer) + 1, answer=answer, thinking=thinking)
            for i in range(job.num_siblings)
        ]
        return Group(job=job, trajectories=tuple(trajectories)), ()


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    @contextlib.asynccontextmanager
    async def opened(*_: Any, **__: Any) -> AsyncIterator[Adder]:
        yield Adder()

    monkeypatch.setattr(coldstart, "engines", opened)
    monkeypatch.setattr(coldstart, "find_model", lambda name: LocalModel(path=tmp_path, run=None, name=name))
    monkeypatch.setattr(coldstart.cluster, "session", lambda *_, **__: contextlib.nullcontext())
    return "fake"


def make(method: coldstart.Method, policy: str, out: Path, **changes: Any) -> tuple[dict[str, Any], list[Any], str]:
    parts: dict[str, Any] = {"limit": 60, "temperature": None, "against": (), "seed": 0, "overrides": ()}
    screen = io.StringIO()
    options = Options(policy=policy, out=out, recipe="thinkdial", **(parts | changes))
    report = coldstart.run(method, options, Console(file=screen, width=200))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert json.loads(out.with_suffix(".report.json").read_text()) == report
    return report, rows, screen.getvalue()


def test_thinkdial_solutions_become_a_task_file(policy: str, tmp_path: Path) -> None:
    method = coldstart.thinkdial({"high": "1", "medium": "0.5", "low": "0.25"}, {}, 2)
    report, rows, told = make(method, policy, tmp_path / "data" / "td.jsonl")
    assert report["num_kept"] == len(rows) == report["num_tasks"] - sum(report["left_out"].values())
    assert set(report["left_out"]) == {"high: wrong"} and report["num_overlapping"] == 0
    assert {effort: entry["num_solutions"] for effort, entry in report["efforts"].items()} == dict.fromkeys(
        ("high", "medium", "low"), len(rows)
    )
    assert report["efforts"]["low"]["ratio"] < report["efforts"]["medium"]["ratio"] < 0.6
    assert rows[0]["demonstrations"]["medium"]["thinking"] == "1+2+3;1+2+3;"
    assert "solutions:" in told and "[sft] mix" in told
    from rollout.config import Columns, FilesSource
    from rollout.tasks.files import load_files

    columns = Columns(meta=("demonstrations",), split_key="split_key")
    tasks = load_files(FilesSource(paths=(str(tmp_path / "data" / "td.jsonl"),), columns=columns, verifier="exact"))
    assert tasks[0].meta["demonstrations"]["low"]["answer"] == tasks[0].answer


def test_tags_and_modes_are_balanced(policy: str, tmp_path: Path) -> None:
    report, rows, _ = make(coldstart.adactrl("high", "low", 2, 0.625), policy, tmp_path / "ada.jsonl")
    assert report["labels"] == {"easy": len(rows)}
    assert rows[0]["demonstrations"]["auto"]["preface"] == "[Easy]"
    report, rows, _ = make(coldstart.five_modes(None, 2, 0.625), policy, tmp_path / "five.jsonl")
    assert set(report["mix"]) == {"no_think", "think", "auto_think"} and sum(report["mix"].values()) == pytest.approx(
        1, abs=1e-3
    )


def test_what_cannot_be_made_is_said(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="'ultra' is no effort of the recipe, which has high, medium, low"):
        make(coldstart.adactrl("ultra", None, 2, 0.6), policy, tmp_path / "a.jsonl")
    rows = [json.dumps({"prompt": f"What is {n}?", "answer": str(n)}) for n in range(500)]
    shown = tmp_path / "shown.jsonl"
    shown.write_text("\n".join(rows))
    source = f'tasks.train={{ type = "files", paths = ["{shown}"], verifier = "exact" }}'
    with pytest.raises(ValueError, match="all of the 60 training tasks overlap with evaluation tasks"):
        make(
            coldstart.adactrl("high", None, 2, 0.6),
            policy,
            tmp_path / "b.jsonl",
            overrides=(source,),
            against=(str(shown),),
        )
    asked = ("coldstart", "thinkdial", "--policy", "x", "--out", "y.jsonl", "--ratio", "high")
    assert ponder(monkeypatch, *asked) == 2
    assert "--ratio needs NAME=VALUE" in capsys.readouterr().err
