"""The unified estimator has the gradients of the methods it claims to hold, and streams do not leak into each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rl.batch import Stream
from rl.losses.aggregation import normalize
from rl.losses.config import Cispo, Gspo, LossConfig, PpoClip, SequenceMean, TokenMean, Unified
from rl.losses.contract import LossInputs
from rl.losses.estimator_config import Estimator, Mask, StreamEstimators
from rl.losses.objective import Objective
from rl.losses.summary import summarize
from rl.packing import pack, weigh
from tests.fakes.learner import training_sample
from tests.fakes.losses import loss_inputs

ANCHOR = [[-0.5, -1.0, -0.2], [-0.7, -0.1]]
MOVED = [[0.3, -0.1, 0.05], [-0.3, 0.4]]
ADVANTAGES = [[1.0, 1.0, 1.0], [-1.0, -1.0]]


def gradient(config: LossConfig, streams: list[Stream] | None = None, **options: object) -> list[float]:
    inputs = loss_inputs(config, anchor=ANCHOR, log_ratios=MOVED, advantages=ADVANTAGES)
    if streams is not None:
        per_row = torch.tensor(streams, dtype=torch.int8)[:, None].expand(2, 3)
        inputs = replace(inputs, streams=per_row)
    Objective(config, **options)(inputs).loss.backward()  # type: ignore[arg-type]
    found = inputs.learner_logprobs.grad
    assert found is not None
    return found[inputs.mask].tolist()


@pytest.mark.parametrize(
    ("known", "estimator"),
    [
        (PpoClip(), Estimator(mask=Mask(clip_low=0.2, clip_high=0.28), denominator="anchor")),
        (Cispo(max_ratio=1.2), Estimator(denominator="anchor", max_weight=1.2)),
        (Gspo(clip_low=0.9, clip_high=9.0), Estimator(denominator="sequence")),
    ],
    ids=["ppo", "cispo", "gspo"],
)
def test_it_has_the_gradient_of_the_known_losses(known: LossConfig, estimator: Estimator) -> None:
    own = Unified(estimator=estimator, aggregation=known.aggregation)
    assert gradient(own) == pytest.approx(gradient(known), abs=1e-6)


def test_sft_is_the_cross_entropy() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 7, requires_grad=True)
    targets = torch.tensor([1, 5, 0, 3])
    torch.nn.functional.cross_entropy(logits, targets).backward()
    expected = logits.grad.clone()  # type: ignore[union-attr]
    logits.grad = None
    logprobs = logits.log_softmax(-1).gather(1, targets[:, None]).T  # [1, 4]
    inputs = sft_inputs(logprobs)
    Objective(PpoClip())(inputs).loss.backward()
    assert torch.allclose(logits.grad, expected, atol=1e-6)  # type: ignore[arg-type]


def sft_inputs(logprobs: torch.Tensor) -> LossInputs:
    """One demonstration with advantage 1, whatever the anchor and the sampler say."""
    ones = torch.ones_like(logprobs)
    return LossInputs(
        learner_logprobs=logprobs,
        anchor_logprobs=-3.0 * ones,
        sampler_logprobs=torch.zeros_like(ones),
        advantages=ones,
        mask=ones.bool(),
        weights=ones / ones.numel(),
        normalizer=1.0,
        num_loss_tokens=ones.numel(),
        segments=torch.zeros_like(ones, dtype=torch.int32),
        num_sequences=1,
        streams=torch.full_like(ones, Stream.DEMONSTRATION, dtype=torch.int8),
    )


@pytest.mark.parametrize(("probability", "weight"), [(0.01, 0.083), (0.1, 0.25), (0.5, 0.139), (0.9, 0.09)])
def test_luffys_shaping(probability: float, weight: float) -> None:
    """f'(p) p of f(p) = p / (p + 0.1): the worked table."""
    estimators = StreamEstimators(demonstration=Estimator(denominator="one", likelihood="shaped"))
    logprobs = torch.full((1, 1), float(np.log(probability)), requires_grad=True)
    Objective(PpoClip(), streams=estimators)(sft_inputs(logprobs)).loss.backward()
    assert float(logprobs.grad) == pytest.approx(-weight, abs=6e-4)  # type: ignore[arg-type]


