"""Worked numbers of the diagnostics inside the model, and when they are measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.batch import TrainingSample
from rl.diagnostics.alpha_req import alpha_req
from rl.diagnostics.config import DiagnosticsConfig
from rl.diagnostics.covariance_rank import covariance_eigenvalues, covariance_rank
from rl.diagnostics.geometry import geometry, last_states
from rl.diagnostics.gradient_probe import attention_matrices, probe_gradients
from rl.diagnostics.layer_gradients import gradient_shape, mean_absolute_difference
from rl.diagnostics.rankme import rankme
from rl.diagnostics.schedule import Diagnostics, spread_out
from rl.driver import train
from rl.metrics import read_metrics
from tests.fakes.learner import training_sample
from tests.fakes.loop import make_world, play


def states(rows: int, width: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ geometry


def test_rankme_and_the_rank_of_the_covariance_are_different_numbers() -> None:
    sigma = torch.tensor([4.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    assert rankme(torch.diag(sigma)) == pytest.approx(3.3636, abs=5e-5)
    assert covariance_rank(sigma**2) == pytest.approx(2.2763, abs=5e-5)


def test_the_identity_uses_every_direction_and_one_direction_is_one() -> None:
    assert rankme(torch.eye(16)) == pytest.approx(16.0, rel=1e-4)
    line = torch.outer(torch.arange(1.0, 9.0, dtype=torch.float64), torch.ones(5, dtype=torch.float64))
    assert rankme(line) == pytest.approx(1.0, abs=1e-4)
    assert covariance_rank(covariance_eigenvalues(line)) == pytest.approx(1.0, abs=1e-9)


def test_isotropic_noise_fills_the_width() -> None:
    noise = states(4000, 12)
    assert rankme(noise) == pytest.approx(12, rel=0.01)
    assert covariance_rank(covariance_eigenvalues(noise)) == pytest.approx(12, rel=0.01)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0))
def test_rotation_and_scale_change_nothing_and_a_shift_changes_only_rankme(seed: int, scale: float) -> None:
    h = states(30, 6, seed=seed) * torch.arange(1.0, 7.0)
    turned = scale * h @ torch.linalg.qr(states(6, 6, seed=seed + 1))[0]
    assert rankme(turned) == pytest.approx(rankme(h), rel=1e-9)
    rank = covariance_rank(covariance_eigenvalues(h))
    assert covariance_rank(covariance_eigenvalues(turned)) == pytest.approx(rank, rel=1e-9)
    assert covariance_rank(covariance_eigenvalues(h + 50.0)) == pytest.approx(rank, rel=1e-6)
    assert rankme(h + 50.0) < rankme(h) - 0.1


@pytest.mark.parametrize("alpha", [1.0, 1.7, 0.0])
def test_a_power_law_has_its_own_exponent(alpha: float) -> None:
    ranks = torch.arange(1, 121, dtype=torch.float64)
    assert alpha_req(3.0 * ranks**-alpha) == pytest.approx(alpha, abs=1e-9)


def test_alpha_looks_at_ranks_11_to_99_only() -> None:
    spectrum = torch.arange(1, 121, dtype=torch.float64) ** -1.3
    spectrum[:10], spectrum[99:] = 5.0, 1e-9
    assert alpha_req(spectrum) == pytest.approx(1.3, abs=1e-9)


def test_alpha_needs_99_eigenvalues_and_rounding_is_none() -> None:
    with pytest.raises(
        ValueError, match=r"eigenvalues 11 to 99, got 98 above zero: .* at least 99 wide and more than 99"
    ):
        alpha_req(covariance_eigenvalues(states(99, 120)))  # centring takes one direction away
    assert "geometry/alpha_req" not in geometry(states(99, 120))
    assert set(geometry(states(100, 120))) == {"geometry/rankme", "geometry/covariance_rank", "geometry/alpha_req"}


class Causal(torch.nn.Module):  # type: ignore[misc]
    """A backbone whose state at a position is the running sum of the tokens up to it, and their number."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, *, input_ids: torch.Tensor, use_cache: bool) -> Any:
        self.sizes.append(input_ids.numel())
        total = input_ids.double().cumsum(-1)
        count = torch.arange(1, input_ids.shape[1] + 1, dtype=torch.float64).expand_as(total)
        return type("Out", (), {"last_hidden_state": torch.stack([total, count], dim=-1)})()


def test_each_prompt_gives_the_state_of_its_last_token_in_order() -> None:
    backbone = Causal()
    prompts = [[5], [1, 2, 3], [7, 7], [1, 1, 1, 1]]
    found = last_states(backbone, prompts, device=torch.device("cpu"), max_tokens=8)
    assert found.tolist() == [[5, 1], [6, 3], [14, 2], [4, 4]]
    assert max(backbone.sizes) <= 8 and len(backbone.sizes) == 2


# ------------------------------------------------------------------------------------------------ gradients


def test_the_shape_of_a_gradient() -> None:
    shape = gradient_shape(torch.diag(torch.tensor([3.0, 4.0])))
    assert (shape.nuclear, shape.frobenius) == (pytest.approx(7.0), pytest.approx(5.0))
    assert shape.peak == pytest.approx(0.571, abs=5e-4)
    assert mean_absolute_difference([5, 3, 2.5, 2.4]) == pytest.approx(0.8667, abs=5e-5)
    assert mean_absolute_difference([5]) == 0.0


