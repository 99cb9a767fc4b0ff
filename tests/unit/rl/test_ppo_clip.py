"""The clipped policy loss and the averages against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from rl.losses.aggregation import normalize
from rl.losses.config import Aggregation, DrGrpo, PpoClip, SequenceMean, TokenMean
from rl.losses.objective import Objective
from tests.fakes.losses import loss_inputs, one_row, one_row_gradient


# log-ratios .3, -.1, .05 have ratios 1.349859, .904837, 1.051271; with bounds .8 and 1.28 only the first is clipped.
@pytest.mark.parametrize(("advantage", "expected"), [(1.0, -1.078703), (-1.0, 1.101989)])
def test_worked_row(advantage: float, expected: float) -> None:
    assert one_row(PpoClip(), [0.3, -0.1, 0.05], advantage).loss.item() == pytest.approx(expected, abs=1e-6)


def test_clipping_cuts_the_gradient_only_on_the_side_that_would_go_further() -> None:
    output, gradient = one_row_gradient(PpoClip(), [0.3, -0.3, 0.0], 1.0)
    assert gradient == pytest.approx([0.0, -math.exp(-0.3) / 3, -1.0 / 3], abs=1e-6)
    assert output.sums["loss/clip_high"].item() == 1 and output.sums["loss/clip_low"].item() == 0

    output, gradient = one_row_gradient(PpoClip(), [0.3, -0.3, 0.0], -1.0)
    assert gradient == pytest.approx([math.exp(0.3) / 3, 0.0, 1.0 / 3], abs=1e-6)
    assert output.sums["loss/clip_high"].item() == 0 and output.sums["loss/clip_low"].item() == 1


def test_dual_clip_bounds_the_loss_of_a_bad_token_that_became_likely() -> None:
    log_six, dual = math.log(6.0), PpoClip(dual_clip=3.0)
    assert one_row(PpoClip(), [log_six], -1.0).loss.item() == pytest.approx(6.0, rel=1e-6)
    output, gradient = one_row_gradient(dual, [log_six], -1.0)
    assert output.loss.item() == pytest.approx(3.0) and gradient == [0.0]
    assert output.sums["loss/dual_clip"].item() == 1
    assert one_row(dual, [log_six], 1.0).loss.item() == pytest.approx(-1.28)


def test_the_anchor_and_the_sampler_carry_no_gradient() -> None:
    inputs = loss_inputs(PpoClip(), anchor=[[-0.5]], log_ratios=[[0.1]], advantages=[[1.0]])
    inputs.anchor_logprobs.requires_grad_()
    inputs.sampler_logprobs.requires_grad_()
    Objective(PpoClip())(inputs).loss.backward()
    assert inputs.anchor_logprobs.grad is None and inputs.sampler_logprobs.grad is None


# Rows of 2 (advantage +1) and 4 tokens (advantage -1), ratios 1.
@pytest.mark.parametrize(
    ("aggregation", "expected", "gradients"),
    [
        (TokenMean(), 1 / 3, (1 / 6, 1 / 6)),
        (SequenceMean(), 0.0, (1 / 4, 1 / 8)),
        (DrGrpo(length=8), 0.125, (1 / 16, 1 / 16)),
    ],
)
def test_worked_aggregation(aggregation: Aggregation, expected: float, gradients: tuple[float, float]) -> None:
    config = PpoClip(aggregation=aggregation)
    zeros, ones = [[0.0] * 2, [0.0] * 4], [[1.0] * 2, [-1.0] * 4]
    inputs = loss_inputs(config, anchor=zeros, log_ratios=zeros, advantages=ones)
    loss = Objective(config)(inputs).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    gradient = inputs.learner_logprobs.grad
    assert gradient is not None
    assert gradient[0].tolist() == pytest.approx([-gradients[0], -gradients[0], 0.0, 0.0])
    assert gradient[1].tolist() == pytest.approx([gradients[1]] * 4)


@pytest.mark.parametrize("counts", [[], [3, 0]])
def test_aggregation_refuses_samples_without_loss_tokens(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one loss token"):
        normalize(TokenMean(), np.asarray(counts, dtype=np.int64))


def test_a_micro_batch_without_loss_tokens_adds_nothing() -> None:
    inputs = loss_inputs(PpoClip(), anchor=[[-0.5]], log_ratios=[[0.1]], advantages=[[1.0]])
    learner = torch.zeros(1, 3, requires_grad=True)
    options = {name: torch.zeros(1, 3) for name in ("anchor_logprobs", "sampler_logprobs", "advantages", "weights")}
    empty = type(inputs)(
        learner_logprobs=learner,
        mask=torch.zeros(1, 3, dtype=torch.bool),
        segments=torch.full((1, 3), -1, dtype=torch.int32),
        num_sequences=0,
        normalizer=5.0,
        num_loss_tokens=5,
        entropies=torch.zeros(1, 3),
        **options,
    )
    output = Objective(PpoClip())(empty)
    output.loss.backward()
    assert output.loss.item() == 0.0 and learner.grad is not None and not learner.grad.any()
    assert all(value.item() == 0.0 for value in (*output.sums.values(), *output.maxima.values()))
