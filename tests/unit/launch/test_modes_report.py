"""The results of an evaluation as JSON, Markdown and a page that a browser opens, filters and does not trust."""

from __future__ import annotations

import asyncio
import html
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from budgets.evaluation.attempt import Attempt
from budgets.evaluation.leak import LeakDetector
from budgets.evaluation.results import Evaluation, evaluate_modes
from budgets.modes import Mode, parse_modes
from launch.evaluation.modes_report.markdown import render_markdown
from launch.evaluation.modes_report.page import MAX_BYTES_OF_TEXTS, MAX_TEXT, render_page, shortened, text_limit
from launch.evaluation.sampling import Plan, collect
from launch.evaluation.store import AttemptStore
from rollout.schema import Sampling, Task
from tests.browser import Browser, needs_browser
from tests.fakes.modes import BUDGETS, HOSTILE, CountingProgress, FakeJudge, FakePolicy, make_tasks

MODES = tuple(parse_modes("high,low,auto,32", BUDGETS))
DETECTOR = LeakDetector(("wait",), opening="<think>")
HEADER = {"policy": {"name": "fake/model"}, "num_tasks_left_out": 0}


def sample(directory: Path, tasks: tuple[Task, ...], *, num_samples: int, extra: str = "") -> list[Attempt]:
    plan = Plan(
        tasks=tasks, modes=MODES, num_samples=num_samples, sampling=Sampling(), seed=0, context={"extra": extra}
    )
    with AttemptStore(directory) as store:
        policy = FakePolicy(extra=extra)
        return asyncio.run(collect(plan, policy, FakeJudge(unjudged=9), store, CountingProgress()))


def evaluate(attempts: list[Attempt], tasks: tuple[Task, ...], modes: tuple[Mode, ...] = MODES) -> Evaluation:
    names = {task.key: task.source for task in tasks}
    return evaluate_modes(attempts, modes=modes, tasks=names, base="high", detector=DETECTOR, seed=0)


def page_of(evaluation: Evaluation, tasks: tuple[Task, ...], target: Path) -> Path:
    target.write_text(render_page({**HEADER, **evaluation.results}, evaluation.measured, tasks), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Attempt], tuple[Task, ...]]:
    tasks = make_tasks(40)
    return sample(tmp_path_factory.mktemp("modes"), tasks, num_samples=4), tasks


# ------------------------------------------------------------------------------------------------ results


def test_results_do_not_depend_on_the_order_of_attempts(small: tuple[list[Attempt], tuple[Task, ...]]) -> None:
    attempts, tasks = small
    mixed = random.Random(1).sample(attempts, len(attempts))
    first, second = (json.dumps(evaluate(each, tasks).results) for each in (attempts, mixed))
    assert first == second
    assert "NaN" not in first and "Infinity" not in first


def test_results_are_those_of_the_attempts(small: tuple[list[Attempt], tuple[Task, ...]]) -> None:
    attempts, tasks = small
    results = evaluate(attempts, tasks).results
    for mode in MODES:
        own = [a for a in attempts if a.mode == mode.name]
        report = results["modes"][mode.name]
        by_task = {a.task: [b.correct for b in own if b.task == a.task and b.correct is not None] for a in own}
        rates = [sum(v) / len(v) for v in by_task.values() if v]
        assert report["pass@1"]["value"] == pytest.approx(sum(rates) / len(rates), abs=1e-6)
        assert report["pass@1"]["value"] == pytest.approx(report["pass@k"]["1"]["value"], abs=1e-6)
        assert report["unjudged"] == {"timeout": sum(a.correct is None for a in own)}
        thinking = sum(a.thinking_tokens for a in own) / len(own)
        assert report["thinking_tokens"]["mean"] == pytest.approx(thinking, abs=1e-6)
        binned = sum(part["num_judged"] for part in report["by_difficulty"].values())
        assert binned == report["num_judged"] == sum(part["num_judged"] for part in report["by_source"].values())
    low = results["against_base"]["low"]
    assert low["thinking_tokens_ratio"]["high"] < 0.3 and low["accuracy_difference"]["high"] < 0
    assert results["modes"]["auto"]["adherence"] is None
    kept, forced = (results["modes"]["32"]["adherence"][name] for name in ("kept", "forced"))
    assert forced > 0 and kept + forced == pytest.approx(1)


def test_modes_without_a_verdict_are_shown_and_lead_to_no_number(
    small: tuple[list[Attempt], tuple[Task, ...]], tmp_path: Path
) -> None:
    attempts, tasks = small
    evaluation = evaluate([a for a in attempts if a.mode != "low"], tasks)
    report = evaluation.results["modes"]["low"]
    assert report["num_attempts"] == 0 and report["pass@1"]["value"] is None
    assert "low" not in evaluation.results["frontier"]["modes"]
    assert "| low | - |" in render_markdown({**HEADER, **evaluation.results})
    page_of(evaluation, tasks, tmp_path / "page.html")


def test_markdown_is_a_table_whatever_the_names_are(small: tuple[list[Attempt], tuple[Task, ...]]) -> None:
    attempts, tasks = small
    results = evaluate(attempts, tasks).results
    text = render_markdown({**results, "policy": {"name": "a|b\n<script>`"}})
    assert "a\\|b \\<script\\>\\`" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (5, 4, 13)


# ------------------------------------------------------------------------------------------------ the page


def test_texts_fit_the_page() -> None:
    assert text_limit(10) == MAX_TEXT
    assert 2 * 10_000 * text_limit(10_000) <= MAX_BYTES_OF_TEXTS
    text = "a" * 600 + "b" * 400
    short = shortened(text, 300)
    assert short.startswith("a" * 200) and short.endswith("b" * 100) and "[... 700 characters ...]" in short
    assert shortened(text, 1000) == text