def test_transposing_changes_nothing_and_scaling_leaves_the_peak() -> None:
    g = states(5, 3)
    plain, turned, tripled = gradient_shape(g), gradient_shape(g.T), gradient_shape(3 * g)
    assert turned.nuclear == pytest.approx(plain.nuclear) and turned.peak == pytest.approx(plain.peak)
    assert tripled.nuclear == pytest.approx(3 * plain.nuclear)
    assert tripled.frobenius == pytest.approx(3 * plain.frobenius)
    assert tripled.peak == pytest.approx(plain.peak)


class Layer(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, **projections: torch.Tensor) -> None:
        super().__init__()
        self.self_attn = torch.nn.Module()
        self.mlp = torch.nn.Linear(2, 2)
        for name, weight in projections.items():
            linear = torch.nn.Linear(2, 2, bias=True)
            linear.weight = torch.nn.Parameter(weight)
            setattr(self.self_attn, name, linear)


def model(*layers: dict[str, torch.Tensor]) -> torch.nn.Module:
    made = torch.nn.Module()
    made.layers = torch.nn.ModuleList(Layer(**layer) for layer in layers)
    return made


def test_the_probe_finds_attention_matrices_layer_by_layer_and_leaves_no_gradient() -> None:
    """The gradient of sum(c * W) is c: layer i of the loss has the diagonal (3 i, 4 i), nuclear norm 7 i."""
    eye = torch.eye(2)
    made = model(*({"q_proj": eye * i, "o_proj": eye} for i in (1, 2, 3)))
    matrices = attention_matrices(made)
    assert {name: [m[0, 0].item() for m in row] for name, row in matrices.items()} == {
        "q_proj": [1.0, 2.0, 3.0],
        "o_proj": [1.0, 1.0, 1.0],
    }

    def loss(scale: float) -> torch.Tensor:
        diagonal = torch.diag(torch.tensor([3.0, 4.0]))
        rows = [(i * diagonal * m).sum() for i, m in enumerate(matrices["q_proj"], 1)]
        return scale * (sum(rows) + sum((diagonal * m).sum() for m in matrices["o_proj"]))

    values = probe_gradients(matrices, [(loss(1.0), 0.5), (loss(3.0), -0.5)])
    # Mean over the projections (7 i and 7) and over the samples (once and three times).
    assert values["gradients/nuclear/layer_02"] == pytest.approx((21 + 7) / 2 * 2)
    assert values["gradients/frobenius/layer_00"] == pytest.approx(10.0)
    assert values["gradients/peak/layer_01"] == pytest.approx(4 / 7)
    assert values["gradients/q_proj/mad"] == pytest.approx(14.0) and values["gradients/o_proj/mad"] == 0.0
    assert values["gradients/rejected_over_favoured"] == pytest.approx(3.0)
    assert all(parameter.grad is None for parameter in made.parameters())
    assert "gradients/rejected_over_favoured" not in probe_gradients(matrices, [(loss(1.0), 0.5)])


def test_a_model_without_attention_matrices_is_refused() -> None:
    for made in (torch.nn.Linear(2, 2), model({"q_proj": torch.eye(2)}, {"v_proj": torch.eye(2)})):
        with pytest.raises(
            ValueError, match=r"the same trainable attention matrices in every layer.*gradient_every = 0"
        ):
            attention_matrices(made)


# ------------------------------------------------------------------------------------------------ when


class Looker:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def geometry(self, prompts: Sequence[Sequence[int]]) -> dict[str, float]:
        self.asked.append(("geometry", len(prompts)))
        return {"geometry/rankme": 2.0}

    async def layer_gradients(self, samples: Sequence[TrainingSample]) -> dict[str, float]:
        self.asked.append(("gradients", len(samples)))
        return {"gradients/nuclear/layer_00": 3.0, "gradients/peak/layer_00": math.nan}


def test_diagnostics_are_measured_when_due_and_written_with_the_step(tmp_path: Path) -> None:
    world, looker = make_world(tmp_path, num_steps=4), Looker()
    config = DiagnosticsConfig(geometry_every=3, gradient_every=2, gradient_samples=4)
    world.run.diagnostics = Diagnostics(config, looker, [[1], [2]], waits=world.run.waits)
    play(train(world.run))
    assert looker.asked == [("geometry", 2), ("gradients", 4), ("geometry", 2), ("gradients", 4)]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert {r["step"] for r in rows if "geometry/rankme" in r["metrics"]} == {0, 3}
    assert {r["step"] for r in rows if "gradients/nuclear/layer_00" in r["metrics"]} == {2, 4}
    assert all(("time/diagnose_s" in r["metrics"]) == (r["step"] > 1) for r in rows if r["step"])
    assert (
        json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]["gradients/peak/layer_00"]
        is None
    )


def test_diagnostics_are_off_by_default(tmp_path: Path) -> None:
    world, looker = make_world(tmp_path, num_steps=2), Looker()
    world.run.diagnostics = Diagnostics(DiagnosticsConfig(), looker, [], waits=world.run.waits)
    play(train(world.run))
    assert looker.asked == []
    assert {row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")} == {1, 2}


def test_samples_are_spread_over_the_batch() -> None:
    samples = [training_sample(i, length=5) for i in range(10)]
    assert [s.group_id for s in spread_out(samples, 3)] == ["g0", "g0", "g1"]  # samples 0, 3 and 6
    assert spread_out(samples[:2], 3) == samples[:2]
