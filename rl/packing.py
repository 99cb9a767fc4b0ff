"""Samples become ranks, optimizer steps and micro-batches. numpy only; the one shift by a position lives here.

A language model predicts token t + 1 from position t. A sample of L tokens therefore occupies L - 1 positions: position
t holds `input_ids[t] = token_ids[t]` and `targets[t] = token_ids[t + 1]`, and every other array describes the target.
Nothing after this file shifts anything.

Who goes where is decided by one order, longest first (ties by group and sibling), dealt out like cards in a snake
(0 1 2 | 2 1 0 | 0 1 2): first over the optimizer steps, then over the ranks. Both therefore get the same mix of
lengths, their position counts differ by at most the longest sample, and the order in which samples arrive is without
effect.

Two layouts of a micro-batch, [R rows, T positions]:

    buckets   one sample a row, rows of similar length, padded on the right. Causal attention never looks at what comes
              after, so no mask is needed. Padding of one rank in one step is at most
              `micro_batch_tokens * ln(longest / shortest)`. Proof: cut greedily, always filling up; a micro-batch has
              `r <= micro_batch_tokens / w_max` rows and wastes at most `r * (w_max - w_min)`, the next one starts at or
              below `w_min`, and the sum of `(w_max - w_min) / w_max` over such a chain is at most the integral of
              dw / w. The greedy cut has the fewest micro-batches there can be, so the cheapest cut, which pays a fixed
              price for each, pads no more than it.
    packed    several samples a row, told apart by `segments`; positions restart with each sample. First-fit decreasing
              leaves at most one row of a rank and step half empty or more.

Every rank gets the same number of micro-batches in a step, because ranks meet in collectives inside the backward pass;
a rank that runs short splits one, or adds an empty one that has no loss token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from rl.batch import Stream, TrainingSample
from rl.losses.aggregation import normalize
from rl.losses.config import Aggregation
from rollout.schema import BoolArray, Float32Array, Int32Array

Int8Array = npt.NDArray[np.int8]
Int64Array = npt.NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)
Row = list[int]  # indices of the samples of one row
Rows = list[Row]  # one micro-batch

MIN_PACKED_ROW = 256  # a block mask costs T * T per row: shorter rows waste nothing on long-range blocks
MICRO_BATCH_COST = 128  # positions: what one more forward and backward pass costs a small model on a CPU, measured
PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroBatch:
    """What one rank sends through the model at once. `segments` names the sample of a position, -1 at padding."""

    input_ids: Int32Array  # [R, T]
    position_ids: Int32Array  # [R, T] position inside the sample
    segments: Int32Array  # [R, T]
    targets: Int32Array  # [R, T] the token that follows
    loss_mask: BoolArray  # [R, T] True where the target was sampled by the policy
    advantages: Float32Array  # [R, T]
    sampler_logprobs: Float32Array  # [R, T]
    weights: Float32Array  # [R, T] weight of the token's sample, zero where loss_mask is False
    reference_logprobs: Float32Array | None = None  # [R, T] where a reference model scored the samples
    streams: Int8Array | None = None  # [R, T] `rl.batch.Stream` of the token's sample; None where all are fresh

    @property
    def num_positions(self) -> int:
        return self.input_ids.size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedStep:
    """One optimizer step: the same number of micro-batches for every rank, and one global normalizer."""

    ranks: tuple[tuple[MicroBatch, ...], ...]  # [ranks][accumulation]
    normalizer: float
    num_loss_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedBatch:
    """A training batch, laid out. `names[i]` says which trajectory segment i is."""

    steps: tuple[PackedStep, ...]
    names: tuple[str, ...]

    @property
    def padding_share(self) -> float:
        """Share of all positions that hold no token."""
        segments = [m.segments for step in self.steps for rank in step.ranks for m in rank]
        return sum(int((s == PADDING).sum()) for s in segments) / max(1, sum(s.size for s in segments))


def pack(
    samples: Sequence[TrainingSample],
    *,
    aggregation: Aggregation,
    num_ranks: int,
    num_optimizer_steps: int,
    micro_batch_tokens: int,
    layout: Literal["packed", "buckets"],
    row_tokens: int | None = None,
) -> PackedBatch:
    """Lay out a batch. Samples without a loss token carry no signal and are left out.

    Args:
        row_tokens: width of a packed row; None takes the longest sample, at least 256. A kernel for variable lengths
            wants one row as wide as the micro-batch.

    Raises:
        ValueError: no loss token in the whole batch, a loss token without a prefix, a sample longer than
            `micro_batch_tokens`, or reference log-probabilities for some samples only.
    """
    flat = _Flat(samples)
    order = _longest_first(samples, flat)
    if not order:
        raise ValueError(f"a training batch needs at least one loss token, got none in {len(samples)} samples")
    longest = int(flat.widths[order[0]])
    if longest > micro_batch_tokens:
        raise ValueError(
            f"sample {flat.names[order[0]]} needs {longest} positions, more than learner.micro_batch_tokens = "
            f"{micro_batch_tokens}; raise that setting or lower rollout.max_model_len"
        )
    width = row_tokens if row_tokens is not None else min(max(longest, MIN_PACKED_ROW), micro_batch_tokens)
    steps = []
    for members in _deal(order, min(num_optimizer_steps, len(order))):
        weights, normalizer = weigh(aggregation, flat.num_loss_tokens[members], flat.streams[members])
        per_sample = np.zeros(len(samples), dtype=np.float32)
        per_sample[members] = weights
        ranks = []
        for share in _deal(members, num_ranks):
            rows = [[i] for i in share] if layout == "buckets" else _first_fit(share, flat.widths, width)
            row_widths = flat.widths[share] if layout == "buckets" else np.full(len(rows), width)
            ranks.append(_micro_batches(rows, row_widths, micro_batch_tokens))
        _equalize(ranks)
        laid_out = tuple(tuple(flat.lay_out(rows, per_sample) for rows in rank) for rank in ranks)
        num_loss_tokens = int(flat.num_loss_tokens[members].sum())
        steps.append(PackedStep(ranks=laid_out, normalizer=normalizer, num_loss_tokens=num_loss_tokens))
    return PackedBatch(steps=tuple(steps), names=flat.names)


def weigh(aggregation: Aggregation, num_loss_tokens: Int64Array, streams: Int8Array) -> tuple[Float32Array, float]:
    """Weights [N] of the samples of one optimizer step, and their one normalizer.

    Fresh and replayed samples share the average of the recipe. Each stream of a teacher is a mean over its own tokens,
    whatever the others hold, so that its coefficient means the same in every step: the normalizer is divided out again.
    """
    weights = np.zeros(streams.size, dtype=np.float32)
    taught = streams > Stream.REPLAY
    normalizer = 1.0
    if not taught.all():
        weights[~taught], normalizer = normalize(aggregation, num_loss_tokens[~taught])
    for stream in np.unique(streams[taught]):
        mine = streams == stream
        weights[mine] = normalizer / float(num_loss_tokens[mine].sum())
    return weights, normalizer


def _longest_first(samples: Sequence[TrainingSample], flat: _Flat) -> list[int]:
    trainable = np.flatnonzero(flat.num_loss_tokens).tolist()
    return sorted(trainable, key=lambda i: (-flat.widths[i], samples[i].group_id, samples[i].sibling))


def _deal(cards: list[int], num_hands: int) -> list[list[int]]:
    """Deal in a snake; each hand keeps the order of the cards."""
    position = np.arange(len(cards))
    turn, seat = np.divmod(position, num_hands)
    seat = np.where(turn % 2 == 0, seat, num_hands - 1 - seat)
    array = np.asarray(cards, dtype=np.int64)
    return [array[seat == hand].tolist() for hand in range(num_hands)]


def _first_fit(members: list[int], widths: Int64Array, row_tokens: int) -> Rows:
    """First-fit decreasing: `members` come longest first, each goes to the first row with room."""
    rows: Rows = []
    room = np.zeros(0, dtype=np.int64)
    for i in members:
        fits = np.flatnonzero(room >= widths[i])
        if fits.size:
            target = int(fits[0])
            rows[target].append(i)
        else:
            target = len(rows)
            rows.append([i])
            room = np.append(room, row_tokens)
        room[target] -= widths[i]
    return rows


def _micro_batches(rows: Rows, row_widths: Int64Array, micro_batch_tokens: int) -> list[Rows]:
    """Cut rows, widest first, into runs of at most `micro_batch_tokens` positions, at the least total cost.

    A run of r rows costs r * (width of its first row) positions plus `MICRO_BATCH_COST`. Dynamic program over the end
    of the last run: as its start moves forward the run gets shorter and narrower, so the starts that fit are a window.
    """
    cost = np.zeros(len(rows) + 1, dtype=np.int64)
    start_of = np.zeros(len(rows) + 1, dtype=np.int64)
    first = 0
    for end in range(1, len(rows) + 1):
        while (end - first) * row_widths[first] > micro_batch_tokens:
            first += 1
        num_rows = np.arange(end - first, 0, -1)
        candidates = cost[first:end] + num_rows * row_widths[first:end] + MICRO_BATCH_COST
        start_of[end] = first + int(candidates.argmin())
        cost[end] = candidates.min()
    batches: list[Rows] = []
    end = len(rows)
    while end > 0:
        batches.append(rows[start_of[end] : end])
        end = int(start_of[end])
    return batches[::-1]


def _equalize(ranks: list[list[Rows]]) -> None:
    """Give every rank the same number of micro-batches, in place: split the one with most rows, or add an empty one."""
    most = max(len(batches) for batches in ranks)
    for batches in ranks:
        while len(batches) < most:
            biggest = max(range(len(batches)), key=lambda j: len(batches[j]), default=None)
            if biggest is None or len(batches[biggest]) < 2:
                batches.append([])
                continue
            rows = batches[biggest]
            batches[biggest : biggest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]


class _Flat:
    """All samples end to end: a micro-batch is filled by one gather per array instead of a loop over samples."""

    def __init__(self, samples: Sequence[TrainingSample]) -> None:
        self.names = tuple(f"{s.group_id}/{s.sibling}" for s in samples)
        headless = [n for n, s in zip(self.names, samples, strict=True) if s.loss_mask.size and s.loss_mask[0]]
        if headless:
            raise ValueError(
                f"the first token has no prefix to be predicted from, yet it is a loss token in {headless}"
            )
        lengths = np.asarray([s.token_ids.size for s in samples], dtype=np.int64)
        self.starts: Int64Array = np.cumsum(lengths) - lengths
        self.widths: Int64Array = np.maximum(lengths - 1, 0)
        self.num_loss_tokens: Int64Array = np.asarray([np.count_nonzero(s.loss_mask) for s in samples], dtype=np.int64)
        if samples:
            self.token_ids = np.concatenate([s.token_ids for s in samples])
            self.loss_mask = np.concatenate([s.loss_mask for s in samples])
            self.advantages = np.concatenate([s.advantages for s in samples])
            self.sampler_logprobs = np.concatenate([s.sampler_logprobs for s in samples])
        self.reference_logprobs = _reference(samples, self.names)
        self.streams: Int8Array = np.asarray([s.stream for s in samples], dtype=np.int8)

    def lay_out(self, rows: Rows, sample_weights: Float32Array) -> MicroBatch:
        """Fill the arrays of one micro-batch; no rows make a micro-batch of one padding position."""
        members = np.asarray([i for row in rows for i in row], dtype=np.int64)
        widths = self.widths[members]
        row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        filled = np.bincount(row_of, weights=widths, minlength=max(1, len(rows))).astype(np.int64)  # [R]
        shape = (filled.size, max(1, int(filled.max())))

        before = np.cumsum(widths) - widths  # [members] positions of this micro-batch that come earlier
        offset = before - (np.cumsum(filled) - filled)[row_of]  # where in its row a member starts
        within = np.arange(int(widths.sum())) - np.repeat(before, widths)
        to = np.repeat(row_of * shape[1] + offset, widths) + within
        source = np.repeat(self.starts[members], widths) + within
        segment = np.repeat(members, widths)

        target = source + 1
        mask = self.loss_mask[target]
        weights = np.where(mask, sample_weights[segment], np.float32(0))
        return MicroBatch(
            input_ids=_fill(shape, 0, to, self.token_ids[source]),
            position_ids=_fill(shape, 0, to, within.astype(np.int32)),
            segments=_fill(shape, PADDING, to, segment.astype(np.int32)),
            targets=_fill(shape, 0, to, self.token_ids[target]),
            loss_mask=_fill(shape, False, to, mask),
            advantages=_fill(shape, 0, to, self.advantages[target]),
            sampler_logprobs=_fill(shape, 0, to, self.sampler_logprobs[target]),
            weights=_fill(shape, 0, to, weights.astype(np.float32)),
            reference_logprobs=None
            if self.reference_logprobs is None
            else _fill(shape, 0, to, self.reference_logprobs[target]),
            streams=_fill(shape, 0, to, self.streams[segment]) if self.streams.any() else None,
        )


def _reference(samples: Sequence[TrainingSample], names: tuple[str, ...]) -> Float32Array | None:
    """All reference log-probabilities end to end: every fresh sample has them, or none has. Others need none."""
    scored = [s for s in samples if s.reference_logprobs is not None]
    if not scored:
        return None
    fresh = [(n, s) for n, s in zip(names, samples, strict=True) if s.stream is Stream.FRESH]
    without = [n for n, s in fresh if s.reference_logprobs is None]
    if without:
        raise ValueError(
            f"{len(scored)} samples have reference log-probabilities, {len(without)} have none, such as {without[0]}; "
            "the reference model must score all samples of a batch or none"
        )
    return np.concatenate(
        [
            np.zeros(s.token_ids.size, np.float32) if s.reference_logprobs is None else s.reference_logprobs
            for s in samples
        ]
    )


def _fill(shape: tuple[int, int], empty: float, to: Int64Array, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    out = np.full(shape, empty, dtype=values.dtype)
    out.reshape(-1)[to] = values
    return out
