"""The clipped policy loss against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from rl.losses.aggregation import normalize
from rl.losses.config import Aggregation, DrGrpo, PpoClip, SequenceMean, TokenMean
from rl.losses.contract import LossInputs, LossOutput
from rl.losses.ppo_clip import ppo_clip


def run(
    log_ratios: list[float],
    advantage: float,
    *,
    mask: list[bool] | None = None,
    sampler: list[float] | None = None,
    **options: object,
) -> tuple[LossOutput, torch.Tensor]:
    """One row, token mean; returns the output and the learner's log-probabilities, a leaf."""
    anchor = torch.tensor([[-0.5, -1.0, -0.2, -0.7][: len(log_ratios)]])
    learner = (anchor + torch.tensor([log_ratios])).requires_grad_()
    masked = torch.tensor([mask or [True] * len(log_ratios)])
    inputs = LossInputs(
        learner_logprobs=learner,
        anchor_logprobs=anchor,
        sampler_logprobs=anchor if sampler is None else torch.tensor([sampler]),
        advantages=torch.full_like(anchor, advantage),
        mask=masked,
        weights=torch.ones_like(anchor),
        normalizer=float(masked.sum()),
        segments=torch.zeros_like(masked, dtype=torch.int32),
        num_sequences=1,
    )
    return ppo_clip(PpoClip(**options), inputs), learner


# log-ratios .3, -.1, .05 have ratios 1.349859, .904837, 1.051271; with bounds .8 and 1.28 only the first is clipped.
@pytest.mark.parametrize(("advantage", "expected"), [(1.0, -1.078703), (-1.0, 1.101989)])
def test_worked_row(advantage: float, expected: float) -> None:
    output, _ = run([0.3, -0.1, 0.05], advantage)
    assert output.loss.item() == pytest.approx(expected, abs=1e-6)


def test_clipping_cuts_the_gradient_only_on_the_side_that_would_go_further() -> None:
    output, learner = run([0.3, -0.3, 0.0], 1.0)
    output.loss.backward()
    expected = [0.0, -math.exp(-0.3) / 3, -1.0 / 3]
    assert learner.grad is not None and learner.grad[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert output.sums["loss/clip_high"].item() == 1 and output.sums["loss/clip_low"].item() == 0

    output, learner = run([0.3, -0.3, 0.0], -1.0)
    output.loss.backward()
    assert learner.grad is not None
    assert learner.grad[0].tolist() == pytest.approx([math.exp(0.3) / 3, 0.0, 1.0 / 3], abs=1e-6)
    assert output.sums["loss/clip_high"].item() == 0 and output.sums["loss/clip_low"].item() == 1


def test_dual_clip_bounds_the_loss_of_a_bad_token_that_became_likely() -> None:
    log_six = math.log(6.0)
    assert run([log_six], -1.0)[0].loss.item() == pytest.approx(6.0, rel=1e-6)
    output, learner = run([log_six], -1.0, dual_clip=3.0)
    assert output.loss.item() == pytest.approx(3.0)
    output.loss.backward()
    assert learner.grad is not None and learner.grad.item() == 0.0
    assert output.sums["loss/dual_clip"].item() == 1
    assert run([log_six], 1.0, dual_clip=3.0)[0].loss.item() == pytest.approx(-1.28)


def test_on_policy_the_gradient_is_minus_advantage() -> None:
    output, learner = run([0.0, 0.0, 0.0, 0.0], 0.7)
    output.loss.backward()
    assert learner.grad is not None and learner.grad[0].tolist() == pytest.approx([-0.7 / 4] * 4)


def test_nan_in_a_masked_token_changes_nothing() -> None:
    nan = float("nan")
    output, learner = run([0.3, nan, 0.05], 1.0, mask=[True, False, True], sampler=[-0.5, nan, -0.2])
    clean, clean_learner = run([0.3, 0.0, 0.05], 1.0, mask=[True, False, True])
    output.loss.backward()
    clean.loss.backward()
    assert output.loss.item() == clean.loss.item()
    assert learner.grad is not None and torch.equal(learner.grad, clean_learner.grad)
    assert all(torch.equal(output.sums[k], clean.sums[k]) for k in clean.sums)


def test_the_anchor_carries_no_gradient() -> None:
    _, learner = run([0.1], 1.0)
    anchor = (learner.detach() - 0.1).requires_grad_()
    ones = torch.ones(1, 1)
    inputs = LossInputs(
        learner_logprobs=learner,
        anchor_logprobs=anchor,
        sampler_logprobs=anchor.detach(),
        advantages=ones,
        mask=ones.bool(),
        weights=ones,
        normalizer=1.0,
        segments=ones.int() - 1,
        num_sequences=1,
    )
    ppo_clip(PpoClip(), inputs).loss.backward()
    assert anchor.grad is None and learner.grad is not None


def test_mismatch_compares_the_anchor_with_the_sampler() -> None:
    output, _ = run([0.2, 0.2], 1.0, sampler=[-0.6, -0.8])  # anchor minus sampler: +.1, -.2
    assert output.sums["mismatch/k1"].item() == pytest.approx(0.1, abs=1e-6)
    expected = (math.exp(0.1) - 1 - 0.1) + (math.exp(-0.2) - 1 + 0.2)
    assert output.sums["mismatch/k3"].item() == pytest.approx(expected, abs=1e-6)
    assert output.maxima["mismatch/max_abs"].item() == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize(
    ("aggregation", "expected", "gradients"),
    [
        (TokenMean(), 1 / 3, (1 / 6, 1 / 6)),
        (SequenceMean(), 0.0, (1 / 4, 1 / 8)),
        (DrGrpo(length=8), 0.125, (1 / 16, 1 / 16)),
    ],
)
def test_worked_aggregation(aggregation: Aggregation, expected: float, gradients: tuple[float, float]) -> None:
    """Rows of 2 (advantage +1) and 4 tokens (advantage -1), ratios 1."""
    weights, normalizer = normalize(aggregation, np.asarray([2, 4]))
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    learner = torch.zeros(2, 4, requires_grad=True)
    inputs = LossInputs(
        learner_logprobs=learner,
        anchor_logprobs=torch.zeros(2, 4),
        sampler_logprobs=torch.zeros(2, 4),
        advantages=torch.tensor([[1.0], [-1.0]]).expand(2, 4),
        mask=mask,
        weights=torch.tensor(weights)[:, None].expand(2, 4),
        normalizer=normalizer,
        segments=torch.tensor([[0], [1]], dtype=torch.int32).expand(2, 4),
        num_sequences=2,
    )
    loss = ppo_clip(PpoClip(), inputs).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert learner.grad is not None
    assert learner.grad[0].tolist() == pytest.approx([-gradients[0], -gradients[0], 0.0, 0.0])
    assert learner.grad[1].tolist() == pytest.approx([gradients[1]] * 4)


@pytest.mark.parametrize("counts", [[], [3, 0]])
def test_aggregation_refuses_samples_without_loss_tokens(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one loss token"):
        normalize(TokenMean(), np.asarray(counts, dtype=np.int64))