def test_rules_of_the_mask() -> None:
    """Token ratios anchor / sampler .4, 1, 6: the band keeps the middle; the drift of the row is above .2."""
    rho = [np.log(0.4), 0.0, np.log(6.0)]
    sampler = [[a - r for a, r in zip(ANCHOR[0], rho, strict=True)], ANCHOR[1]]
    for mask, kept in (
        (Mask(band_low=0.5, band_high=5.0), [0, 1, 0]),
        (Mask(drift=0.2), [0, 0, 0]),
        (Mask(), [1, 1, 1]),
    ):
        config = Unified(estimator=Estimator(mask=mask))
        inputs = loss_inputs(config, anchor=ANCHOR, log_ratios=MOVED, advantages=ADVANTAGES, sampler=sampler)
        Objective(config)(inputs).loss.backward()
        found = inputs.learner_logprobs.grad
        assert found is not None and (found[0] != 0).int().tolist() == kept
        assert (found[1][:2] != 0).all()


def test_a_replayed_bad_answer_weighs_at_most_one() -> None:
    """learner / sampler is e there; the weight of the bad row is 1, that of the good one e."""
    estimator = Estimator(denominator="sampler", max_negative_weight=1.0)
    config = Unified(estimator=estimator)
    sampler = [[a + d - 1.0 for a, d in zip(row, moved, strict=True)] for row, moved in zip(ANCHOR, MOVED, strict=True)]
    inputs = loss_inputs(config, anchor=ANCHOR, log_ratios=MOVED, advantages=ADVANTAGES, sampler=sampler)
    Objective(config)(inputs).loss.backward()
    found = inputs.learner_logprobs.grad
    assert found is not None
    assert (found[inputs.mask] * 5).tolist() == pytest.approx([-np.e] * 3 + [1.0] * 2, rel=1e-5)


def test_streams_do_not_leak_into_each_other() -> None:
    """The fresh row has the gradient it has among fresh ones, and its metrics are means over its own tokens."""
    both = gradient(PpoClip(), [Stream.FRESH, Stream.REPLAY])
    alone = gradient(PpoClip(), [Stream.FRESH, Stream.FRESH])
    assert both[:3] == pytest.approx(alone[:3])
    inputs = loss_inputs(PpoClip(), anchor=ANCHOR, log_ratios=MOVED, advantages=ADVANTAGES)
    streams = torch.tensor([Stream.FRESH, Stream.TEXT], dtype=torch.int8)[:, None].expand(2, 3)
    sums = Objective(PpoClip())(replace(inputs, streams=streams)).sums
    found = summarize({name: float(value) / 5 for name, value in sums.items()})
    assert found["loss/clip_high"] == pytest.approx(1 / 3)  # of 3 fresh tokens
    assert found["stream/text/share"] == pytest.approx(2 / 5)
    assert found["stream/text/nll"] == pytest.approx(-np.mean([-0.7 - 0.3, -0.1 + 0.4]))
    assert "stream/replay/nll" not in found


def test_each_teacher_is_a_mean_of_its_own() -> None:
    """Fresh 10 tokens, replay 5, demonstrations 4 and 6, text 100: weights times 1 / normalizer sum to 1 a teacher."""
    counts = np.array([10, 5, 4, 6, 100])
    streams = np.array([0, 1, 2, 2, 3], dtype=np.int8)
    for aggregation in (TokenMean(), SequenceMean()):
        weights, normalizer = weigh(aggregation, counts, streams)
        shares = weights * counts / normalizer
        expected, n = normalize(aggregation, counts[:2])
        assert normalizer == n and weights[:2].tolist() == expected.tolist()
        assert shares[2:4].sum() == pytest.approx(1.0) and shares[4] == pytest.approx(1.0)
    weights, normalizer = weigh(TokenMean(), counts[2:4], streams[2:4])  # nothing but demonstrations
    assert (weights * counts[2:4] / normalizer).sum() == pytest.approx(1.0)


def test_packing_carries_the_streams() -> None:
    samples = [replace(training_sample(i, length=8), stream=s) for i, s in enumerate((Stream.FRESH, Stream.TEXT))]
    settings = {"aggregation": TokenMean(), "num_ranks": 1, "num_optimizer_steps": 1, "micro_batch_tokens": 64}
    batch = pack(samples, layout="buckets", **settings).steps[0].ranks[0][0]  # type: ignore[arg-type]
    assert batch.streams is not None and batch.streams[:, 0].tolist() == [0, 3]
    assert pack(samples[:1], layout="buckets", **settings).steps[0].ranks[0][0].streams is None  # type: ignore[arg-type]


def test_a_teacher_has_no_sampler_to_compare_with() -> None:
    with pytest.raises(ValidationError, match="there is no sampler to compare with"):
        StreamEstimators(demonstration=Estimator(denominator="sampler"))
    with pytest.raises(ValidationError, match="must be below band_high"):
        Mask(band_low=5.0, band_high=0.5)
