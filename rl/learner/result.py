"""What a rank tells the driver. Light: unpickling it must not load torch in the driver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rl.learner.config import Layout
from rl.losses.summary import summarize
from rl.packing import PackedBatch
from rollout.schema import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class RankInfo:
    """What a rank decided while starting."""

    layout: Layout
    row_tokens: int | None  # width of a packed row that suits the attention kernel; None leaves it to the packing
    num_parameters: int
    num_chunks: int  # of an export


@dataclass(slots=True, kw_only=True)
class RankResult:
    """What one rank saw of a batch. `losses`, `sums` and `maxima` run over its own micro-batches."""

    version: int
    losses: list[float] = field(default_factory=list)  # [optimizer steps] shares: they add up over ranks
    grad_norms: list[float] = field(default_factory=list)  # [optimizer steps] global, before clipping
    sums: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)
    drift: dict[int, float] = field(default_factory=dict)  # of replayed samples, by their index in the batch
    lr: float = 0.0
    # Name, start and end in seconds of the rank's clock, which differ between runs that are equal to the bit.
    spans: list[tuple[str, float, float]] = field(default_factory=list, compare=False)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Note when this was done, as the process sees it: a GPU may still be at work on it."""
        start = time.perf_counter()
        yield
        self.spans.append((name, start, time.perf_counter()))


def combine(packed: PackedBatch, results: list[RankResult], seconds: float, *, epochs: int) -> tuple[Metric, ...]:
    """Metrics of a batch: sums over ranks, divided once by the loss tokens of the whole batch, in all its epochs."""
    num_tokens = sum(step.num_loss_tokens for step in packed.steps) * epochs
    first = results[0]
    means = summarize({name: sum(r.sums[name] for r in results) / num_tokens for name in first.sums})
    maxima = {name: max(r.maxima[name] for r in results) for name in first.maxima}
    return (
        *(Metric(name=name, value=value, weight=num_tokens) for name, value in means.items()),
        *(Metric(name=name, value=value, reduce="max") for name, value in maxima.items()),
        *(Metric(name="loss/policy", value=sum(shares)) for shares in zip(*(r.losses for r in results), strict=True)),
        *(Metric(name="learner/grad_norm", value=norm) for norm in first.grad_norms),
        Metric(name="learner/lr", value=first.lr, reduce="last"),
        Metric(name="learner/loss_tokens", value=num_tokens, reduce="sum"),
        Metric(name="learner/padding_share", value=packed.padding_share),
        Metric(name="learner/loss_tokens_per_s", value=num_tokens / seconds),
    )
