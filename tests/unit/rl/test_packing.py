"""Packing: no loss token lost or doubled, padding bounded, order of arrival without effect, and the one shift."""

import dataclasses
import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.batch import TrainingSample
from rl.losses.config import SequenceMean, TokenMean
from rl.packing import PADDING, MicroBatch, PackedBatch, pack
from rollout.schema import PolicySpan
from tests.fakes.learner import training_sample

Layout = Literal["packed", "buckets"]
LIMIT = 64
shapes = st.lists(st.tuples(st.integers(1, LIMIT + 1), st.integers(1, 12)), min_size=1, max_size=40)
layouts = st.sampled_from(["packed", "buckets"])
ranks = st.integers(1, 4)
steps = st.integers(1, 3)


def make(spec: list[tuple[int, int]]) -> list[TrainingSample]:
    """Samples of (length, prompt length); a prompt that fills the sample leaves no loss token."""
    return [training_sample(i, length=length, prompt_len=prompt) for i, (length, prompt) in enumerate(spec)]


def packed(samples: list[TrainingSample], layout: Layout, num_ranks: int = 1, num_steps: int = 1) -> PackedBatch:
    return pack(
        samples,
        aggregation=TokenMean(),
        num_ranks=num_ranks,
        num_optimizer_steps=num_steps,
        micro_batch_tokens=LIMIT,
        layout=layout,
    )


def all_micro_batches(batch: PackedBatch) -> list[MicroBatch]:
    return [m for step in batch.steps for rank in step.ranks for m in rank]


def seen(batch: PackedBatch) -> list[tuple[int, int, int, int, float, float]]:
    """(sample, position, input, target, advantage, sampler log-probability) of every loss token, sorted."""
    found = []
    for m in all_micro_batches(batch):
        for at in zip(*np.nonzero(m.loss_mask), strict=True):
            row = (m.segments, m.position_ids, m.input_ids, m.targets, m.advantages, m.sampler_logprobs)
            found.append(tuple(array[at].item() for array in row))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(shapes, layouts, ranks, steps)
def test_every_loss_token_appears_exactly_once(
    spec: list[tuple[int, int]], layout: Layout, num_ranks: int, num_steps: int
) -> None:
    samples = make(spec)
    expected = sorted(
        (i, t - 1, int(s.token_ids[t - 1]), int(s.token_ids[t]), float(s.advantages[t]), float(s.sampler_logprobs[t]))
        for i, s in enumerate(samples)
        for t in np.flatnonzero(s.loss_mask)
    )
    if not expected:
        with pytest.raises(ValueError, match="at least one loss token"):
            packed(samples, layout, num_ranks, num_steps)
        return
    batch = packed(samples, layout, num_ranks, num_steps)
    assert seen(batch) == expected
    assert sum(step.num_loss_tokens for step in batch.steps) == len(expected)
    for step in batch.steps:
        assert len({len(rank) for rank in step.ranks}) == 1, "ranks must meet in the same number of collectives"
        assert step.normalizer == sum(int(m.loss_mask.sum()) for rank in step.ranks for m in rank) > 0
    for m in all_micro_batches(batch):
        assert m.num_positions <= LIMIT
        assert ((m.segments == PADDING) <= ~m.loss_mask).all()


@settings(max_examples=60, deadline=None)
@given(shapes, layouts, ranks, steps, st.randoms(use_true_random=False))
def test_the_order_of_arrival_has_no_effect(
    spec: list[tuple[int, int]], layout: Layout, num_ranks: int, num_steps: int, random: object
) -> None:
    samples = make([*spec, (9, 2)])
    shuffled = samples.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = packed(samples, layout, num_ranks, num_steps), packed(shuffled, layout, num_ranks, num_steps)
    for a, b in zip(all_micro_batches(first), all_micro_batches(second), strict=True):
        assert np.array_equal(a.input_ids, b.input_ids) and np.array_equal(a.targets, b.targets)
        assert np.array_equal(a.advantages, b.advantages) and np.array_equal(a.weights, b.weights)
        names = [
            np.where(m.segments == PADDING, "", np.asarray([*batch.names, ""])[m.segments])
            for m, batch in ((a, first), (b, second))
        ]
        assert np.array_equal(*names)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(4, LIMIT + 1), min_size=1, max_size=60))
