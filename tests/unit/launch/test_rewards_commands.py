"""`ponder rewards list`, `check` and `replay` as a user runs them, on the examples and on a small recorded run."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch import build, cli, recipe
from launch.rundir import RunDirectory
from launch.sessions import find_recipe
from rewards.config import AdapterName
from rewards.workbench.cases import CasesError, read_cases
from rl.record import Fate, Recorder, Settled
from rollout.schema import Outcome, ScoredGroup, Status
from tests.fakes.rewards import group

ROOT = Path(__file__).parents[3]
EXAMPLES = ("units", "sql", "graph_path")


def ponder(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["ponder", "rewards", *arguments])
    return cli.main()


def check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, dict[str, Any]]:
    code = ponder(monkeypatch, "check", *arguments, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["verdict"] for item in found["checks"]}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_passes_its_golden_cases_and_every_probe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source = ROOT / "examples" / f"{name}.py"
    assert len(source.read_text().splitlines()) < 60
    code, found = check(monkeypatch, capsys, f"{source}:verify", "--data", str(source.with_suffix(".jsonl")))
    assert code == 0, found
    assert set(verdicts(found).values()) == {"pass"}
    assert found["adapter"] == "native" and found["capabilities"]["reads_thinking"] is False
    assert any(case.unjudged for case in read_cases(source.with_suffix(".jsonl")))


FLAWED = """
import random

def anywhere(solution_str, ground_truth):      # looks at the thinking, and takes any mention for the answer
    return float(ground_truth in solution_str)

seen = []
def by_batch(samples):                         # the verdict depends on the neighbors, and on what came before
    seen.extend(samples)
    return [float(sample.answer == samples[0].answer and len(seen) < 20) for sample in samples]

def broken(sample):
    return 1 / len(sample.answer)

def undecided(sample):
    return random.random()