def test_what_a_model_writes_stays_data(tmp_path: Path) -> None:
    tasks = make_tasks(3, extra=HOSTILE.replace("\ud800", ""))
    attempts = sample(tmp_path, tasks, num_samples=2, extra=HOSTILE)
    text = page_of(evaluate(attempts, tasks), tasks, tmp_path / "page.html").read_text()
    assert text.count("<script") == 3 and "<img" not in text
    assert len(re.findall(r"\ssrc=|\shref=", re.sub(r'<script type="application/json".*', "", text))) == 0
    assert "default-src 'none'; script-src 'sha256-" in html.unescape(text)


@needs_browser
def test_a_browser_draws_filters_and_compares(small: tuple[list[Attempt], tuple[Task, ...]], tmp_path: Path) -> None:
    attempts, tasks = small
    page = page_of(evaluate(attempts, tasks), tasks, tmp_path / "page.html")
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)
        assert browser.count("#plot-frontier circle.point") == 4
        assert browser.count("#plot-difficulty rect.bar") >= 8 and browser.count("#plot-tokens rect.box") == 4
        assert browser.count("#plot-samples path") == 8  # pass@k and majority@k of four modes
        assert browser.text("#count") == "640 of 640 attempts"
        assert browser.count("#tasks tr.row") == 25
        browser.click("#more")
        assert browser.count("#tasks tr.row") == 40

        before = browser.run("document.querySelector('.point').dataset.note")
        browser.choose("select[name=source]", "0")
        assert browser.text("#count") == "320 of 640 attempts" and browser.text("#task-count") == "20 of 40 tasks"
        assert browser.run("document.querySelector('.point').dataset.note") != before
        browser.choose("select[name=bin]", "0")
        assert 0 < int(browser.text("#count").split()[0]) < 320
        browser.click("#filters [type=reset]")
        browser.wait_for("document.querySelector('#count').textContent === '640 of 640 attempts'")
        browser.click(".chip input[value='1']")
        assert browser.count("#plot-frontier circle.point") == 3 and browser.count("#modes-table tbody tr") == 3
        assert browser.count("#tasks thead th") == 2 + 3

        browser.choose("#task-filters [type=search]", tasks[17].prompt[0].content)
        assert browser.count("#tasks tr.row") == 1
        browser.click("#tasks tr.row")
        assert browser.count(".column") == 3 and browser.count(".column .tabs button") == 12
        first = browser.text(".column pre")
        assert first == "t" * len(first) and first
        browser.click(".column .tabs button:nth-child(3)")
        chosen = next(a for a in attempts if a.task == tasks[17].key and a.mode == "high" and a.sample == 2)
        assert browser.text(".column pre") == chosen.thinking_text
        assert browser.problems == []


@needs_browser
def test_the_figures_of_the_page_are_those_of_the_file(
    small: tuple[list[Attempt], tuple[Task, ...]], tmp_path: Path
) -> None:
    """The script computes again what the filters leave; with a filter that leaves everything it must agree."""
    attempts, tasks = small
    evaluation = evaluate(attempts, tasks)
    page = page_of(evaluation, tasks, tmp_path / "page.html")
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)
        for place, source in enumerate(evaluation.results["sources"]):
            browser.choose("select[name=source]", str(place))
            part = evaluate(attempts, tuple(t for t in tasks if t.source == source)).results
            notes = browser.run("[...document.querySelectorAll('.point')].map((p) => p.dataset.note)")
            for note in notes:
                name = note.split("\n")[0].removesuffix(" (base)")
                values = [float(v) for v in re.findall(r"-?[0-9.]+", note.partition("\n")[2])]
                report = part["modes"][name]
                expected = [100 * report["pass@1"][end] for end in ("value", "low", "high")]
                assert values[0] == pytest.approx(expected[0], abs=0.06)
                assert values[1:3] == pytest.approx(expected[1:], abs=3.5)  # fewer resamples than in the file
                assert values[-3] == pytest.approx(report["thinking_tokens"]["mean"], abs=0.06)


@needs_browser
def test_hostile_texts_stay_texts_in_a_browser(tmp_path: Path) -> None:
    tasks = make_tasks(4, extra=HOSTILE.replace("\ud800", ""))
    attempts = sample(tmp_path, tasks, num_samples=2, extra=HOSTILE)
    page = page_of(evaluate(attempts, tasks), tasks, tmp_path / "page.html")
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)
        browser.click("#tasks tr.row")
        assert "</script><img src=x" in browser.text("tr.detail")
        assert browser.count("img") == 0 and browser.text("title") == "fake/model - thinking modes"
        assert browser.problems == []


@needs_browser
def test_ten_thousand_samples_open_at_once(tmp_path: Path) -> None:
    tasks = make_tasks(250, extra="lorem ipsum " * 40)
    attempts = sample(tmp_path, tasks, num_samples=10, extra=" dolor sit amet" * 200)
    assert len(attempts) == 10_000
    page = page_of(evaluate(attempts, tasks), tasks, tmp_path / "page.html")
    assert page.stat().st_size < 20_000_000
    with Browser(tmp_path / "profile") as browser:
        seconds = browser.open(page)
        clock: Any = browser.run("performance.getEntriesByType('navigation')[0].domComplete")
        assert clock < 5_000, (clock, seconds)
        timed = "(() => { const t = performance.now(); {work}; return performance.now() - t; })()"
        filtering = "document.querySelector('#filters').dispatchEvent(new Event('input'))"
        assert browser.run(timed.replace("{work}", filtering)) < 1_000
        assert browser.run(timed.replace("{work}", "document.querySelector('#tasks tr.row').click()")) < 2_000
        assert browser.problems == []
