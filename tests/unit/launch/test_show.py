"""`ponder show`: filters, what is printed, paging, and that nothing a model wrote reaches the terminal as a command."""

import io
import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from launch.pictures import write_pictures
from launch.show import Pager, attempt_view, show
from rl.report.trajectories import Attempt, Filter, attempts, fair_shares, sample, shade_of, spread
from tests.fakes.report import HOSTILE, write_run

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "night", num_steps=6)


@pytest.fixture(scope="module")
def hostile_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "hostile", num_steps=2, extra=HOSTILE)


def printed(run_dir: Path, wanted: Filter, limit: int = 1) -> str:
    output = io.StringIO()
    show(run_dir, wanted, console=Console(file=output, width=100), limit=limit)
    return output.getvalue()


def some(run_dir: Path, count: int, wanted: Filter = Filter()) -> list[Attempt]:  # noqa: B008 - frozen
    return [attempt for attempt, _ in zip(attempts(run_dir, wanted), range(count), strict=False)]


def test_an_attempt_is_shown_with_all_that_became_of_it(run_dir: Path) -> None:
    lines = printed(run_dir, Filter(effort="high", outcome="wrong", step=2)).splitlines()
    # step 2, index 2: 12+6+7 = 25; sibling 2 adds its own number
    assert lines[0].startswith(" wrong  step 2  high effort   trained   sums / ")
    expected = {
        "instruction": "Effort: high.",
        "user": "12+6+7=?",
        "steps": "1: 1.00 | 2: 0.00 (18+7 is 25) | 3: not judged (no claim)   by exact",
        "answer": "27",
        "reference": "25",
        "outcome": "judged, score 0",
        "reward": "0.033   answer 0   length +0.033   advantage +1.000",
        "tokens": "30 thinking, 47 response",
        "weights": "version 1, finish stop",
    }
    rows = {line[:11].strip(): line[11:].strip() for line in lines[2:]}
    assert {name: rows[name] for name in expected} == expected
    assert lines[-1] == "1 shown; more match, see --limit"


@pytest.mark.parametrize(
    ("wanted", "check"),
    [
        (Filter(effort="low"), lambda a: a.group.effort == "low"),
        (Filter(outcome="timeout"), lambda a: a.trajectory.status == "timeout"),
        (Filter(step=3), lambda a: a.group.fate.step == 3),
        (Filter(fate="dropped"), lambda a: a.fate == "dropped: zero_variance"),
    ],
)
def test_a_filter_admits_exactly_its_kind(run_dir: Path, wanted: Filter, check: object) -> None:
    assert callable(check)
    every = list(attempts(run_dir))
    expected = [(a.group.group_id, a.trajectory.sibling) for a in every if check(a)]
    assert 0 < len(expected) < len(every)
    assert [(a.group.group_id, a.trajectory.sibling) for a in attempts(run_dir, wanted)] == expected


def test_a_task_is_found_by_the_beginning_of_its_key(run_dir: Path) -> None:
    key = some(run_dir, 1)[0].group.task_key
    assert {a.group.task_key for a in attempts(run_dir, Filter(task=key[:8]))} == {key}


def test_no_match_is_an_error_that_names_the_filters(run_dir: Path) -> None:
    with pytest.raises(ValueError, match="matches --effort max --step 3; leave out a filter"):
        printed(run_dir, Filter(effort="max", step=3))


def test_nothing_a_model_wrote_commands_the_terminal(hostile_dir: Path) -> None:
    output = io.StringIO()
    console = Console(file=output, width=100, force_terminal=True, color_system="truecolor")
    for attempt in some(hostile_dir, 8):
        console.print(attempt_view(attempt))
    text = output.getvalue()
    assert "\x1b[2J" not in text and "\x1b]0" not in text and "\x07" not in text
    assert "\\x1b[2J" in text


