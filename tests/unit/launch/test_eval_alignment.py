"""The command from its options to its files, on a server; nothing on disk is sampled again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launch.evaluation import alignment
from launch.evaluation.question import EvalOptions
from rollout.tasks import sums
from tests.fakes.policy_server import chat_server, solve
from tests.unit.launch.test_cli import ponder

NUM_TASKS, NUM_SAMPLES = 8, 10


def task_file(folder: Path) -> Path:
    path = folder / "sums.jsonl"
    rows = [{"q": f"{n} + {n} =", "a": str(2 * n), "level": "low" if n < 4 else "high|er"} for n in range(NUM_TASKS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measure(url: str, folder: Path, **changes: Any) -> tuple[dict[str, Any], str]:
    screen = io.StringIO()
    table = {"verifier": "exact", "prompt": "q", "answer": "a", "meta": ("level",)}
    parts: dict[str, Any] = {"policy": url, "tasks": str(task_file(folder)), "table": table, "out": folder / "out"}
    options = EvalOptions(**(parts | {"num_samples": NUM_SAMPLES, "modes": "off"} | changes))
    return alignment.run(options, Console(file=screen, width=200), level="level"), screen.getvalue()


def test_a_server_from_question_to_advice(tmp_path: Path) -> None:
    with chat_server(solve) as server:
        found, screen = measure(server.url, tmp_path)
        assert len(server.requests) == NUM_TASKS * NUM_SAMPLES
        again, _ = measure(server.url, tmp_path)
        assert len(server.requests) == NUM_TASKS * NUM_SAMPLES and again == found
    assert 0.2 < found["pass@1"]["value"] < 0.8  # the fake answers every other question when it does not think
    assert list(found["pass@k"]) == ["1", "2", "4", "8", "10"]
    assert list(found["by_level"]) == ["high|er", "low"]
    assert found["informative"]["group_size"] == 8
    assert json.loads((tmp_path / "out" / "alignment.json").read_text()) == found
    text = (tmp_path / "out" / "alignment.md").read_text()
    assert "| high\\|er | 4 |" in text and "## What can work" in text
    assert "Verdict:" in screen and "RL with verified rewards" in screen
    assert {name.name for name in (tmp_path / "out").iterdir()} >= {"attempts.jsonl", "plan.json", "tasks.jsonl"}


def test_mistakes_are_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    with chat_server(solve) as server:
        with pytest.raises(ValueError, match="measured in one mode, got 'on,off'"):
            measure(server.url, tmp_path, modes="on,off")
        with pytest.raises(ValueError, match="--temperature 0 makes all samples"):
            measure(server.url, tmp_path, temperature=0.0)
        assert server.requests == []


def test_levels_are_what_the_tasks_say() -> None:
    tasks = sums.generate(num_tasks=6, seed=0, min_terms=4, max_terms=6)
    assert set(alignment.levels_of(tasks).values()) == {"4", "5", "6"}
    with pytest.raises(ValueError, match="--level-column 'grade': no task has"):
        alignment.levels_of(tasks, "grade")


def test_the_policy_comes_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ponder(monkeypatch, "eval", "alignment", "gone/model", "--tasks", "gone.jsonl") == 2
    assert "--policy must be a run, a model directory" in capsys.readouterr().err
