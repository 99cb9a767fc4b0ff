"""What must hold for every loss, whatever its formula."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rl.losses.config import LossConfig
from rl.losses.contract import LossInputs
from rl.losses.objective import Objective
from rl.losses.registry import LOSSES
from tests.fakes.losses import loss_inputs

CONFIG: TypeAdapter[Any] = TypeAdapter(LossConfig)
PLAIN = [CONFIG.validate_python({"type": name}) for name in sorted(LOSSES)]
K3 = {"estimator": "k3", "placement": "loss", "coefficient": 0.1}
DRESSED = [
    CONFIG.validate_python(mapping)
    for mapping in (
        {"type": "gspo", "token": True, "correction": {"type": "icepop"}},
        {"type": "gspo", "correction": {"type": "sequence_tis"}},
        {"type": "rloo", "correction": {"type": "geometric_mask"}},
        {"type": "ppo_clip", "dual_clip": 3.0, "correction": {"type": "k3_mask", "high": 0.05}, "kl": K3},
        {"type": "ppo_clip", "anchor": "sampler", "kl": {**K3, "unbiased": True}},
        {"type": "cispo", "correction": {"type": "token_tis"}, "aggregation": {"type": "dr_grpo", "length": 9}},
        {"type": "sapo", "entropy": {"type": "bonus", "coefficient": 0.1}, "aggregation": {"type": "token_mean"}},
        {"type": "ppo_clip", "entropy": {"type": "top_fraction", "fraction": 0.5}},
        {"type": "ppo_clip", "covariance": {"type": "kl_cov", "fraction": 0.3}},
    )
]
LENGTHS = (3, 1, 6, 4)


def name(config: Any) -> str:
    return "-".join(str(part) for part in config.model_dump(exclude_defaults=True, mode="json").values()) or config.type


def random_inputs(config: Any, *, seed: int = 0, on_policy: bool = False, **options: Any) -> LossInputs:
    """Four sequences of mixed lengths with everything a loss may ask for; padding is NaN."""
    g = torch.Generator().manual_seed(seed)

    def rows(scale: float, shift: float = 0.0) -> list[list[float]]:
        return [(shift + scale * torch.randn(n, generator=g)).tolist() for n in LENGTHS]

    anchor = rows(0.3, -1.5)
    per_sequence = torch.randn(len(LENGTHS), generator=g).tolist()
    advantages = [[a] * n for a, n in zip(per_sequence, LENGTHS, strict=True)]
    log_ratios = [[0.0] * n for n in LENGTHS] if on_policy else rows(0.2)
    noise = rows(0.1)
    sampler = [[a + e for a, e in zip(x, y, strict=True)] for x, y in zip(anchor, noise, strict=True)]
    selected = [[v > 0 for v in row] for row in rows(1.0)] if Objective(config).needs_selection else None
    width = options.get("width", max(LENGTHS))
    entropies = torch.full((len(LENGTHS), width), 0.3, requires_grad=True)
    given_rows = {"advantages": advantages, "sampler": anchor if on_policy else sampler, "reference": rows(0.3, -1.5)}
    return loss_inputs(
        config, anchor=anchor, log_ratios=log_ratios, selected=selected, entropies=entropies, **given_rows, **options
    )


def gradient(config: Any, *parts: LossInputs) -> tuple[float, list[torch.Tensor]]:
    """Loss summed over micro-batches, and each one's gradient for the learner's log-probabilities."""
    total, found = 0.0, []
    for inputs in parts:
        learner = inputs.learner_logprobs.detach().requires_grad_()
        loss = Objective(config)(dataclasses.replace(inputs, learner_logprobs=learner)).loss
        loss.backward()
        assert learner.grad is not None
        total += loss.item()
        found.append(learner.grad)
    return total, found


def take(inputs: LossInputs, rows: list[int]) -> LossInputs:
    """Those rows as a micro-batch of their own, sequences numbered anew."""
    fields = {
        field.name: getattr(inputs, field.name)[rows]
        for field in dataclasses.fields(inputs)
        if isinstance(getattr(inputs, field.name), torch.Tensor)
    }
    segments = torch.arange(len(rows), dtype=torch.int32)[:, None].expand(len(rows), inputs.mask.shape[1])
    return dataclasses.replace(inputs, **(fields | {"segments": segments, "num_sequences": len(rows)}))


@pytest.mark.parametrize("config", PLAIN, ids=name)
def test_on_policy_the_gradient_is_minus_advantage(config: Any) -> None:
    """At ratio 1 every loss is the policy gradient, -A grad log p, under its own average."""
    inputs = random_inputs(config, on_policy=True)
    _, (found,) = gradient(config, inputs)
    expected = torch.where(inputs.mask, -inputs.advantages * inputs.weights / inputs.normalizer, 0.0)
    if config.type == "rloo":  # the ratio is the product over the sequence, so each token gets the whole of it
        expected = expected * torch.tensor(LENGTHS)[:, None]
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("config", PLAIN, ids=name)
def test_without_advantage_there_is_no_gradient(config: Any) -> None:
    inputs = random_inputs(config, on_policy=config.type == "dro")  # its pull to the anchor is meant to stay
    zero = dataclasses.replace(inputs, advantages=torch.zeros_like(inputs.advantages))
    _, (found,) = gradient(config, zero)
    assert not found.any()


@pytest.mark.parametrize("config", [c for c in PLAIN if c.type != "dro"], ids=name)
def test_scaling_the_advantages_scales_the_gradient(config: Any) -> None:
    inputs = random_inputs(config)
    _, (once,) = gradient(config, inputs)
    _, (thrice,) = gradient(config, dataclasses.replace(inputs, advantages=3 * inputs.advantages))
    assert torch.allclose(3 * once, thrice, atol=1e-6)


@pytest.mark.parametrize("config", PLAIN + DRESSED, ids=name)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(len(LENGTHS))), cut=st.integers(1, 3))
def test_order_and_cut_do_not_matter(config: Any, seed: int, order: list[int], cut: int) -> None:
    whole = random_inputs(config, seed=seed)
    loss, (found,) = gradient(config, whole)
    parts = [take(whole, list(order[:cut])), take(whole, list(order[cut:]))]
    other_loss, others = gradient(config, *parts)
    assert other_loss == pytest.approx(loss, abs=1e-6)
    assert torch.allclose(torch.cat(others), found[list(order)], atol=1e-6)


@pytest.mark.parametrize("config", PLAIN + DRESSED, ids=name)
def test_padding_has_no_effect_whatever_it_holds(config: Any) -> None:
    loss, (found,) = gradient(config, random_inputs(config))
    for padding, width in ((0.0, 6), (float("inf"), 6), (float("nan"), 11)):
        other_loss, (other,) = gradient(config, random_inputs(config, padding=padding, width=width))
        assert other_loss == loss and torch.equal(other[:, :6], found) and not other[:, 6:].any()
        assert torch.isfinite(other).all()


def test_cispo_keeps_the_gradient_that_ppo_cuts() -> None:
    rows = {"anchor": [[-1.0]], "log_ratios": [[0.5]], "advantages": [[1.0]]}  # ratio 1.65, beyond both bounds
    for kind, options, expected in (("cispo", {"max_ratio": 1.28}, -1.28), ("ppo_clip", {}, 0.0)):
        config = CONFIG.validate_python({"type": kind, **options})
        _, (found,) = gradient(config, loss_inputs(config, **rows))
        assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "config",
    [CONFIG.validate_python({"type": t}) for t in ("decoupled", "topr")] + DRESSED[:2] + DRESSED[4:6],
    ids=name,
)
def test_the_sampler_changes_values_and_carries_no_gradient(config: Any) -> None:
    inputs = random_inputs(config)
    sampler = (inputs.sampler_logprobs + 0.03).requires_grad_()
    changed = dataclasses.replace(inputs, sampler_logprobs=sampler)
    assert gradient(config, changed)[0] != pytest.approx(gradient(config, inputs)[0], rel=1e-4)
    assert sampler.grad is None
