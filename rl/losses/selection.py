"""Tokens chosen by comparison with all loss tokens of an optimizer step.

    top_fraction  entropy_t >= the (1 - fraction) quantile of the entropies
    cov_t = (A_t - mean A) (learner_t - mean learner)
    kl_cov        the `fraction` of tokens with the largest cov_t
    clip_cov      at random, `fraction` of the tokens, among those with low < cov_t < high

Sources: 80/20, Wang et al. 2025 (arXiv 2506.01939); covariance, Cui et al. 2025 (arXiv 2505.22617).

Assumption: entropies and log-probabilities are those of the weights before the step, from one more forward pass. So the
choice is the same however the step is cut into micro-batches and ranks; other implementations choose within a
micro-batch and depend on the cut. What is drawn at random is drawn by a hash of sample and position, for the same end.

What it is not: a change of the normalizer, which keeps counting all loss tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rl.losses.term_config import ClipCov, KlCov, TopEntropy

Selection = TopEntropy | KlCov | ClipCov
Gather = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """One micro-batch under the weights before the step, all [R, T]."""

    logprobs: torch.Tensor
    entropies: torch.Tensor
    advantages: torch.Tensor
    mask: torch.Tensor  # bool
    samples: torch.Tensor  # int, index of the sample in the batch
    positions: torch.Tensor  # int, inside the sample


def select(config: Selection, scored: Sequence[Scored], gather: Gather, *, salt: int) -> list[torch.Tensor]:
    """[R, T] bool for each micro-batch, False outside its mask. Collective if `gather` is.

    Args:
        gather: [K, C] rows of this rank to the rows of all ranks.
        salt: changes the random choice from step to step.
    """
    columns = [_columns(config, s, salt) for s in scored]
    rows = gather(torch.cat(columns)).cpu()
    if not rows.numel():
        return [torch.zeros_like(s.mask) for s in scored]
    chosen = []
    for s, mine in zip(scored, columns, strict=True):
        picked = torch.zeros_like(s.mask)
        picked[s.mask] = _choose(config, rows, mine)
        chosen.append(picked)
    return chosen


def _columns(config: Selection, scored: Scored, salt: int) -> torch.Tensor:
    """[K, C] float64: what the choice is made from."""
    mask = scored.mask
    if isinstance(config, TopEntropy):
        parts = [scored.entropies[mask]]
    else:
        lots = _hash(scored.samples[mask], scored.positions[mask], salt)
        parts = [scored.advantages[mask], scored.logprobs[mask], lots]
    return torch.stack([part.double() for part in parts], dim=1)


def _choose(config: Selection, rows: torch.Tensor, mine: torch.Tensor) -> torch.Tensor:
    """[K] bool for the rows of one micro-batch, compared with all rows of the step."""
    count = max(1, int(rows.shape[0] * config.fraction))
    match config:
        case TopEntropy():
            return mine[:, 0] >= _quantile(rows[:, 0], 1.0 - config.fraction)
        case KlCov():
            threshold = covariance(rows, rows).topk(count).values[-1]
            return covariance(mine, rows) >= threshold.to(mine.device)
        case ClipCov():
            inside = _between(covariance(rows, rows), config)
            lots = rows[inside, 2].sort().values
            if lots.numel() == 0:
                return torch.zeros(mine.shape[0], dtype=torch.bool, device=mine.device)
            last = float(lots[min(count, lots.numel()) - 1])
            return _between(covariance(mine, rows), config) & (mine[:, 2] <= last)


def covariance(rows: torch.Tensor, everyone: torch.Tensor) -> torch.Tensor:
    """[K] centred products of advantage (column 0) and log-probability (column 1), centred on the means of all."""
    centred = rows[:, :2] - everyone[:, :2].mean(0).to(rows.device)
    return centred[:, 0] * centred[:, 1]


def _between(values: torch.Tensor, config: ClipCov) -> torch.Tensor:
    return (values > config.low) & (values < config.high)


def _quantile(values: torch.Tensor, level: float) -> float:
    """Linear between neighbours, as torch.quantile, which refuses more than 2^24 values."""
    ordered = values.sort().values
    place = level * (ordered.numel() - 1)
    low = int(place)
    high = min(low + 1, ordered.numel() - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def _hash(samples: torch.Tensor, positions: torch.Tensor, salt: int) -> torch.Tensor:
    """Random-looking integers below 2^52, which float64 holds exactly. int64 products wrap around."""
    state = samples.long() * 1_000_003 + positions.long() + salt * 7_919_000_003
    for factor in (-7046029254386353131, -4417276706812531889):
        state = (state ^ ((state >> 31) & 0x1FFFFFFFF)) * factor
    return (state >> 12) & (2**52 - 1)
