"""Preference optimization on a tiny model, with TRL's own trainer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rl.preference.config import PreferenceConfig
from rl.preference.dpo import run_dpo
from rl.preference.pairs import Pair
from tests.tiny_model import build_tiny_model

CONFIG = PreferenceConfig(num_steps=12, batch_size=4, lr=1e-3, num_threads=1, report_every=4)


def pairs(count: int = 8) -> list[Pair]:
    return [
        Pair(task_key=str(n), prompt=(70 + n, 71, 72), chosen=(80, 81, 82, 83), rejected=(90, 91, 92))
        for n in range(count)
    ]


def test_pairs_move_the_model_towards_the_chosen(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", tied=True)
    told: list[tuple[int, float]] = []
    found = run_dpo(CONFIG, pairs(), str(model), str(tmp_path / "out"), seed=0, progress=told.append)
    assert found.first_loss == pytest.approx(math.log(2), abs=1e-4)  # policy and reference are still one model
    assert found.final_loss < 0.5 and found.final_accuracy == 1.0 and found.final_margin > 0.5
    assert [step for step, _ in told] == [1, 4, 8, 12]
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"


def test_the_order_and_the_result_follow_the_seed(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", tied=False)
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        run_dpo(CONFIG, pairs(), str(model), str(out), seed=3, progress=lambda _: None)
    assert (outs[0] / "model.safetensors").read_bytes() == (outs[1] / "model.safetensors").read_bytes()


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", tied=False)
    with pytest.raises(ValueError, match="got no pairs"):
        run_dpo(CONFIG, [], str(model), str(tmp_path / "out"), seed=0, progress=lambda _: None)
    foreign = Pair(task_key="x", prompt=(1,), chosen=(99_999,), rejected=(2,))
    with pytest.raises(ValueError, match="a pair of task x has token ids from 1 to 99999"):
        run_dpo(CONFIG, [foreign], str(model), str(tmp_path / "out"), seed=0, progress=lambda _: None)
