"""A micro-batch on the device: sequences numbered from 0, and the sample that holds a bad value named."""

import dataclasses

import numpy as np
import pytest
import torch

from rl.learner.micro_batch import DeviceBatch, to_device
from rl.losses.config import TokenMean
from rl.packing import PADDING, MicroBatch, pack
from tests.fakes.learner import training_sample


def micro_batches(*, with_reference: bool = False) -> list[MicroBatch]:
    samples = [training_sample(i, length=8 + 2 * i) for i in range(6)]
    if with_reference:
        samples = [dataclasses.replace(s, reference_logprobs=s.sampler_logprobs - 1) for s in samples]
    batch = pack(
        samples,
        aggregation=TokenMean(),
        num_ranks=1,
        num_optimizer_steps=1,
        micro_batch_tokens=36,
        layout="packed",
        row_tokens=36,
    )
    return list(batch.steps[0].ranks[0])


def on_cpu(micro_batch: MicroBatch) -> DeviceBatch:
    return to_device(micro_batch, torch.device("cpu"), varlen=False)


def test_sequences_are_numbered_from_zero_in_every_micro_batch() -> None:
    found = []
    for m in micro_batches():
        device = on_cpu(m)
        assert device.sequences[device.loss_mask].unique().tolist() == list(range(device.num_sequences))
        assert (device.sequences[~device.loss_mask] == PADDING).all()
        pairs = {
            (a, b) for a, b in zip(m.segments[m.loss_mask], device.sequences[device.loss_mask].tolist(), strict=True)
        }
        assert len(pairs) == device.num_sequences  # one number a sample
        found.append(device.num_sequences)
    assert len(found) > 1 and sum(found) == 6


def test_a_micro_batch_without_loss_tokens_has_no_sequence() -> None:
    empty = dataclasses.replace(micro_batches()[0], loss_mask=np.zeros_like(micro_batches()[0].loss_mask))
    assert on_cpu(empty).num_sequences == 0


@pytest.mark.parametrize("field", ["advantages", "sampler_logprobs", "reference_logprobs"])
def test_the_sample_with_a_bad_value_is_named(field: str) -> None:
    m = micro_batches(with_reference=True)[0]
    at = tuple(np.argwhere(m.loss_mask)[0])
    values = getattr(m, field).copy()
    values[at] = np.nan
    device = on_cpu(dataclasses.replace(m, **{field: values}))
    assert device.non_finite(torch.zeros(m.segments.shape)) == [m.segments[at]]