"""
CASES = [
    {"prompt": "1+1=?", "reference": "2", "answer": "2", "score": 1},
    {"prompt": "1+2=?", "reference": "3", "answer": "4", "score": 0},
    {"prompt": "1+2=?", "reference": "3", "completion": "<think>3</think>5", "score": [0, 0.1]},
    {"prompt": "1+2=?", "reference": "3", "answer": ""},
]


@pytest.fixture
def flawed(tmp_path: Path) -> tuple[Path, Path]:
    """A file of bad reward functions, and golden cases."""
    source, data = tmp_path / "flawed.py", tmp_path / "cases.jsonl"
    source.write_text(FLAWED)
    data.write_text("".join(json.dumps(case) + "\n" for case in CASES))
    return source, data


@pytest.mark.parametrize(
    ("function", "failed"),
    [
        (
            "anywhere",
            {"golden cases", "probe many_answers", "probe many_boxes", "probe only_in_thinking", "probe never_closed"},
        ),
        ("by_batch", {"order", "batch"}),
        ("broken", {"golden cases", "no faults", "probe empty", "probe never_closed", "probe only_in_thinking"}),
        ("undecided", {"golden cases", "determinism", "order", "batch"}),
    ],
)
def test_a_flaw_is_found_under_its_name(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flawed: tuple[Path, Path],
    function: str,
    failed: set[str],
) -> None:
    source, data = flawed
    code, found = check(monkeypatch, capsys, f"{source}:{function}", "--data", str(data))
    assert code == 1
    assert failed <= {name for name, verdict in verdicts(found).items() if verdict == "fail"}


def test_the_answer_alone_mends_what_the_thinking_spoiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flawed: tuple[Path, Path]
) -> None:
    source, data = flawed
    _, found = check(monkeypatch, capsys, f"{source}:anywhere", "--data", str(data), "--answer-only")
    assert verdicts(found)["probe only_in_thinking"] == verdicts(found)["golden cases"] == "pass"
    assert verdicts(found)["probe many_answers"] == "fail"
    code = ponder(monkeypatch, "check", f"{source}:anywhere", "--data", str(data))
    table = capsys.readouterr().out
    assert code == 1
    assert "adapter verl" in table and "line 3: got 1, must be 0 to 0.1" in table and "failed: golden cases" in table


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"answer": "1", "score": 1}', "line 1: 'reference'"),
        ('{"reference": "1", "answer": "1", "scores": 1}', r"unknown fields \['scores'\]"),
        ('{"reference": "1"}', "line 1: 'completion'"),
        ("{", "line 1"),
        ("", "holds no case"),
    ],
)
def test_a_row_that_is_no_case_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(row + "\n")
    with pytest.raises(CasesError, match=message):
        read_cases(path)


def test_the_list_names_kind_origin_and_capabilities(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flawed: tuple[Path, Path]
) -> None:
    name = f"{flawed[0]}:anywhere"
    assert ponder(monkeypatch, "list", name, f"{flawed[0]}:missing", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["math"]["kind"] == "built-in" and rows["math"]["place"] == "rewards.math_answer:verify"
    assert rows[name]["kind"] == "plugin (verl)" and "one attempt a call" in rows[name]["capabilities"]
    assert rows[f"{flawed[0]}:missing"]["kind"] == "broken"


def test_the_adapters_of_the_command_line_are_those_of_the_settings() -> None:
    from typing import get_args

    from launch.reward_tools.cli import AdapterChoice

    assert tuple(choice.value for choice in AdapterChoice) == get_args(AdapterName)


# ------------------------------------------------------------------------------------------------ replay


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one step: a trained group of four, and a dropped one in which all were right."""
    settings = {"tasks.train.num_tasks": 500, "run.dir": str(tmp_path)}
    config = recipe.load(find_recipe("quickstart"), [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    directory = RunDirectory.create(config)
    attempts = [("3+4", "7"), ("a long way round to 3+4", "7"), ("3+4", "8"), ("what?", "9")]
    trained = _scored([(*pair, score) for pair, score in zip(attempts, (1.0, 1.0, 0.0, None), strict=True)])
    dropped = _scored([("3+4", "7", 1.0), ("a long way round to 3+4", "7", 1.0)])
    (advantages,) = build.build_credit(config)([trained])
    settled = [
        Settled(scored=trained, fate=Fate(name="trained", step=1), advantages=tuple(advantages)),
        Settled(scored=dropped, fate=Fate(name="dropped", step=1, reason="all right")),
    ]
    asyncio.run(Recorder(directory.groups).write(1, settled))
    return directory.root


def _scored(attempts: list[tuple[str, str, float | None]]) -> ScoredGroup:
    outcomes = tuple(
        Outcome(status=Status.CRASH if score is None else Status.JUDGED, score=score) for _, _, score in attempts
    )
    siblings = group([(thinking, answer) for thinking, answer, _ in attempts])
    job = replace(siblings.job, group_id=f"group of {len(attempts)}")
    return ScoredGroup(group=replace(siblings, job=job), outcomes=outcomes, steps=(None,) * len(attempts))


def replayed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert ponder(monkeypatch, "replay", *arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_same_reward_changes_nothing_but_what_it_could_not_judge(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    found = replayed(monkeypatch, capsys, str(run), "exact")
    assert (found["attempts"], found["same_score"], found["newly_judged"], found["flips"]) == (6, 5, 1, 0)
    assert found["recorded_error"] < 1e-6
    # The fourth sibling is judged now: it gets an advantage, and so moves those of the others.
    assert [c["sibling"] for c in found["changes"] if c["old_advantage"] is None] == [3]


def test_another_reward_shows_whose_advantage_flips_and_by_how_much(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    source = tmp_path / "brief.py"
    source.write_text("def f(sample):\n    return float(len(sample.thinking) < 10) if sample.answer != '9' else None\n")
    found = replayed(monkeypatch, capsys, str(run), f"{source}:f")
    flips = {change["sibling"]: change for change in found["changes"] if change["flips"]}
    # Rewards 1, 1, 0 become 1, 0, 1: with one sibling unjudged the advantages are 1/sqrt(3) and -2/sqrt(3) by GRPO.
    assert set(flips) == {1, 2} and found["flips"] == 2
    assert (flips[1]["old_advantage"], flips[1]["new_advantage"]) == pytest.approx((0.57735, -1.15470), abs=1e-3)
    assert found["gained_signal"] == 1 and found["lost_signal"] == 0  # the dropped group would have taught something
    assert found["statuses"] == {"judged": 5, "crash": 1}
    code = ponder(monkeypatch, "replay", str(run), f"{source}:f")
    table = capsys.readouterr().out
    assert code == 0 and "2 advantages change sign" in table and re.search(r"1 > 0\s+0\.577 > -1\.15", table)


def test_what_cannot_be_replayed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    for arguments, message in [
        (["replay", str(tmp_path / "gone"), "exact"], "is not a run directory"),
        (["replay", str(run), "exact", "--component", "style"], "has the components answer"),
        (["replay", str(run), "nobody"], "no plugin called 'nobody'"),
        (["check", "exact", "--data", str(tmp_path / "gone.jsonl")], "cannot be read"),
        (["check", "exact", "--data", str(ROOT / "examples/units.jsonl"), "--skip", "x"], "no probe is called 'x'"),
    ]:
        assert ponder(monkeypatch, *arguments) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1
