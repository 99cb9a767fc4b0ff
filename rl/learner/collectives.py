"""What ranks tell each other besides gradients. Each function must be entered by all ranks, in the same order."""

from __future__ import annotations

import torch
import torch.distributed as dist


def gather_names(names: list[str], num_ranks: int) -> list[str]:
    """Names of all ranks, sorted and without repetition."""
    gathered: list[list[str]] = [names]
    if num_ranks > 1:
        gathered = [[] for _ in range(num_ranks)]
        dist.all_gather_object(gathered, names)
    return sorted({name for part in gathered for name in part})


def gather_rows(rows: torch.Tensor, num_ranks: int) -> torch.Tensor:
    """[K, C] rows of every rank, which may hold different numbers of them, end to end."""
    if num_ranks == 1:
        return rows
    parts: list[torch.Tensor] = [rows] * num_ranks
    dist.all_gather_object(parts, rows.cpu())
    return torch.cat(parts)


def sum_over_ranks(values: torch.Tensor, num_ranks: int) -> torch.Tensor:
    """Elementwise sum, equal on every rank."""
    total = values.clone()
    if num_ranks > 1:
        dist.all_reduce(total)
    return total
