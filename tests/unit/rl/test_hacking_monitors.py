"""Monitors of reward hacking: what they count, and that each alarm rings for its symptom and for nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import recipe
from launch.build import build_credit
from launch.sessions import find_recipe
from rl.credit.group_credit import GroupCredit
from rl.hack_alarms import ALARMS, RECENT, WINDOW, HackAlarms
from rl.hack_metrics import hack_metrics, longest_run, repeated
from rl.hack_response import AlarmedCredit
from rl.metrics import MetricsWriter, read_metrics, reduce_metrics
from rl.record import Fate, Settled
from rl.report.data import load_run
from rl.report.page import render
from rl.run import PlannedStop
from rollout.schema import Metric, ScoredGroup, StepScores
from tests.fakes.loop import make_scored
from tests.fakes.report import write_run
from tests.unit.rl.test_step_rules import steps

HEALTHY = {
    "groups/trained_share": 1.0,
    "train/accuracy": 0.5,
    "steps/per_answer": 3.0,
    "steps/score_mean": 0.8,
    "steps/score_std": 0.1,
    "steps/correlation": 0.4,
    "steps/judged_share": 1.0,
    "hack/one_step_share": 0.1,
    "hack/repeated_tokens": 0.02,
    "hack/boilerplate": 0.0,
    "hack/empty": 0.0,
    "credit/process_to_outcome": 0.4,
    "prm/pair_accuracy": 0.7,
    "prm/probe_f1": 0.7,
    "prm/stopped": 0.0,
}
SYMPTOMS = {
    "score_without_accuracy": {"steps/score_mean": 0.9},
    "padding": {"steps/per_answer": 7.0},
    "one_step": {"hack/one_step_share": 0.8},
    "repetition": {"hack/repeated_tokens": 0.3},
    "boilerplate": {"hack/empty": 0.3},
    "inverted_scorer": {"steps/correlation": -0.2},
    "process_outweighs": {"credit/process_to_outcome": 1.5},
    "silent_scorer": {"steps/judged_share": 0.2},
    "stale_prm": {"prm/pair_accuracy": 0.4},
    "forgetful_prm": {"prm/probe_f1": 0.5},
}


def settled(*texts: str, scores: list[StepScores | None], verdicts: list[float | None]) -> Settled:
    scored = make_scored(verdicts, steps=scores, length=60)
    answers = tuple(
        dataclasses.replace(t, text=text.ljust(60), thinking=(0, 60))
        for t, text in zip(scored.group.trajectories, texts, strict=True)
    )
    group = dataclasses.replace(scored.group, trajectories=answers)
    return Settled(scored=dataclasses.replace(scored, group=group), fate=Fate(name="trained", step=1))


def test_repeated_text_is_found_and_measured() -> None:
    once = np.arange(50, dtype=np.int32)
    assert not repeated(once).any()
    twice = np.concatenate([once, np.arange(25, dtype=np.int32)])
    np.testing.assert_array_equal(np.flatnonzero(repeated(twice)), range(50, 75))
    assert longest_run(repeated(twice)) == 25
    assert repeated(np.zeros(60, dtype=np.int32)).sum() == 59  # all but the first token of the first run
    assert not repeated(np.zeros(20, dtype=np.int32)).any() and longest_run(np.zeros(0, dtype=np.bool_)) == 0


def test_short_and_long_answers_are_searched_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of two tokens, whose windows of four come back often, by the set and by the hashes."""
    rng = np.random.default_rng(3)
    sequences = [rng.integers(0, 2, size).astype(np.int32) for size in (4, 5, 17, 60, 200)]
    by_set = [repeated(tokens, n=4) for tokens in sequences]
    monkeypatch.setattr("rl.hack_metrics.SHORT", 0)
    for tokens, found in zip(sequences, by_set, strict=True):
        np.testing.assert_array_equal(repeated(tokens, n=4), found)
    assert by_set[-1].any() and not by_set[0].any()