def test_the_pager_walks_and_scrolls(run_dir: Path) -> None:
    first, second, third = some(run_dir, 3)
    pager = Pager(iter([first, second, third]))
    assert pager.current is first
    for key, expected, offset in (
        ("p", first, 0),  # nothing before the first
        ("j", first, 1),
        ("j", first, 2),
        ("j", first, 2),  # 12 lines on a screen of 10: the end
        ("k", first, 1),
        ("n", second, 0),  # another attempt starts at its top
        ("n", third, 0),
        ("j", third, 1),
        ("n", third, 1),  # nothing after the last
        ("p", second, 0),
    ):
        assert pager.press(key, page=10, num_lines=12)
        assert (pager.current, pager.offset) == (expected, offset), key
    assert not pager.press("q", page=10, num_lines=12)


def test_the_pager_reads_no_further_than_it_shows(run_dir: Path) -> None:
    source = iter(some(run_dir, 5))
    pager = Pager(source)
    pager.press("n", page=10, num_lines=5)
    assert len(list(source)) == 3


def test_a_real_terminal_pages_and_is_restored(run_dir: Path) -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 100))
    before = termios.tcgetattr(follower)
    script = (
        "import sys; from pathlib import Path; from rich.console import Console; from launch.show import show; "
        "from rl.report.trajectories import Filter; show(Path(sys.argv[1]), Filter(), console=Console())"
    )
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(run_dir)], stdin=follower, stdout=follower, cwd=ROOT, env=environment
    ) as pager:
        screen = _until(leader, "q quit")
        assert "10+3+7=?" in screen and "right" in screen
        os.write(leader, b"n")
        assert "sibling 1" in _until(leader, "q quit")
        os.write(leader, b"q")
        assert "\x1b[?1049l" in _until(leader, "\x1b[?25h")  # back from the alternate screen, cursor shown
        assert pager.wait(timeout=20) == 0
    assert termios.tcgetattr(follower) == before
    os.close(leader)
    os.close(follower)


def _until(terminal: int, mark: str, timeout_s: float = 30.0) -> str:
    """What the terminal shows up to and including `mark`."""
    text, deadline = "", time.monotonic() + timeout_s
    while mark not in text:
        ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"no {mark!r} within {timeout_s} s in {text!r}"
        text += os.read(terminal, 65536).decode(errors="replace")
    return text


def test_the_sample_gives_every_kind_its_share(run_dir: Path) -> None:
    picked = sample(run_dir, num_attempts=40, max_steps=4)
    assert len(picked) == 40
    assert {a.outcome for a in picked} == {"right", "wrong", "timeout"}
    assert {a.group.fate.step for a in picked} == {1, 3, 4, 6}
    assert [a.group.fate.step for a in picked] == sorted(a.group.fate.step for a in picked)


def test_fair_shares_and_spread() -> None:
    assert fair_shares([1, 9, 4], 8) == [1, 4, 3]
    assert fair_shares([2, 2], 10) == [2, 2]
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert (spread("abc", 5), spread("abc", 1), spread("abc", 0)) == (["a", "b", "c"], ["a"], [])


def test_shades() -> None:
    assert [shade_of(s, [0, 1]) for s in (0.0, 0.5, 1.0)] == [0, 4, 8]
    # log-ratio increments: zero is neutral, the largest absolute value is an end of the scale
    assert [shade_of(s, [-2.0, 1.0]) for s in (-2.0, 0.0, 1.0)] == [0, 4, 6]


def test_the_pieces_are_the_text(hostile_dir: Path) -> None:
    for attempt in some(hostile_dir, 20):
        assert (
            "".join(piece.text for piece in attempt.thinking)
            == attempt.trajectory.text[slice(*attempt.trajectory.thinking or ())]
        )
        assert [piece.step for piece in attempt.thinking if piece.step] == list(
            range(1, len(attempt.trajectory.steps or ()) + 1)
        )


def test_pictures_of_a_finished_run(run_dir: Path, tmp_path: Path) -> None:
    written = write_pictures(run_dir, tmp_path / "pictures")
    assert [path.name for path in written] == ["terminal.svg", "accuracy_tokens.svg"]
    for path in written:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert "url(http" not in path.read_text().replace('"', "")  # nothing is fetched
    screen = written[0].read_text().replace("&#160;", " ")
    for part in ("6/6", "78.0% [68.9, 85.0]", "12 of 60 groups: zero_variance 12", "report.html"):
        assert part in screen
