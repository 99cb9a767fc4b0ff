"""A step scorer is trained from labels, stops early, resumes as if it had not stopped, and serves what it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from prm.data import StepRow
from prm.label.augment import is_neutral_copy
from prm.models.config import DiscriminativePrmConfig, ImplicitPrmConfig, ValuePrmConfig
from prm.models.scorer import load_scorer
from prm.train import Training
from prm.train_config import MachineConfig, TrainConfig
from prm.train_engine import Place
from prm.train_examples import item_of_row
from prm.train_ranks import train
from tests.fakes.prm import tiny_model

pytestmark = pytest.mark.stack
MACHINE = MachineConfig(max_tokens=64, batch_tokens=512)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("model") / "policy")


def rows(count: int) -> list[StepRow]:
    """A step that holds a 9 is wrong, and so is a solution with one: something that a tiny model can learn."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(count):
        digits = rng.integers(1, 9, (3, 3))
        wrong = rng.random(3) < 0.4
        digits[wrong, 1] = 9
        steps = tuple("".join(map(str, row)) for row in digits.tolist())
        labels = tuple(float(not w) for w in wrong)
        outcome = float(not wrong.any())
        found.append(StepRow(id=str(index), question=f"{index}=", steps=steps, labels=labels, outcome=outcome))
    return found


def config(**changes: Any) -> TrainConfig:
    base = {"lr": 3e-3, "epochs": 4, "batch_size": 16, "held_out": 0.2, "evaluations": 4, "joiner": ";", "seed": 1}
    return TrainConfig(machine=MACHINE, **base | changes)


def copy_of(row: StepRow) -> StepRow:
    """As `neutral_edits` makes them, with fillers that the tiny vocabulary can spell."""
    steps = tuple(("now so " if i % 2 else "next ") + step for i, step in enumerate(row.steps))
    copy = replace(row, id=f"{row.id}n", steps=steps, labeller="planted+neutral", meta={"edited": row.id})
    assert is_neutral_copy(copy)
    return copy


@pytest.mark.parametrize("kind", ["discriminative", "value"])
def test_ties_make_scores_indifferent_to_fillers(model: str, tmp_path: Path, kind: str) -> None:
    given = rows(60)
    copies = [copy_of(row) for row in given]
    by_id = {row.id: row for row in given}
    gaps = {}
    for tie in (0.0, 4.0):
        out = tmp_path / f"{tie}"
        chosen = config(tie=tie, kind=kind, calibration="none", epochs=2, evaluations=1)
        train(chosen, [*given, *copies], model, out, report=lambda entry: None)
        served = DiscriminativePrmConfig if kind == "discriminative" else ValuePrmConfig
        scorer = load_scorer(served(path=str(out / "best"), max_tokens=64, batch_tokens=512))
        tokenizer = AutoTokenizer.from_pretrained(model)
        pairs = [(by_id[c.meta["edited"]], c) for c in copies]
        items = [[item_of_row(row, tokenizer, joiner=";") for row in side] for side in zip(*pairs, strict=True)]
        found = [[answer.scores for answer in scorer.score(side)] for side in items]
        gaps[tie] = float(np.mean([np.abs(a - b).mean() for a, b in zip(*found, strict=True)]))
    assert gaps[4.0] < 0.7 * gaps[0.0], gaps