def test_the_numbers_of_a_step() -> None:
    group = settled(
        "Thank you!",
        "so \\boxed{ }",
        " ",
        "Hence 3",
        scores=[steps(0.9, 0.7), steps(0.4), steps(0.2), None],
        verdicts=[1.0, 0.0, 0.0, 1.0],
    )
    values = reduce_metrics(hack_metrics([group]))
    assert values["hack/boilerplate"] == 0.5
    assert values["hack/empty"] == 0.25
    assert values["hack/one_step_share"] == pytest.approx(2 / 3)
    assert values["hack/tokens_per_step"] == 1
    assert values["hack/repeated_tokens"] == 0
    assert values["steps/score_mean"] == pytest.approx((0.8 + 0.4 + 0.2) / 3)
    assert values["steps/worst_is_last"] == 1  # of the only answer with two steps
    assert "steps/correlation" not in values  # three answers say nothing
    many = reduce_metrics(hack_metrics([group, group, group]))
    assert many["steps/correlation"] == pytest.approx(np.corrcoef([0.8, 0.4, 0.2], [1, 0, 0])[0, 1], abs=1e-6)


def test_the_place_of_the_lowest_score() -> None:
    nan = float("nan")
    scores = [steps(0.2, 0.9), steps(0.9, 0.2, nan), steps(0.5, 0.5, 0.7), steps(0.1), steps(nan, 0.3)]
    group = settled(*["3"] * 5, scores=list(scores), verdicts=[1.0] * 5)
    assert reduce_metrics(hack_metrics([group]))["steps/worst_is_last"] == 0.5


def rung(*, then: dict[str, float], now: dict[str, float]) -> tuple[set[str], list[str]]:
    """Alarms that ring after a window of `then` and RECENT steps of `now`, and all warnings on the way."""
    warnings: list[str] = []
    alarms = HackAlarms(warnings.append)
    found: dict[str, float] = {}
    for step in range(WINDOW + RECENT):
        found = alarms.observe(step, then if step < WINDOW else now)
    return {name.removeprefix("alarm/") for name in found}, warnings


def test_every_alarm_has_a_test() -> None:
    assert set(SYMPTOMS) == set(ALARMS)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_rings_for_its_symptom_alone_and_names_it_once(name: str) -> None:
    ringing, warnings = rung(then=HEALTHY, now=HEALTHY | SYMPTOMS[name])
    assert ringing == {name}
    assert len(warnings) == 1 and f"alarm {name}: {ALARMS[name]}" in warnings[0]


def test_a_healthy_run_and_one_that_learns_are_left_alone() -> None:
    assert rung(then=HEALTHY, now=HEALTHY) == (set(), [])
    learned = HEALTHY | {"train/accuracy": 0.7, "steps/score_mean": 0.9, "steps/per_answer": 7.0}
    assert rung(then=HEALTHY, now=learned) == (set(), [])
    without_steps = {name: HEALTHY[name] for name in ("groups/trained_share", "train/accuracy", "hack/empty")}
    assert rung(then=without_steps, now=without_steps) == (set(), [])


def test_alarms_are_written_and_a_resumed_run_goes_on_with_them(tmp_path: Path) -> None:
    def write(writer: MetricsWriter, first: int, last: int) -> None:
        for step in range(first, last + 1):
            values = HEALTHY | SYMPTOMS["repetition"] if step > RECENT else HEALTHY
            writer.write(step, [Metric(name=n, value=v, reduce="last") for n, v in values.items()])
            writer.write(step, [Metric(name="eval/high/greedy/accuracy", value=0.5)])  # another line of the same step
        writer.close()

    whole, parts, warnings = tmp_path / "whole", tmp_path / "parts", list[str]()
    write(MetricsWriter(whole, alarms=HackAlarms(warnings.append)), 1, 14)
    write(MetricsWriter(parts, alarms=HackAlarms(warnings.append)), 1, 8)
    resumed = MetricsWriter(parts, alarms=HackAlarms(warnings.append))
    resumed.set_aside(after_step=6)
    write(resumed, 7, 14)
    lines = [[(line["step"], line["metrics"]) for line in read_metrics(d / "metrics.jsonl")] for d in (whole, parts)]
    assert lines[0] == lines[1]
    assert [step for step, values in lines[0] if "alarm/repetition" in values] == list(range(2 * RECENT - 3, 15))


