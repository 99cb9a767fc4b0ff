"""A learned step scorer on a real Ray: same scores as in process, training, life after a kill, nonsense named."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray

from prm.actor_model import ModelScorerClient, start_model_scorer
from prm.config import SeparatorSplitter
from prm.data import StepRow, write_rows
from prm.items import ItemScores, ScoreItem, item_of
from prm.models.config import ImplicitPrmConfig, OnlineConfig, ProbeConfig
from prm.models.scorer import ImplicitScorer
from prm.steps import cut_steps
from rollout.schema import Group, ScoreKind, StepScores
from tests.fakes.prm import tiny_model, worded_group

pytestmark = pytest.mark.stack
THOUGHTS = ["1+2+3;3+3;6", "1+2;3", "9;9;9;9", "4+4"]
LABELS = [1.0, 1.0, 0.0, None]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ImplicitPrmConfig:
    place = tmp_path_factory.mktemp("models")
    model = tiny_model(place / "policy")
    write_rows(place / "labels.jsonl", labelled(worded_group(THOUGHTS, model)))
    probe = ProbeConfig(data=str(place / "labels.jsonl"), every=2)
    return ImplicitPrmConfig(
        path=model, reference=model, splitter=SeparatorSplitter(), beta=1.0, online=OnlineConfig(lr=1e-2, probe=probe)
    )


def labelled(group: Group) -> Iterator[StepRow]:
    """The judged answers: all steps of a right one are right, the first step of a wrong one is wrong."""
    for number, (trajectory, label) in enumerate(zip(group.trajectories, LABELS, strict=True)):
        steps = cut_steps(trajectory, SeparatorSplitter(), include_answer=False)
        if label is not None:
            yield StepRow(
                id=str(number),
                question="a sum",
                steps=tuple(step.text for step in steps),
                labels=(1.0,) * len(steps) if label else (0.0, *[None] * (len(steps) - 1)),
                token_ids=tuple(trajectory.token_ids.tolist()),
                prompt_len=trajectory.prompt_len,
                spans=tuple((step.span.start, step.span.end) for step in steps),
            )


@pytest.fixture(scope="module")
def client(
    cluster: None, config: ImplicitPrmConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelScorerClient]:
    client = start_model_scorer(config, state_dir=str(tmp_path_factory.mktemp("prm")))
    yield client
    client.close()


@pytest.fixture(scope="module")
def group(config: ImplicitPrmConfig) -> Group:
    assert config.path is not None
    return worded_group(THOUGHTS, config.path)


def scores_of(found: tuple[StepScores | None, ...]) -> list[list[float]]:
    assert all(item is not None for item in found)
    return [item.scores.tolist() for item in found if item is not None]


def actor_process() -> psutil.Process:
    (found,) = [
        child
        for child in psutil.Process().children(recursive=True)
        if "_ModelActor" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE
    ]
    return found


async def test_a_service_trains_saves_dies_and_goes_on(
    client: ModelScorerClient, config: ImplicitPrmConfig, group: Group, tmp_path: Path
) -> None:
    # As the model is its own reference it says nothing yet, and finds no error in labelled solutions.
    before = await client.score(group)
    assert [len(item.spans) for item in before if item is not None] == [3, 2, 4, 1]
    assert not np.concatenate(scores_of(before)).any()
    assert all(item is not None and item.kind is ScoreKind.LOGRATIO and item.version == 0 for item in before)

    # Trained on outcomes it tells right from wrong; the unjudged sample is left out.
    for _ in range(5):
        assert await client.update(group.trajectories, LABELS)
    told = client.metrics()
    metrics = {metric.name: metric.value for metric in told}
    assert metrics["prm/version"] == 5 and metrics["prm/outcome_accuracy"] == 1.0
    looks = [metric.value for metric in told if metric.name == "prm/probe_f1"]
    assert len(looks) == 3 and looks[0] == 0 and looks[2] == 1
    trained = await client.score(group)
    sums = [sum(scores) for scores in scores_of(trained)]
    assert min(sums[:2]) > 0 > sums[2]
    assert all(item is not None and item.version == 5 for item in trained)

    # The scores are those of the saved directory in this process.
    await client.save(str(tmp_path / "saved"))
    here = ImplicitScorer(config.model_copy(update={"path": str(tmp_path / "saved" / "model"), "online": None}))
    spans = [item.spans for item in trained if item is not None]
    expected = here.score([item_of(t, s) for t, s in zip(group.trajectories, spans, strict=True)])
    for got, wanted in zip(scores_of(trained), expected, strict=True):
        assert got == pytest.approx(wanted.scores, abs=1e-4)
    assert await client.update(group.trajectories, LABELS)

    # Killed with groups in its queue: those are unjudged, and later it serves what was saved, under that version.
    waiting = [asyncio.ensure_future(client.score(group)) for _ in range(40)]
    await asyncio.sleep(0.05)
    actor_process().kill()
    answers = await asyncio.gather(*waiting)
    assert all(answer == (None,) * 4 or None not in answer for answer in answers)
    assert answers[-1] == (None,) * 4
    deadline = time.monotonic() + 60
    while None in (recovered := await client.score(group)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
    for got, wanted in zip(scores_of(recovered), scores_of(trained), strict=True):
        assert got == pytest.approx(wanted, abs=1e-5)
    assert all(item is not None and item.version == 5 for item in recovered)
    failed = {metric.name: metric.value for metric in client.metrics()}
    assert 0 < failed["prm/failed"] < 1 and failed["prm/stopped"] == 0

    # What was saved is what is loaded, optimizer included: the same update gives the same scores twice.
    twice = []
    for _ in range(2):
        await client.load(str(tmp_path / "saved"))
        assert client.version == 5
        assert await client.update(group.trajectories, LABELS)
        twice.append(np.concatenate(scores_of(await client.score(group))).tolist())
    assert twice[0] == twice[1] and client.version == 6


class Liar:
    """In the place of an actor."""

    def __init__(self, spoil: str) -> None:
        self.spoil = spoil
        self.asked = 0

    @property
    def score(self) -> Liar:
        return self

    async def remote(self, items: list[ScoreItem]) -> list[ItemScores]:
        self.asked += 1
        answers = [
            ItemScores(scores=np.zeros(len(item.spans), np.float32), truncated=False, version=0) for item in items
        ]
        broken = np.full(len(items[1].spans) + (self.spoil == "length"), np.nan, np.float32)
        return [answers[0], dataclasses.replace(answers[1], scores=broken), *answers[2:]]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ("nan", r"non-finite scores at steps \[0, 1\], for sibling 1 of group g"),
        ("length", r"\(3,\) scores for 2 steps"),
    ],
)
async def test_nonsense_is_named_and_ends_the_scoring(
    config: ImplicitPrmConfig, group: Group, spoil: str, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    liar = Liar(spoil)
    client = ModelScorerClient([liar], config)
    first = await client.score(group)
    assert first[1] is None and first[0] is not None
    assert await client.score(group) == (None,) * 4 and liar.asked == 1
    assert not await client.update(group.trajectories, LABELS)
    assert client.fault is not None
    with pytest.raises(AssertionError, match=named):
        raise AssertionError(client.fault)
    assert "the run goes on" in caplog.text
    assert {m.name: m.value for m in client.metrics()}["prm/stopped"] == 1.0
