"""Searches from their plan to their page: ports on engines, a store that survives, statistics by hand."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch.evaluation.store import StoreError
from launch.search.collect import Parts, collect, kept
from launch.search.engines import EngineExtender, EngineReviser, StepValuer
from launch.search.plan import SAMPLES, SearchPlan, Strategy, parse_strategies, units
from launch.search.report.page import render_markdown, render_page
from launch.search.results import Point, at_equal_tokens, evaluate_searches
from launch.search.store import Searched, SearchStore, Solution
from prm.config import BlankLineSplitter, SeparatorSplitter
from prm.search.ports import Branch
from prm.steps import separator_of
from rewards.outcome import Sample, judged
from rollout.continuation import Continuation, Continued
from rollout.schema import (
    Finish,
    Group,
    Job,
    Message,
    Outcome,
    Sampling,
    ScoreKind,
    StepScores,
    StepSpan,
    Task,
    TokenBudget,
    Trajectory,
)
from tests.browser import Browser, needs_browser
from tests.fakes.search import branch_of
from tests.unit.launch.test_cli import ponder

LENGTH = 3


class LetterEngines:
    """Writes one of `ab` a step from the seed; three letters end a response. Refuses prompts of more messages than
    `most`."""

    def __init__(self, most: int = 9) -> None:
        self.calls: list[Continuation] = []
        self.most = most

    async def write_on(self, continuation: Continuation) -> tuple[Continued, ...]:
        self.calls.append(continuation)
        written = []
        for prefix, seed in zip(continuation.prefixes, continuation.seeds, strict=True):
            text = "" if prefix is None else prefix.text
            steps = continuation.num_steps if continuation.stop else LENGTH
            added = 0
            while added < steps and len(text) < LENGTH:
                greedy = continuation.job.sampling.temperature == 0
                text += "a" if greedy else "ab"[(seed >> len(text)) & 1]
                added += 1
            trajectory = branch_of("?" + text).trajectory  # one token of a prompt
            sampled = np.asarray([False] + [True] * len(text))
            trajectory = replace(
                trajectory,
                prompt_len=1,
                text=text,
                sampled=sampled,
                char_ends=np.arange(len(text) + 1, dtype=np.int32),
                thinking=(0, len(text)),
                answer=(max(0, len(text) - 1), len(text)) if len(text) == LENGTH else None,
            )
            if len(continuation.job.task.prompt) > self.most:
                trajectory = replace(trajectory, finish=Finish.ERROR, error="too long")
            written.append(Continued(trajectory=trajectory, ended=len(text) == LENGTH, num_new_tokens=added))
        return tuple(written)


class ShareOfA:
    """A step is as good as it is an `a`."""

    async def score(self, group: Group) -> tuple[StepScores | None, ...]:
        found = []
        for trajectory in group.trajectories:
            spans = tuple(StepSpan(start=i + 1, end=i + 2) for i in range(len(trajectory.text)))
            scores = np.asarray([float(letter == "a") for letter in trajectory.text], dtype=np.float32)
            found.append(StepScores(spans=spans, scores=scores, kind=ScoreKind.PROB, scorer="a"))
        return tuple(found)


class LikesA:
    """`aaa` is right."""

    async def judge(self, samples: Sequence[Sample]) -> list[Outcome]:
        return [judged(float(sample.text == "aaa")) for sample in samples]


class ByLetter:
    """Hidden states: how many of each letter, and a constant."""

    async def features(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        return np.asarray([[t.text.count("a"), t.text.count("b"), 1.0] for t in trajectories], dtype=np.float64)


class NoProgress:
    def __init__(self) -> None:
        self.counted: list[tuple[int, bool]] = []

    def advance(self, num_samples: int, *, was_kept: bool) -> None:
        self.counted.append((num_samples, was_kept))


def make_tasks(size: int) -> tuple[Task, ...]:
    return tuple(
        Task(key=f"t{i}", prompt=(Message(role="user", content=str(i)),), answer="a", verifier="exact", source="s")
        for i in range(size)
    )


BUDGET = TokenBudget(effort="high", max_prompt_tokens=9, max_thinking_tokens=9, max_answer_tokens=9)


def make_plan(searches: str = "beam:1x4,lookahead:1x2x1,tree:6x2,revisions:2x2", **changes: Any) -> SearchPlan:
    samples = Strategy(name=SAMPLES, kind="samples", numbers=(4,))
    parts: dict[str, Any] = {
        "tasks": make_tasks(4),
        "strategies": (samples, *parse_strategies(searches)),
        "budget": BUDGET,
        "sampling": Sampling(),
        "aggregate": "min",
        "separator": ";",
        "max_step_tokens": 9,
        "max_depth": 9,
        "seed": 0,
        "context": {"policy": "p"},
    }
    return SearchPlan(**(parts | changes))


def make_parts(engines: LetterEngines | None = None) -> Parts:
    return Parts(engines=engines or LetterEngines(), scorer=ShareOfA(), judge=LikesA(), num_places=8)


def gather(plan: SearchPlan, out: Path, engines: LetterEngines | None = None) -> list[Searched]:
    with SearchStore(out) as store:
        found = asyncio.run(collect(plan, make_parts(engines), store, NoProgress()))
        assert kept(plan, store) == found
        return found


# ---------------------------------------------------------------------------------------- plan and ports


def test_searches_are_read_from_their_names() -> None:
    beam, tree, chain = parse_strategies("beam:2x4, tree:20x5,revisions:3")
    assert (beam.numbers, beam.width, tree.width, chain.width) == ((2, 4), 8, 5, 1)
    for bad in ("beam:2", "beam:0x4", "walk:1x1", "tree:3x4x5", "lookahead:1x2", "beam:1x-4", "beam:²x1"):
        with pytest.raises(ValueError, match="unknown search"):
            parse_strategies(bad)
    with pytest.raises(ValueError, match="comes twice"):
        parse_strategies("beam:2x4,beam:2x4")


def test_keys_depend_on_what_searches_depend_on() -> None:
    keys = [unit.key for unit in units(make_plan())]
    assert len(set(keys)) == len(keys) == 5 * 4
    for change in (
        {"seed": 1},
        {"aggregate": "last"},
        {"separator": "\n"},
        {"max_depth": 3},
        {"context": {"policy": "q"}},
    ):
        assert not set(keys) & {unit.key for unit in units(make_plan(**change))}
    more = {unit.key for unit in units(make_plan(tasks=make_tasks(6)))}
    assert set(keys) < more


def make_job() -> Job:
    return Job(group_id="g", task=make_tasks(1)[0], num_siblings=1, budget=BUDGET, sampling=Sampling())


def make_extender(engines: LetterEngines) -> EngineExtender:
    return EngineExtender(engines=engines, job=make_job(), separator=";", seed=0, max_step_tokens=9)


def test_the_extender_counts_tokens_and_draws_anew_each_time() -> None:
    engines = LetterEngines()
    extender = make_extender(engines)
    grown = asyncio.run(extender.extend([extender.root()] * 3))
    assert extender.num_tokens == 3 and len(set(engines.calls[0].seeds)) == 3
    asyncio.run(extender.extend([extender.root()]))
    assert engines.calls[1].seeds[0] not in engines.calls[0].seeds
    (again,) = asyncio.run(make_extender(LetterEngines()).extend([extender.root()]))
    assert again.trajectory.text == grown[0].trajectory.text  # the same place, asked for the first time
    ended = asyncio.run(extender.extend(grown, num_steps=None))
    assert all(branch.ended for branch in ended)
    before = len(engines.calls)
    assert asyncio.run(extender.extend(ended)) == ended and len(engines.calls) == before


def test_greedy_is_greedy_and_a_refusal_is_an_error() -> None:
    engines = LetterEngines()
    (grown,) = asyncio.run(make_extender(engines).extend([make_extender(engines).root()], num_steps=2, greedy=True))
    assert grown.trajectory.text == "aa" and engines.calls[0].job.sampling.temperature == 0
    with pytest.raises(RuntimeError, match="could not go on with task t0: too long"):
        asyncio.run(make_extender(LetterEngines(most=0)).extend([make_extender(engines).root()]))


def test_a_reviser_shows_what_was_written() -> None:
    engines = LetterEngines()
    reviser = EngineReviser(engines=engines, job=make_job(), seed=0)
    first = asyncio.run(reviser.attempt([]))
    asyncio.run(reviser.attempt([first]))
    prompt = engines.calls[1].job.task.prompt
    assert [m.role for m in prompt] == ["user", "assistant", "user"] and prompt[1].content == first.trajectory.text
    assert reviser.num_tokens == 6


def test_values_are_aggregates_and_may_be_signed() -> None:
    branches = [Branch(trajectory=branch_of(text).trajectory) for text in ("aa", "ab")]
    for signed, expected in ((False, [1.0, 0.0]), (True, [1.0, -1.0])):
        valuer = StepValuer(scorer=ShareOfA(), job=make_job(), aggregate="min", is_signed=signed)
        assert asyncio.run(valuer.value(branches)) == expected
    assert separator_of(BlankLineSplitter()) == "\n\n" and separator_of(SeparatorSplitter(separator="|")) == "|"


# ---------------------------------------------------------------------------------------- collecting and keeping


def test_a_search_with_scores_beats_samples_and_counts_every_token(tmp_path: Path) -> None:
    found = gather(make_plan(), tmp_path)
    by_name = {(item.strategy, item.task): item for item in found}
    assert len(by_name) == 5 * 4
    for task in make_tasks(4):
        samples, beam = by_name[SAMPLES, task.key], by_name["beam:1x4", task.key]
        assert samples.tokens == 4 * LENGTH == sum(s.tokens for s in samples.solutions)
        assert beam.tokens > beam.solutions[0].tokens  # dropped branches are paid for
        assert by_name["lookahead:1x2x1", task.key].tokens > LENGTH * 2
        assert len(by_name["revisions:2x2", task.key].solutions) == 4
    right = [by_name["beam:1x4", t.key].solutions[0].correct for t in make_tasks(4)]
    assert sum(map(bool, right)) >= 3


def test_what_is_on_disk_is_not_searched_again(tmp_path: Path) -> None:
    whole = gather(make_plan(), tmp_path / "a")
    path = tmp_path / "b" / "searches.jsonl"
    path.parent.mkdir()
    lines = (tmp_path / "a" / "searches.jsonl").read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7]) + lines[7][:-9])  # killed while it wrote the eighth
    engines = LetterEngines()
    assert gather(make_plan(), tmp_path / "b", engines) == whole
    keys = [json.loads(line)["key"] for line in path.read_bytes().splitlines()]
    assert len(keys) == len(set(keys)) == 20
    idle = LetterEngines()
    assert gather(make_plan(), tmp_path / "b", idle) == whole and not idle.calls


def test_the_order_of_checks_is_kept_and_asked_for_by_its_own_key(tmp_path: Path) -> None:
    plan = make_plan("beam:1x4", coreset=True)
    parts = replace(make_parts(), representer=ByLetter())
    with SearchStore(tmp_path) as store:
        found = asyncio.run(collect(plan, parts, store, NoProgress()))
    with SearchStore(tmp_path) as store:
        assert kept(plan, store) == found
        assert kept(make_plan("beam:1x4"), store) is None  # without the order it is another evaluation ...
    beams = [[unit.key for unit in units(p)][4:] for p in (plan, make_plan("beam:1x4"))]
    assert beams[0] == beams[1]  # ... of the samples, not of the searches
    for item in found:
        assert (item.order is not None) == (item.strategy == SAMPLES)
        assert item.order is None or sorted(item.order) == [0, 1, 2, 3]


def test_a_store_has_one_writer_and_says_which_line_is_bad(tmp_path: Path) -> None:
    with SearchStore(tmp_path), pytest.raises(StoreError, match="another process"), SearchStore(tmp_path):
        pass
    (tmp_path / "searches.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(StoreError, match="line 1, holds no search"), SearchStore(tmp_path):
        pass


# ---------------------------------------------------------------------------------------- statistics and page


def solution(answer: str, is_right: bool | None, *scores: float, tokens: int = 10) -> Solution:
    return Solution(text=answer, answer=answer, correct=is_right, tokens=tokens, scores=scores, value=math.nan)


def make_searched() -> tuple[list[Searched], list[str]]:
    """Two wrong answers agree and one right one is alone; its steps are better. Twelve equal tasks."""
    tasks = [f"t{i}" for i in range(12)]
    found = []
    for task in tasks:
        pool = (
            solution("9", False, 0.2),
            solution("9", False, 0.3),
            solution("7", True, 0.9),
            solution("", False, 0.1),
        )
        beam = (solution("7", True, 0.9), solution("9", False, 0.2))
        found.append(Searched(task=task, strategy=SAMPLES, tokens=40, kind="prob", solutions=pool))
        found.append(Searched(task=task, strategy="beam:2x2", tokens=30, kind="prob", solutions=beam))
    return found, tasks


def test_statistics_by_hand() -> None:
    found, tasks = make_searched()
    results = evaluate_searches(found, tasks=tasks, name="min", num_bins=2, seed=0)
    methods = results["methods"]
    value = {name: method["accuracy"]["value"] for name, method in methods.items()}
    assert value["majority@1"] == value["best_of_n@1"] == value["pass@1"] == 0.25
    assert value["majority@4"] == 0.0 and value["best_of_n@4"] == value["weighted_best_of_n@4"] == 1.0
    assert value["majority@2"] == pytest.approx((0 + 0.5 + 0 + 0.5 + 0 + 1) / 6, abs=1e-5)
    assert value["pass@2"] == 0.5 and value["pass@4"] == 1.0
    assert methods["majority@4"]["tokens"] == 40 and methods["beam:2x2 best_of_n"]["tokens"] == 30
    gain = methods["best_of_n@4"]["gain_over_majority"]
    assert (gain["value"], gain["low"], gain["high"]) == (1.0, 1.0, 1.0)
    # Majority at 30 tokens lies half way between its values at 20 and at 40.
    assert methods["beam:2x2 best_of_n"]["gain_over_majority"]["value"] == pytest.approx(1 - value["majority@2"] / 2)
    assert any(name.startswith("mix by predicted") for name in methods)
    assert results["unscored"] == 0 and results["score_kind"] == "prob"


def test_the_unjudged_and_the_unscored_are_not_wrong() -> None:
    pool = (solution("7", None, 0.9), solution("9", None, 0.1))
    found = [Searched(task=t, strategy=SAMPLES, tokens=20, kind="prob", solutions=pool) for t in ("a", "b")]
    results = evaluate_searches(found, tasks=["a", "b"], name="min", num_bins=5, seed=0)
    assert results["methods"]["majority@2"]["accuracy"]["value"] is None
    blind = tuple(replace(s, scores=None, correct=True) for s in pool)
    found = [Searched(task=t, strategy=SAMPLES, tokens=20, kind="", solutions=blind) for t in ("a", "b")]
    results = evaluate_searches(found, tasks=["a", "b"], name="min", num_bins=5, seed=0)
    assert results["methods"]["best_of_n@2"]["accuracy"]["value"] is None and results["unscored"] == 4
    assert results["methods"]["majority@2"]["accuracy"]["value"] == 1.0
    assert "| best_of_n@2 | - |" in render_markdown(results | {"policy": {"name": "p"}, "effort": "high"})


def test_beyond_the_measured_tokens_there_is_no_comparison() -> None:
    points = [
        Point(name="x", group="majority", accuracy=np.asarray([a]), tokens=np.asarray([t]))
        for a, t in ((0.0, 10.0), (1.0, 30.0))
    ]
    assert at_equal_tokens(points, 20.0) == pytest.approx([0.5])
    assert at_equal_tokens(points, 10.0) == pytest.approx([0.0]) and at_equal_tokens(points, 9.0) is None
    assert at_equal_tokens(points, 31.0) is None


@needs_browser
def test_a_browser_draws_the_page_and_believes_no_name(tmp_path: Path) -> None:
    found, tasks = make_searched()
    results = evaluate_searches(found, tasks=tasks, name="min", num_bins=2, seed=0)
    page = tmp_path / "search.html"
    page.write_text(
        render_page(results | {"policy": {"name": "</title><img src=x onerror=alert(1)>"}, "effort": "high"})
    )
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)
        assert browser.count("#plot-tokens circle.point") == len(results["methods"])
        assert browser.count("#methods tbody tr") == len(results["methods"]) and browser.count("img") == 0
        assert browser.count("#plot-tokens g.line path") >= 5
        assert browser.problems == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--policy", "http://127.0.0.1:9/v1"], "which a server does not take"),
        (["search", "--policy", "gone/model"], "no model of that name was found"),
        (["--search", "beam:2x4", "--policy", "http://127.0.0.1:9/v1"], "which a server does not take"),
        (["http://127.0.0.1:9/v1", "--search=beam:2x4"], "which a server does not take"),
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
    assert ponder(monkeypatch, "eval", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