class Named:
    """A credit that is recognized by its answer."""

    needs_greedy_baseline = False

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, groups: Sequence[ScoredGroup]) -> Any:
        return self.name

    def metrics(self) -> list[Metric]:
        return [Metric(name=f"credit/{self.name}", value=1.0)]


def alarms_after(symptom: str | None) -> HackAlarms:
    alarms = HackAlarms(lambda text: None)
    for step in range(WINDOW + RECENT):
        alarms.observe(step, HEALTHY | (SYMPTOMS[symptom] if symptom and step >= WINDOW else {}))
    return alarms


def test_an_alarm_takes_the_say_of_steps_or_ends_the_run_where_the_recipe_says_so() -> None:
    quiet, rings = alarms_after(None), alarms_after("padding")
    for stops in (False, True):
        assert AlarmedCredit(Named("steps"), Named("outcome"), quiet, stops=stops)([]) == "steps"  # type: ignore[comparison-overlap]
    off = AlarmedCredit(Named("steps"), Named("outcome"), rings, stops=False)
    assert off([]) == "outcome"  # type: ignore[comparison-overlap]
    assert {m.name: m.value for m in off.metrics()} == {"credit/process_off": 1.0}
    rings.observe(99, HEALTHY)  # what has rung once is not forgotten
    assert off([]) == "outcome"  # type: ignore[comparison-overlap]
    with pytest.raises(PlannedStop, match="padding: answers take twice the steps"):
        AlarmedCredit(Named("steps"), Named("outcome"), rings, stops=True)([])
    silent = AlarmedCredit(Named("steps"), Named("outcome"), alarms_after("silent_scorer"), stops=True)
    assert silent([]) == "steps"  # type: ignore[comparison-overlap]
    assert {m.name for m in silent.metrics()} == {"credit/steps", "credit/process_off"}


def test_a_resumed_run_remembers_what_has_rung(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, alarms=HackAlarms(lambda text: None))
    for step in range(1, 2 * RECENT + 1):
        values = HEALTHY | (SYMPTOMS["repetition"] if step > RECENT else {})
        writer.write(step, [Metric(name=n, value=v, reduce="last") for n, v in values.items()])
    writer.close()
    resumed = MetricsWriter(tmp_path, alarms=HackAlarms(lambda text: None))
    resumed.set_aside(after_step=2 * RECENT)
    resumed.close()
    assert resumed.alarms is not None and "repetition" in resumed.alarms.rung


def test_a_recipe_chooses_what_an_alarm_does() -> None:
    for wish, kind in (("warn", GroupCredit), ("off", AlarmedCredit), ("stop", AlarmedCredit)):
        config = recipe.load(find_recipe("quickstart"), [f"credit.process.on_alarm={wish}"])
        assert type(build_credit(config, alarms_after(None))) is kind


def test_the_report_shows_an_alarm_with_its_symptom_and_no_table_without_one(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", num_steps=3)
    assert "<h2>Alarms</h2>" not in render(load_run(directory), [])
    writer = MetricsWriter(directory)
    for step in (2, 3):
        writer.write(step, [Metric(name="alarm/padding", value=1.0)])
    writer.close()
    assert load_run(directory).alarms == [("padding", ALARMS["padding"], (2, 3))]
    page = render(load_run(directory), [])
    assert ALARMS["padding"] in page and "<h2>Alarms</h2>" in page
