"""The whole objective of a recipe: surrogate, correction, selection, KL and entropy, and their metrics.

    L = (1 / normalizer) sum_t weight_t (w_t l_t + kl_t) - entropy_coefficient * mean_t H_t

`l` is the loss named by `type`, `w` the correction, `kl` the penalty with its coefficient. Entropy is a mean over the
loss tokens of the step whatever the aggregation, so that its coefficient means the same for all of them.

All of this is about fresh samples. Replayed ones, demonstrations and text add losses of their own, see
`rl/losses/streams.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from rl.losses.adaptive import Coefficients
from rl.losses.config import LossConfig
from rl.losses.contract import LossFunction, LossInputs, LossOutput, Tokens, tokens_at
from rl.losses.correction import correct
from rl.losses.estimator_config import StreamEstimators
from rl.losses.kl import kl_term
from rl.losses.mismatch import entropy_sums, mismatch_sums, reference_sums, rejection_sums
from rl.losses.registry import LOSSES
from rl.losses.selection import Gather, Scored, Selection, select
from rl.losses.streams import fresh_index, stream_losses
from rl.losses.term_config import AdaptiveEntropy, ClipCov, EntropyBonus, KlCov, TopEntropy


class Objective:
    """One per learner rank. Holds the coefficients that adapt; everything else is a function of its inputs."""

    def __init__(
        self, config: LossConfig, loss: LossFunction | None = None, streams: StreamEstimators | None = None
    ) -> None:
        """`loss` stands in for the built-in function of `config.type`, which a plugin does not have; `streams` is for
        samples that are not fresh."""
        if loss is None and config.type not in LOSSES:
            raise ValueError(f"loss.type = {config.type!r} has no function of its own: hand one in as `loss`")
        self._config = config
        self._streams = StreamEstimators() if streams is None else streams
        self._loss = LOSSES[config.type] if loss is None else loss
        self._correction = getattr(config, "correction", None)
        self._bypass = getattr(config, "anchor", "learner") == "sampler"
        covariance = getattr(config, "covariance", None)
        self._selection: Selection | None = config.entropy if isinstance(config.entropy, TopEntropy) else covariance
        self.coefficients = Coefficients(config)
        self._totals: torch.Tensor | None = None  # of the optimizer step so far: k3, entropy, tokens, sequences

    def adopt(self, config: LossConfig) -> None:
        """Go on with the coefficients of these settings; one that adapts keeps what it has come to."""
        state = self.coefficients.state()
        self._config, self.coefficients = config, Coefficients(config)
        self.coefficients.load(state)

    @property
    def needs_entropy_gradient(self) -> bool:
        return isinstance(self._config.entropy, EntropyBonus | AdaptiveEntropy)

    @property
    def needs_selection(self) -> bool:
        """`select` must be called before the micro-batches of a step."""
        return self._selection is not None

    @property
    def needs_anchor(self) -> bool:
        """The learner's log-probabilities before the batch matter to the loss."""
        return not self._bypass

    def select(self, scored: Sequence[Scored], gather: Gather, *, salt: int) -> list[torch.Tensor]:
        """`LossInputs.selected` of every micro-batch of a step. Collective if `gather` is."""
        if self._selection is None:
            raise RuntimeError(f"loss {self._config.type!r} selects no tokens; ask needs_selection first")
        return select(self._selection, scored, gather, salt=salt)

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """Share of one micro-batch in the loss of the step, and its metric sums.

        Raises:
            ValueError: something the settings ask for is not in the inputs, or advantages differ inside a sequence that
                the loss treats as one.
        """
        index = fresh_index(inputs)

        def pick(values: torch.Tensor) -> torch.Tensor:
            return values.flatten().index_select(0, index)

        own = tokens_at(inputs, index, whole=inputs.streams is None)
        self._check(inputs, own)
        tokens = replace(own, anchor=own.sampler) if self._bypass else own
        surrogate = self._loss(self._config, tokens)
        sums, maxima = mismatch_sums(own)
        sums |= surrogate.sums
        values = surrogate.values
        if self._correction is not None:
            weights, counts = correct(self._correction, tokens)
            values = values * weights
            sums |= rejection_sums(own, counts)
        values = self._on_selected(values, tokens)
        if inputs.reference_logprobs is not None:
            reference = pick(inputs.reference_logprobs)
            sums |= reference_sums(own, reference)
            if self._config.kl is not None and self._config.kl.placement == "loss":
                values = values + self.coefficients.kl * kl_term(self._config.kl, tokens, reference)
                sums["loss/kl_coefficient"] = _constant(own, self.coefficients.kl)
        loss = (values * pick(inputs.weights)).sum() / inputs.normalizer
        if inputs.entropies is not None:
            entropies = pick(inputs.entropies)
            sums |= entropy_sums(entropies.detach())
            if self.needs_entropy_gradient:
                loss = loss - self.coefficients.entropy * entropies.sum() / inputs.num_loss_tokens
                sums["loss/entropy_coefficient"] = _constant(own, self.coefficients.entropy)
        self._remember(own, sums)
        if inputs.streams is not None:
            others, other_sums = stream_losses(self._streams, inputs)
            loss = loss + others / inputs.normalizer
            sums |= other_sums
        return LossOutput(loss=loss, sums=sums, maxima=maxima)

    def end_step(self, sum_over_ranks: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Let the coefficients follow the optimizer step that was just applied. Collective if they adapt."""
        if self.coefficients.adapts and self._totals is not None:
            kl, entropy, num_tokens, num_sequences = sum_over_ranks(self._totals).tolist()
            self.coefficients.adapt(
                mean_kl=kl / num_tokens, mean_entropy=entropy / num_tokens, num_sequences=num_sequences
            )
        self._totals = None

    def _check(self, inputs: LossInputs, tokens: Tokens) -> None:
        kind, kl = self._config.type, self._config.kl
        if kl is not None and kl.placement == "loss" and inputs.reference_logprobs is None and tokens.anchor.numel():
            raise ValueError(
                f"loss {kind!r} has a kl term, and the samples have no reference log-probabilities; let a reference "
                "model score them, or leave kl out"
            )
        if self.needs_entropy_gradient and inputs.entropies is None:
            raise ValueError(f"loss {kind!r} has an entropy bonus, and the inputs have no entropies")
        if self.needs_selection and inputs.selected is None:
            raise ValueError(f"loss {kind!r} chooses tokens over the whole step: call Objective.select before the step")
        if not self._config.takes_token_advantages and _differ_inside_a_sequence(tokens):
            raise ValueError(
                f"loss {kind!r} takes one advantage a sequence, and advantages differ inside a sequence; leave "
                "per-token credit out (credit.process), or use a token loss such as ppo_clip, or gspo with token = true"
            )

    def _on_selected(self, values: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        if tokens.selected is None:
            return values
        match self._selection:
            case TopEntropy():
                return values * tokens.selected
            case ClipCov():
                return torch.where(tokens.selected, values.detach(), values)
            case KlCov():
                return values + self._selection.coefficient * tokens.selected * tokens.log_ratio.abs()
            case _:
                return values

    def _remember(self, tokens: Tokens, sums: dict[str, torch.Tensor]) -> None:
        if not self.coefficients.adapts:
            return
        zero = tokens.anchor.new_zeros(())
        kl, entropy = (sums.get(name, zero) for name in ("loss/reference_k3", "loss/entropy"))
        parts = [kl, entropy, zero + tokens.anchor.numel(), zero + tokens.num_sequences]
        totals = torch.stack(parts).double()
        self._totals = totals if self._totals is None else self._totals + totals


def _constant(tokens: Tokens, value: float) -> torch.Tensor:
    """A sum over tokens whose mean is `value`."""
    return tokens.anchor.new_tensor(value * tokens.anchor.numel())


def _differ_inside_a_sequence(tokens: Tokens) -> bool:
    empty = tokens.advantages.new_zeros(tokens.num_sequences)
    high = empty.scatter_reduce(0, tokens.segments, tokens.advantages, "amax", include_self=False)
    low = empty.scatter_reduce(0, tokens.segments, tokens.advantages, "amin", include_self=False)
    return bool((high - low > 0).any())  # not for NaN, which the learner reports with the names of its samples
