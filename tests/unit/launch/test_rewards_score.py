"""`ponder rewards score`: one row in, one row out, in order, whatever stands in the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch import cli

ROWS: list[tuple[Any, tuple[str, float | None]]] = [
    ({"reference": "1/2", "completion": r"so \boxed{0.5}"}, ("judged", 1.0)),
    ({"reference": "8", "completion": "<think>it is 9</think>The answer is 8."}, ("judged", 1.0)),
    ({"reference": "8", "completion": "it is 8</think>The answer is 9."}, ("judged", 0.0)),
    ({"reference": "8", "completion": "<think>8 8 8"}, ("unparseable_answer", 0.0)),
    ({"reference": "72", "completion": "48 + 24 = 72\n#### 72"}, ("judged", 1.0)),
    ({"reference": 72, "completion": 72}, ("judged", 1.0)),
    ({"reference": "(x-1)(x+1)", "completion": "$x^2-1$"}, ("judged", 1.0)),
    ({"reference": r"\frac{1}{", "completion": r"\frac{1}{"}, ("bad_reference", None)),
    ({"completion": "8"}, ("bad_reference", None)),
    ({"reference": "8"}, ("unparseable_answer", 0.0)),
    ({"reference": "8", "completion": r"\boxed{9^{9^{9^9}}}"}, ("unparseable_answer", 0.0)),
    ({"reference": "8", "completion": "\u2028\ud800 x" * 300_000}, ("unparseable_answer", 0.0)),
    ({"reference": "8", "completion": "__import__('os').system('touch pwned')"}, ("unparseable_answer", 0.0)),
    ({"reference": "10", "completion": r"$10\%$", "prompt": "What percent is it?"}, ("judged", 1.0)),
    ({"reference": "8", "completion": "8"}, ("judged", 1.0)),
]


def ponder(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["ponder", "rewards", "score", *map(str, arguments)])
    return cli.main()


def test_every_row_has_its_verdict_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("\n\n".join(json.dumps(row) for row, _ in ROWS))
    assert ponder(monkeypatch, "--verifier", "math", "--data", "in.jsonl", "--out", "out.jsonl", "--workers", 1) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["status"], row["score"]) for row in rows] == [wanted for _, wanted in ROWS]
    assert all(set(row) == {"status", "score", "reason"} for row in rows)
    assert "number too large" in rows[10]["reason"] or "power too large" in rows[10]["reason"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert "2 bad_reference" in capsys.readouterr().out


def test_any_verifier_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    (tmp_path / "mine.py").write_text(
        "from rewards.outcome import judged\nimport time\n"
        "def verify(sample):\n"
        "    if sample.answer == 'hang': time.sleep(60)\n"
        "    return judged(len(sample.answer) / 10)\n"
    )
    data.write_text("".join(json.dumps({"reference": "x", "completion": text}) + "\n" for text in ("hang", "12345")))
    options = ("--data", data, "--out", out, "--max-seconds", 0.5, "--workers", 1)
    assert ponder(monkeypatch, "--verifier", f"{tmp_path}/mine.py:verify", *options) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["status"], row["score"]) for row in rows] == [("timeout", None), ("judged", 0.5)]


@pytest.mark.parametrize(
    ("line", "verifier", "settings", "message"),
    [
        ("{}", "nobody", "{}", "no plugin called 'nobody'"),
        ("not json", "math", "{}", "line 1 is not JSON"),
        ("[1]", "math", "{}", "line 1 is a list, not an object"),
        ("{}", "math", "{", "--settings is not JSON"),
        ("{}", "math", "[]", "must be a JSON object"),
    ],
)
def test_mistakes_of_the_user_are_named_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    verifier: str,
    settings: str,
    message: str,
) -> None:
    data, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data.write_text(line)
    options = ("--verifier", verifier, "--data", data, "--out", out, "--settings", settings)
    assert ponder(monkeypatch, *options) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
    assert ponder(monkeypatch, "--verifier", "math", "--data", tmp_path / "gone", "--out", out) == 2
