"""Weights leave a learner in groups: never more than one group is whole, and its copy is let go before the next."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from rl.learner import export
from rl.learner.export import Exporter

LIMIT = 4 * 1000  # bytes a group


def model() -> torch.nn.Module:
    layers = [torch.nn.Linear(20, 20, bias=False) for _ in range(6)]  # 1,600 bytes each
    return torch.nn.Sequential(torch.nn.Linear(20, 100, bias=False), *layers)  # and one of 8,000


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> tuple[Exporter, list[int]]:
    """An exporter of split weights, and the bytes that are whole at each gathering."""
    monkeypatch.setattr(export, "EXPORT_CHUNK_BYTES", LIMIT)
    sizes: list[int] = []
    depth = 0

    @contextmanager
    def whole(parameters: list[torch.nn.Parameter]) -> Iterator[None]:
        nonlocal depth
        assert depth == 0, "two groups are whole at a time"
        depth += 1
        sizes.append(sum(p.numel() * p.element_size() for p in parameters))
        yield
        depth -= 1

    return Exporter(model(), rank=0, whole=whole), sizes


def test_a_group_is_as_large_as_it_may_be_and_a_larger_matrix_comes_alone(gathered: tuple[Exporter, list[int]]) -> None:
    exporter, sizes = gathered
    names = [name for index in range(exporter.num_chunks) for name, _ in exporter.chunk(index)]
    assert sizes == [8000, 3200, 3200, 3200] and len(names) == len(set(names)) == 7


@pytest.mark.parametrize("place", ["cpu", "first"])
def test_a_group_is_gone_before_the_next_one_is_made(gathered: tuple[Exporter, list[int]], place: str) -> None:
    exporter, _ = gathered
    before: list[weakref.ref[torch.Tensor]] = []
    for index in range(exporter.num_chunks):
        gc.collect()
        assert all(reference() is None for reference in before)
        chunk = exporter.chunk(index, place=place)  # type: ignore[arg-type]
        before = [weakref.ref(tensor) for _, tensor in chunk]
        del chunk


def test_what_is_announced_is_what_is_sent(gathered: tuple[Exporter, list[int]]) -> None:
    exporter, sizes = gathered
    for index in range(exporter.num_chunks):
        told = exporter.announce(index)
        assert len(sizes) == index, "to announce gathers nothing"
        chunk = exporter.chunk(index, place="first")
        assert told["names"] == [name for name, _ in chunk]
        assert told["shapes"] == [list(tensor.shape) for _, tensor in chunk]
        assert told["dtype_names"] == [str(tensor.dtype).removeprefix("torch.") for _, tensor in chunk]


def test_only_ranks_that_share_keep_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def whole(parameters: list[torch.nn.Parameter]) -> Iterator[None]:
        yield

    other = Exporter(model(), rank=1, whole=whole)
    assert other.chunk(0) == [] and other.chunk(0, place="first") == [] and len(other.chunk(0, place="all")) == 7
