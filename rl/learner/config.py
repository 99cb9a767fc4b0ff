"""Settings of the learner and of a model built from scratch. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from rl.losses.config import LossConfig

__all__ = ["LearnerConfig", "LossConfig", "ScratchModel"]

Beta = Annotated[float, Field(ge=0, lt=1)]
Layout = Literal["packed", "buckets"]

STRUCTURAL_TOKENS = ("<bos>", "<eos>", "<pad>", "<think>", "</think>")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LoraConfig(_Settings):
    """Low-rank adapters beside frozen matrices. There is no dropout: a ratio under two dropout masks is noise."""

    rank: PositiveInt = 16
    """Inner dimension of an adapter."""
    alpha: PositiveFloat = 32
    """The adapter's product is scaled by alpha / rank."""
    target_modules: Annotated[str, Field(min_length=1)] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Names of the matrices that get an adapter; `all-linear` means all of them but the output head."""


class LearnerConfig(_Settings):
    """How scored samples become better weights."""

    lr: PositiveFloat = 1e-6
    """Peak learning rate of AdamW."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """Decay rates of AdamW's first and second moments."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of the matrices; norms, biases and the token embedding are never decayed."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps over which the learning rate rises linearly to `lr`."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Shape of the learning rate after the warm-up."""
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of `lr` that a cosine or linear schedule reaches at the last optimizer step."""
    max_grad_norm: PositiveFloat = 1.0
    """Largest global gradient norm; larger gradients are scaled down to it."""
    num_optimizer_steps: PositiveInt = 1
    """Optimizer steps per pass over a batch; each sample is used in exactly one of them."""
    epochs: PositiveInt = 1
    """Passes over each batch; all are anchored to the weights before the first."""
    num_ranks: PositiveInt = 1
    """Learner processes, each holding a share of every batch."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the ranks compute: cpu talks over gloo, cuda over NCCL with one GPU a rank."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """DeepSpeed ZeRO stage: what is split over ranks (0 nothing, 1 optimizer, 2 and gradients, 3 and weights)."""
    dtype: Literal["bfloat16", "float32"] = "float32"
    """Precision of weights and activations; bfloat16 keeps float32 master weights."""
    micro_batch_tokens: PositiveInt = 8192
    """Most token positions, padding included, in one forward pass of one rank; bounds the memory of activations."""
    layout: Literal["auto", "packed", "buckets"] = "auto"
    """Packed rows or length-sorted padded rows; auto packs where a variable-length attention kernel is installed."""
    max_logit_mib: PositiveInt = 256
    """Most MiB of logits held at once; longer micro-batches go through the output head in chunks, each twice."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more compute."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of the whole model; left out means the whole model."""
    threads_per_rank: PositiveInt = 1
    """CPU threads of one rank."""
    probe_tolerance: PositiveFloat = 1e-2
    """Largest difference between an engine's and the learner's probe log-probability that still counts as in sync."""

    @model_validator(mode="after")
    def _bfloat16_needs_master_weights(self) -> Self:
        if self.dtype == "bfloat16" and self.zero_stage == 0:
            raise ValueError(
                "dtype bfloat16 needs zero_stage >= 1, which keeps float32 master weights; got zero_stage 0. "
                "Set zero_stage = 1, or dtype = 'float32'"
            )
        return self


class ScratchModel(_Settings):
    """A small Llama built from its configuration, with one token per character."""

    type: Literal["scratch"] = "scratch"
    hidden_size: PositiveInt = 128
    """Width of the residual stream."""
    num_layers: PositiveInt = 2
    """Transformer blocks."""
    intermediate_size: PositiveInt = 256
    """Width inside the feed-forward layers."""
    num_heads: PositiveInt = 4
    """Attention heads; `hidden_size / num_heads` must be a head size the engine's attention kernel accepts."""
    characters: Annotated[str, Field(min_length=1)] = "0123456789+-*/=();,. abcdefghijklmnopqrstuvwxyz\n"
    """The alphabet: every text the model reads or writes is spelled in these characters."""
    special_tokens: tuple[str, ...] = ("<high>", "<medium>", "<low>")
    """Marks that are one token each, besides <bos> <eos> <pad> <think> </think>; usually one per effort."""
    tied: bool = False
    """Share one matrix between the token embedding and the output head."""
    max_positions: PositiveInt = 512
    """Longest sequence, prompt and response together."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the random initial weights."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary position frequencies; a small base tells nearby positions apart better."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 2 * num_heads (rotary embeddings pair up dimensions), "
                f"got hidden_size {self.hidden_size} and num_heads {self.num_heads}"
            )
        repeated = sorted({c for c in self.characters if self.characters.count(c) > 1})
        if repeated:
            raise ValueError(f"characters must not repeat, got {repeated} more than once; remove the copies")
        marks = (*STRUCTURAL_TOKENS, *self.special_tokens)
        clash = sorted({m for m in marks if marks.count(m) > 1 or len(m) < 2})
        if clash:
            raise ValueError(
                f"special tokens must be distinct from each other and from {list(STRUCTURAL_TOKENS)} "
                f"and longer than one character, got {clash}"
            )
        return self

    @property
    def vocab_size(self) -> int:
        return len(STRUCTURAL_TOKENS) + len(self.special_tokens) + len(self.characters)