def test_ties_need_copies(model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is none; add --neutral"):
        train(config(tie=1.0), rows(20), model, tmp_path, report=lambda entry: None)
    with pytest.raises(ValueError, match="learns from outcomes alone"):
        config(tie=1.0, kind="implicit")


@pytest.mark.parametrize(
    ("changes", "figure"),
    [
        ({}, "auc"),
        ({"kind": "value", "separator": "<sep>"}, "auc"),
        ({"labels": "soft", "calibration": "isotonic"}, "auc"),
        ({"kind": "implicit", "beta": 0.5}, "outcome_auc"),
    ],
    ids=["hard", "value", "soft", "implicit"],
)
def test_each_kind_learns_and_serves(
    rank_environment: Path, model: str, tmp_path: Path, changes: dict[str, Any], figure: str
) -> None:
    reports: list[dict[str, Any]] = []
    train(config(**changes), rows(160), model, tmp_path, report=reports.append)
    assert reports[-1][figure] > 0.8
    assert json.loads((tmp_path / "train.json").read_text())["done"]
    settings = json.loads((tmp_path / "best/ponder_prm.json").read_text())
    best = str(tmp_path / "best")
    served = {
        "discriminative": lambda: DiscriminativePrmConfig(path=best),
        "value": lambda: ValuePrmConfig(path=best),
        "implicit": lambda: ImplicitPrmConfig(path=best, reference=model, beta=0.5),
    }[settings["kind"]]()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(best)
    asked = [item_of_row(row, tokenizer, joiner=settings["joiner"]) for row in rows(40)]
    answers = load_scorer(served).score(asked)
    good = [s for a, row in zip(answers, rows(40), strict=True) for s, y in zip(a.scores, row.labels, strict=True) if y]
    bad = [
        s for a, row in zip(answers, rows(40), strict=True) for s, y in zip(a.scores, row.labels, strict=True) if not y
    ]
    assert np.mean(good) > np.mean(bad) + (0.0 if settings["kind"] == "implicit" else 0.3)


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_the_head_learns_alone_and_then_with_the_rest(
    rank_environment: Path, model: str, tmp_path: Path, zero_stage: int
) -> None:
    class Interruption(Exception):
        pass

    def stop(entry: dict[str, Any]) -> None:
        reports.append(entry)
        if entry["step"] >= 12:  # 96 rows to learn from are 6 updates a pass
            raise Interruption

    def backbone(directory: str) -> dict[str, Any]:
        return {n: t for n, t in load_file(f"{directory}/model.safetensors").items() if n.startswith("model.")}

    machine = MACHINE.model_copy(update={"zero_stage": zero_stage})
    two = {"head_epochs": 2, "head_lr": 3e-2, "weight_decay": 0.1, "epochs": 2, "calibration": "none"}
    chosen = config(**two).model_copy(update={"machine": machine})
    reports: list[dict[str, Any]] = []
    with pytest.raises(Interruption):
        train(chosen, rows(120), model, tmp_path, report=stop)
    given, alone = backbone(model), backbone(str(tmp_path / "best"))
    assert given and all(torch.equal(given[name], alone[name]) for name in given)
    assert reports[-1]["train_loss"] < reports[0]["train_loss"]
    train(chosen, rows(120), model, tmp_path, report=reports.append)
    assert reports[-1]["step"] == 24
    assert reports[-1]["loss"] < reports[1]["loss"]
    together = backbone(str(tmp_path / "best"))
    assert any(not torch.equal(given[name], together[name]) for name in given)
    with pytest.raises(ValueError, match="train a head, and kind 'implicit' has none"):
        config(kind="implicit", head_epochs=1)


def test_an_interrupted_training_ends_as_an_unbroken_one(rank_environment: Path, model: str, tmp_path: Path) -> None:
    class Interruption(Exception):
        pass

    def stop(entry: dict[str, Any]) -> None:
        if entry["step"] >= 16:
            raise Interruption

    data = rows(120)
    with pytest.raises(Interruption):
        train(config(), data, model, tmp_path / "a", report=stop)
    train(config(), data, model, tmp_path / "a", report=lambda entry: None)
    train(config(), data, model, tmp_path / "b", report=lambda entry: None)
    first, second = (json.loads((tmp_path / name / "train.json").read_text()) for name in "ab")
    assert first["evaluations"] == second["evaluations"] and first["done"]
    with pytest.raises(ValueError, match="other settings"):
        train(config(lr=1e-3), data, model, tmp_path / "b", report=lambda entry: None)


def test_training_stops_when_nothing_gets_better(rank_environment: Path, model: str, tmp_path: Path) -> None:
    reports: list[dict[str, Any]] = []
    settings = config(lr=1.0, epochs=8, evaluations=16, patience=2)
    Training(settings, rows(80), model, tmp_path, Place(), report=reports.append).run()
    losses = [entry["loss"] for entry in reports]
    assert len(losses) < 16 and min(losses) < min(losses[-2:])
    assert [entry["best"] for entry in reports[-2:]] == [False, False]


def test_labels_that_do_not_fit_are_refused(rank_environment: Path, model: str, tmp_path: Path) -> None:
    values = [StepRow(id=str(i), question=f"{i}=", steps=("1",), labels=(0.5,), kind="value") for i in range(20)]
    with pytest.raises(ValueError, match="cannot be trained on as 'hard'"):
        train(config(), values, model, tmp_path / "value", report=lambda entry: None)
    with pytest.raises(ValueError, match="no training row has anything to learn for kind 'implicit'"):
        train(config(kind="implicit"), values, model, tmp_path / "none", report=lambda entry: None)
    with pytest.raises(ValueError, match="is no token of the model"):
        train(config(separator="<nothing>"), rows(20), model, tmp_path / "sep", report=lambda entry: None)
