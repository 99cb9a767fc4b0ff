"""The command from its options to its files: a server, saved attempts, mistakes of the user."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launch.evaluation.modes import run
from launch.evaluation.progress import SampleProgress
from launch.evaluation.question import EvalOptions
from tests.fakes.policy_server import chat_server, solve
from tests.unit.launch.test_cli import ponder


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "sums.jsonl"
    rows = [{"question": f"{n} + {n} =", "target": str(2 * n)} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def options(sums: Path, url: str, out: Path, **changes: Any) -> EvalOptions:
    table = {"verifier": "exact", "prompt": "question", "answer": "target"}
    parts: dict[str, Any] = {"policy": url, "tasks": str(sums), "table": table, "out": out, "modes": "on,off,512"}
    return EvalOptions(**(parts | changes))


def measure(asked: EvalOptions) -> tuple[Mapping[str, Any], str]:
    screen = io.StringIO()
    evaluation = run(asked, Console(file=screen, width=160))
    return evaluation.results, screen.getvalue()


def test_a_server_from_question_to_page(sums: Path, tmp_path: Path) -> None:
    with chat_server(solve) as server:
        found, screen = measure(options(sums, server.url, tmp_path, num_samples=3))
        assert len(server.requests) == 12 * 3 * 3
        again, _ = measure(options(sums, server.url, tmp_path, num_samples=3))
        assert len(server.requests) == 12 * 3 * 3 and again == found
    modes = found["modes"]
    assert found["base"] == "on" and found["num_tasks"] == 12
    assert modes["on"]["pass@1"]["value"] == modes["512"]["pass@1"]["value"] == 1.0
    assert 0.2 < modes["off"]["pass@1"]["value"] < 0.8
    assert modes["on"]["thinking_tokens"] == {"mean": 10.0, "low": 10.0, "high": 10.0, "p95": 10.0}
    assert modes["off"]["thinking_tokens"]["mean"] == 0.0 and modes["off"]["answer_tokens"]["mean"] == 2.0
    assert modes["512"]["adherence"] == {"kept": 1.0, "forced": 0.0, "over": 0.0, "use": round(10 / 512, 6)}
    assert found["frontier"]["modes"] == ["off", "512", "on"]  # equal points are both kept
    assert found["against_base"]["off"]["accuracy_difference"]["high"] < 0
    assert "100.0 % [" in screen and "modes.html" in screen
    stored = json.loads((tmp_path / "modes.json").read_text())
    assert stored["modes"] == modes and stored["policy"]["model"] == "tiny"
    assert "| off \\* | " in (tmp_path / "modes.md").read_text()


def test_saved_attempts_are_judged_again_without_a_model(sums: Path, tmp_path: Path) -> None:
    with chat_server(solve) as server:
        first, _ = measure(options(sums, server.url, tmp_path / "a"))
    again, _ = measure(EvalOptions(saved=tmp_path / "a", out=tmp_path / "b"))
    assert again == first
    kept, _ = measure(EvalOptions(saved=tmp_path / "a", out=tmp_path / "c", keeps_verdicts=True))
    assert kept == first
    part, _ = measure(EvalOptions(saved=tmp_path / "a", out=tmp_path / "d", modes="off", limit=4))
    assert list(part["modes"]) == ["off"] and part["num_tasks"] == 4
    with pytest.raises(ValueError, match="no attempt of mode high is saved, only of on, off, 512"):
        measure(EvalOptions(saved=tmp_path / "a", out=tmp_path / "e", modes="high"))
    with pytest.raises(ValueError, match="holds no saved attempts"):
        measure(EvalOptions(saved=tmp_path, out=tmp_path / "e"))


def test_another_evaluation_as_the_reference_of_the_act_score(sums: Path, tmp_path: Path) -> None:
    with chat_server(solve) as server:
        measure(options(sums, server.url, tmp_path / "a", modes="on"))
        asked = options(sums, server.url, tmp_path / "b", modes="high,low", against=tmp_path / "a" / "modes.json")
        found, _ = measure(asked)
    assert found["act"] == {
        "base": f"on of {tmp_path / 'a' / 'modes.json'}",
        "modes": {"high": 1.0, "low": 0.5},
        "mean": 0.75,
    }
    with pytest.raises(ValueError, match=r"--against must be a modes\.json"):
        measure(EvalOptions(saved=tmp_path / "a", out=tmp_path / "c", against=sums))


def test_samples_that_failed_are_made_by_the_next_run(sums: Path, tmp_path: Path) -> None:
    def flaky(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return (400, {"error": "odd"}) if number % 5 == 0 else solve(body, number)

    with chat_server(flaky) as server:
        first, _ = measure(options(sums, server.url, tmp_path, modes="on"))
        report = first["modes"]["on"]
        failed = report["num_attempts"] - report["num_judged"]
        assert failed == 10 and report["unjudged"] and report["pass@1"]["value"] == 1.0  # left out, not wrong
    with chat_server(solve) as server:
        whole, _ = measure(options(sums, server.url, tmp_path, modes="on"))
    # Another address is another policy: nothing is taken over, and nothing is missing.
    assert whole["modes"]["on"]["num_judged"] == 48


def test_a_mode_that_always_fails_is_an_error(sums: Path, tmp_path: Path) -> None:
    with (
        chat_server(lambda body, n: (400, {"error": "no such effort"})) as server,
        pytest.raises(ValueError, match="no sample of mode on could be made; the first failed with: status 400"),
    ):
        measure(options(sums, server.url, tmp_path))


def test_tasks_without_a_usable_reference_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "1 + 1 =", "answer": "2"}\n{"prompt": "2 + 2 =", "answer": "\\\\frac{"}\n')
    with chat_server(solve) as server:
        asked = options(path, server.url, tmp_path / "out", table={"verifier": "math"}, modes="on")
        found, screen = measure(asked)
    assert found["num_tasks"] == 1
    assert "1 of 2 tasks are left out" in screen
    assert json.loads((tmp_path / "out" / "modes.json").read_text())["num_tasks_left_out"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a --policy, or attempts to measure again with --from-trajectories"),
        (["--policy", "gone/model"], "no such directory, and no model of that name was found"),
        (["--policy", "http://127.0.0.1:9/v1"], "--tasks held_out needs a recipe that has tasks"),
        (["--policy", "http://127.0.0.1:9/v1", "--tasks", "gone"], "--tasks must be a file (.jsonl, .json"),
        (["--policy", "http://127.0.0.1:9/v1", "--recipe", "quickstart", "--modes", "best"], "unknown mode 'best'"),
        (
            ["--policy", "http://127.0.0.1:9/v1", "--recipe", "adactrl", "--modes", "auto,easy"],
            "cannot be made to begin a response, as modes easy ask",
        ),
        (["--policy", "http://127.0.0.1:9/v1", "--request", "low=3"], "must read MODE=JSON with an object"),
        (["--policy", "http://127.0.0.1:9/v1", "--request", "low"], "must read MODE=JSON, for example"),
        (["--policy", "http://127.0.0.1:9/v1", "--set", "rollout.bogus=1"], "rollout.bogus"),
        (
            ["--policy", "http://127.0.0.1:9/v1", "--recipe", "quickstart", "--api-key-env", "GONE_KEY"],
            "GONE_KEY, which is not set",
        ),
        (["--samples", "0"], "--samples"),
    ],
)
def test_a_users_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert ponder(monkeypatch, "eval", "modes", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_eval_takes_a_run_or_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for spelled in (["eval", "gone.toml"], ["eval", "held-out", "gone.toml"], ["eval", "--model", "x", "gone.toml"]):
        assert ponder(monkeypatch, *spelled) == 2
        assert "there is no recipe at gone.toml" in capsys.readouterr().err
    assert ponder(monkeypatch, "eval", "--help") == 0
    out = capsys.readouterr().out
    assert "held-out" in out and "modes" in out


def test_progress_says_what_is_left() -> None:
    now = [0.0]
    screen = io.StringIO()
    progress = SampleProgress(Console(file=screen, width=120), 100, clock=lambda: now[0])
    with progress:
        progress.advance(40, was_kept=True)
        assert progress.seconds_left is None
        now[0] = 12.0
        progress.advance(20, was_kept=False)
        now[0] = 15.0
        progress.advance(20, was_kept=False)  # too soon for another line
        now[0] = 36.0
        progress.advance(20, was_kept=False)
    lines = screen.getvalue().splitlines()
    assert lines[0] == "sampling: 60 of 100 samples (60 %), 40 of them from before, 1.7/s, 24.0 s left"
    assert len(lines) == 2 and lines[1].startswith("sampling: 100 of 100")