def test_padding_of_buckets_stays_below_its_bound(lengths: list[int]) -> None:
    batch = packed(make([(length, 2) for length in lengths]), "buckets")
    padding = sum(int((m.segments == PADDING).sum()) for m in all_micro_batches(batch))
    longest, shortest = max(lengths) - 1, min(lengths) - 1
    assert padding <= LIMIT * math.log(longest / shortest) + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(4, 40), min_size=1, max_size=60))
def test_packed_rows_are_more_than_half_full_but_for_one(lengths: list[int]) -> None:
    batch = packed(make([(length, 2) for length in lengths]), "packed")
    rows = [row for m in all_micro_batches(batch) for row in m.segments]
    sparse = [row for row in rows if (row != PADDING).sum() <= LIMIT / 2]
    assert len(sparse) <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(4, LIMIT), min_size=8, max_size=60), ranks, steps)
def test_ranks_and_steps_are_balanced_to_one_sample(lengths: list[int], num_ranks: int, num_steps: int) -> None:
    batch = packed(make([(length, 2) for length in lengths]), "buckets", num_ranks, num_steps)
    shares = [[sum(int((m.segments != PADDING).sum()) for m in rank) for rank in step.ranks] for step in batch.steps]
    assert max(map(sum, shares)) - min(map(sum, shares)) <= max(lengths)
    for share in shares:
        assert max(share) - min(share) <= max(lengths)


def test_the_one_shift_by_hand() -> None:
    sample = TrainingSample(
        group_id="g",
        sibling=0,
        effort="low",
        token_ids=np.asarray([10, 11, 12, 13], np.int32),
        loss_mask=np.asarray([False, False, True, True]),
        advantages=np.asarray([0, 0, 0.5, 0.25], np.float32),
        sampler_logprobs=np.asarray([0, 0, -1, -2], np.float32),
        policy=PolicySpan(start=0, end=0),
        reference_logprobs=np.asarray([0, -9, -3, -4], np.float32),
    )
    batch = pack(
        [sample],
        aggregation=SequenceMean(),
        num_ranks=1,
        num_optimizer_steps=1,
        micro_batch_tokens=8,
        layout="buckets",
    )
    (m,) = all_micro_batches(batch)
    assert m.input_ids.tolist() == [[10, 11, 12]]
    assert m.targets.tolist() == [[11, 12, 13]]
    assert m.loss_mask.tolist() == [[False, True, True]]
    assert m.advantages.tolist() == [[0, 0.5, 0.25]]
    assert m.sampler_logprobs.tolist() == [[0, -1, -2]]
    assert m.weights.tolist() == [[0, 0.5, 0.5]]
    assert m.reference_logprobs is not None and m.reference_logprobs.tolist() == [[-9, -3, -4]]
    assert batch.steps[0].normalizer == 1.0
    assert batch.names == ("g/0",)


def test_a_rank_without_samples_gets_empty_micro_batches() -> None:
    batch = packed(make([(9, 2), (8, 2)]), "buckets", num_ranks=4)
    assert [sum(int(m.loss_mask.sum()) for m in rank) for rank in batch.steps[0].ranks] == [7, 6, 0, 0]
    assert [len(rank) for rank in batch.steps[0].ranks] == [1, 1, 1, 1]


def test_fewer_samples_than_optimizer_steps_make_fewer_steps() -> None:
    assert len(packed(make([(9, 2), (8, 2)]), "buckets", num_steps=3).steps) == 2


def test_a_sample_longer_than_a_micro_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"g0/0 needs 65 positions, more than learner.micro_batch_tokens = 64"):
        packed(make([(66, 2)]), "buckets")


def test_a_first_token_cannot_be_a_loss_token() -> None:
    with pytest.raises(ValueError, match="no prefix to be predicted from"):
        packed(make([(5, 0)]), "buckets")


def test_a_reference_scores_all_samples_or_none() -> None:
    samples = make([(9, 2), (8, 2)])
    assert all(m.reference_logprobs is None for m in all_micro_batches(packed(samples, "packed")))
    scored = dataclasses.replace(samples[0], reference_logprobs=samples[0].sampler_logprobs)
    with pytest.raises(ValueError, match=r"1 samples have reference log-probabilities, 1 have none, such as g0/1"):
        packed([scored, samples[1]], "packed")
    with pytest.raises(ValueError, match="arrays of different shapes"):
        dataclasses.replace(samples[0], reference_logprobs=np.zeros(3, np.float32))
