"""Coefficients that follow what they control. Equal on all ranks, because they follow sums over all ranks.

    KL       c <- c (1 + clip(KL / target - 1, -.2, .2) n / horizon)        n sequences in the optimizer step
    entropy  c <- min(c + delta, max) if H <= target, else max(c - delta, min);   used while the last H <= target,
                                                                              so not in the first step

Sources: KL, Ziegler et al. 2019 (arXiv 1909.08593); entropy, Skywork-OR1 (arXiv 2505.22312).

Assumption: one optimizer step's mean over its loss tokens is a fair measurement; KL is measured with k3, which is
unbiased and never negative. What it is not: a guarantee. Both react one step late.
"""

from __future__ import annotations

from rl.losses.config import LossConfig
from rl.losses.term_config import AdaptiveEntropy, EntropyBonus, Kl


class Coefficients:
    """The weights of the KL and entropy terms, and how they change from step to step."""

    def __init__(self, config: LossConfig) -> None:
        self._kl: Kl | None = config.kl
        self._entropy = config.entropy
        self._kl_coefficient = 0.0 if config.kl is None else config.kl.coefficient
        self._entropy_coefficient = config.entropy.initial if isinstance(config.entropy, AdaptiveEntropy) else 0.0
        self._last_entropy: float | None = None

    @property
    def adapts(self) -> bool:
        return isinstance(self._entropy, AdaptiveEntropy) or (self._kl is not None and self._kl.target is not None)

    @property
    def kl(self) -> float:
        """Weight of the KL term of the loss."""
        return self._kl_coefficient

    @property
    def entropy(self) -> float:
        """Weight of the entropy bonus, 0 while an adaptive one rests."""
        match self._entropy:
            case EntropyBonus():
                return self._entropy.coefficient
            case AdaptiveEntropy():
                is_low = self._last_entropy is not None and self._last_entropy <= self._entropy.target
                return self._entropy_coefficient if is_low else 0.0
            case _:
                return 0.0

    def adapt(self, *, mean_kl: float, mean_entropy: float, num_sequences: float) -> None:
        """Follow the means over the loss tokens of the optimizer step that has just been applied."""
        if self._kl is not None and self._kl.target is not None and self._kl.horizon is not None:
            error = min(max(mean_kl / self._kl.target - 1.0, -0.2), 0.2)
            self._kl_coefficient *= 1.0 + error * num_sequences / self._kl.horizon
        if isinstance(self._entropy, AdaptiveEntropy):
            rule, now = self._entropy, self._entropy_coefficient
            is_low = mean_entropy <= rule.target
            self._entropy_coefficient = min(now + rule.delta, rule.max) if is_low else max(now - rule.delta, rule.min)
            self._last_entropy = mean_entropy

    def state(self) -> dict[str, float | None]:
        """What a checkpoint keeps."""
        return {
            "kl_coefficient": self._kl_coefficient,
            "entropy_coefficient": self._entropy_coefficient,
            "last_entropy": self._last_entropy,
        }

    def load(self, state: dict[str, float | None]) -> None:
        """Go on from `state`. A constant coefficient is a setting and stays what the recipe says."""
        if self._kl is not None and self._kl.target is not None:
            self._kl_coefficient = float(state["kl_coefficient"] or 0.0)
        if isinstance(self._entropy, AdaptiveEntropy):
            self._entropy_coefficient = float(state["entropy_coefficient"] or 0.0)
            self._last_entropy = state["last_entropy"]
