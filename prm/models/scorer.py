"""Learned models behind one call: items in, scores out, packed by tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from prm import calibration
from prm.encode import Reading, read_chat, read_tokens
from prm.items import ItemScores, ScoreItem
from prm.models.backbone import load_causal, read_settings
from prm.models.config import DiscriminativePrmConfig, ImplicitPrmConfig, ValuePrmConfig
from prm.models.discriminative import Labels, StepHead, good_logit, load_classifier
from prm.models.implicit import TokenLogprobs, span_scores, targets_of
from prm.models.rows import Row, Rows, lay_out, plan
from prm.models.value import load_value, values
from rollout.schema import Float32Array

LearnedConfig = ImplicitPrmConfig | DiscriminativePrmConfig | ValuePrmConfig
ToProbability = Callable[[torch.Tensor], torch.Tensor]


class ImplicitScorer:
    """A language model and its frozen reference. `version` counts the updates of the former."""

    def __init__(self, config: ImplicitPrmConfig) -> None:
        if config.path is None or config.reference is None:
            raise ValueError("prm.path and prm.reference must be resolved to model directories before the start")
        self.config = config
        self.version = 0
        self.path = config.path
        self._device = torch.device(config.device)
        self.model = TokenLogprobs(load_causal(config.path, config.dtype)).to(self._device).eval()
        self._reference = TokenLogprobs(load_causal(config.reference, config.dtype)).to(self._device).eval()
        self._reference.requires_grad_(False)
        sizes = [m.model.get_input_embeddings().weight.shape[0] for m in (self.model, self._reference)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"prm.path and prm.reference need one vocabulary, got {sizes[0]} and {sizes[1]} tokens")

    def batches(self, items: Sequence[ScoreItem]) -> list[list[Row]]:
        """Rows of items, each cut to `max_tokens`."""
        return plan([min(len(item.token_ids), self.config.max_tokens) for item in items], self.config.batch_tokens)

    def place(
        self, items: Sequence[ScoreItem], rows: list[Row]
    ) -> tuple[Rows, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One batch on the device, and the positions, labels and owners of its sampled tokens."""
        sequences = [item.token_ids[: self.config.max_tokens] for item in items]
        placed = lay_out(sequences, rows, self._device)
        masks = [item.sampled[: self.config.max_tokens] for item in items]
        return placed, *targets_of(placed, sequences, masks, self._device)

    def reference_logprobs(self, rows: Rows, at: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logprobs: torch.Tensor = self._reference(rows, at, labels)
        return logprobs

    def token_rewards(self, items: Sequence[ScoreItem]) -> list[Float32Array]:
        """Per item [min(L, max_tokens)]: beta times the log-ratio of each sampled token, 0 elsewhere."""
        rewards = [np.zeros(min(len(i.token_ids), self.config.max_tokens), np.float32) for i in items]
        for rows in self.batches(items):
            placed, at, labels, owners = self.place(items, rows)
            with torch.inference_mode():
                ratios = self.model(placed, at, labels) - self._reference(placed, at, labels)
            found, owner, flat = (part.cpu().numpy() for part in (ratios * self.config.beta, owners, at))
            for index, start in placed.starts.items():
                mine = owner == index
                rewards[index][flat[mine] - start + 1] = found[mine]
        return rewards

    def score(self, items: Sequence[ScoreItem], *, cumulative: bool | None = None) -> list[ItemScores]:
        """Scores as the section says; `cumulative` asks for values at the ends of spans, or for increments."""
        if cumulative is None:
            cumulative = self.config.kind == "q"
        answers = []
        for item, rewards in zip(items, self.token_rewards(items), strict=True):
            whole = [span for span in item.spans if span[1] <= len(rewards)]
            scores = np.full(len(item.spans), np.nan, np.float32)
            scores[: len(whole)] = span_scores(rewards, whole, cumulative=cumulative)
            answers.append(ItemScores(scores=scores, truncated=len(whole) < len(item.spans), version=self.version))
        return answers


class PackedHead:
    """A backbone with a head at the end of each step, in packed forward passes of this process."""

    def __init__(self, model: StepHead, to_probability: ToProbability, *, batch_tokens: int, device: str) -> None:
        self._device = torch.device(device)
        self._model = model.to(self._device).eval()
        self._to_probability = to_probability
        self._batch_tokens = batch_tokens

    def __call__(self, readings: Sequence[Reading]) -> list[Float32Array]:
        """Per reading, one probability a position."""
        found: list[Float32Array] = [np.zeros(0, np.float32)] * len(readings)
        sequences = [reading.token_ids for reading in readings]
        for rows in plan([len(ids) for ids in sequences], self._batch_tokens):
            placed = lay_out(sequences, rows, self._device)
            counts = [len(readings[index].positions) for index in placed.starts]
            flat = [s + p for index, s in placed.starts.items() for p in readings[index].positions]
            with torch.inference_mode():
                logits = self._model(placed, torch.tensor(flat, dtype=torch.int64, device=self._device))
                raw = self._to_probability(logits).cpu().numpy()
            for index, part in zip(placed.starts, np.split(raw, np.cumsum(counts)[:-1]), strict=True):
                found[index] = part
        return found


class HeadScorer:
    """A head at the end of each step: what is read, its calibration, and steps that cannot be reached."""

    version = 0

    def __init__(
        self,
        probabilities: Callable[[Sequence[Reading]], list[Float32Array]],
        *,
        settings: Mapping[str, Any],
        read: Callable[[ScoreItem], Reading],
    ) -> None:
        self._probabilities = probabilities
        self._calibration = settings.get("calibration", {})
        self._read = read

    def score(self, items: Sequence[ScoreItem]) -> list[ItemScores]:
        readings = [self._read(item) for item in items]
        scores = [np.full(len(item.spans), np.nan, np.float32) for item in items]
        wanted = [index for index, reading in enumerate(readings) if reading.positions]
        found = self._probabilities([readings[index] for index in wanted])
        for index, raw in zip(wanted, found, strict=True):
            scores[index][: len(raw)] = calibration.apply(self._calibration, raw)
        return [
            ItemScores(scores=found, truncated=len(reading.positions) < len(item.spans), version=self.version)
            for item, reading, found in zip(items, readings, scores, strict=True)
        ]


Scorer = ImplicitScorer | HeadScorer


def load_scorer(config: LearnedConfig) -> Scorer:
    """The model that a section names, ready to score. Raises ValueError naming what the directory lacks."""
    if isinstance(config, ImplicitPrmConfig):
        return ImplicitScorer(config)
    settings = read_settings(config.path)
    return HeadScorer(_head(config), settings=settings, read=_reader(config, settings))


def _head(config: DiscriminativePrmConfig | ValuePrmConfig) -> Callable[[Sequence[Reading]], list[Float32Array]]:
    if isinstance(config, DiscriminativePrmConfig) and config.engine == "vllm":
        from prm.models.pooling import PoolingModel, probabilities

        engine = PoolingModel(config)
        return lambda readings: probabilities(engine.logits(readings))
    if isinstance(config, ValuePrmConfig):
        model = load_value(config.path, config.dtype)
        to_probability: ToProbability = value_probability
    else:
        model, labels = load_classifier(config.path, config.dtype)
        to_probability = partial(good_probability, labels=labels)
    return PackedHead(model, to_probability, batch_tokens=config.batch_tokens, device=config.device)


def good_probability(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    """P(the step is not bad)."""
    return torch.sigmoid(good_logit(logits, labels))


def value_probability(logits: torch.Tensor) -> torch.Tensor:
    """(1 + V) / 2."""
    return (1.0 + values(logits)) / 2.0


QWEN_SEPARATOR = "<extra_0>"


def _reader(
    config: DiscriminativePrmConfig | ValuePrmConfig, settings: Mapping[str, Any]
) -> Callable[[ScoreItem], Reading]:
    separator_id = settings.get("separator_id")
    if config.input == "tokens":
        return lambda item: read_tokens(
            item.token_ids, item.spans, separator_id=separator_id, max_tokens=config.max_tokens
        )
    tokenizer = AutoTokenizer.from_pretrained(config.path)
    if separator_id is None:
        separator_id = tokenizer.convert_tokens_to_ids(QWEN_SEPARATOR)
        if separator_id in (None, tokenizer.unk_token_id):
            raise ValueError(
                f"input = 'chat' needs a separator token, and {config.path!r} names none and has no {QWEN_SEPARATOR}; "
                "use input = 'tokens'"
            )
    return lambda item: read_chat(
        tokenizer,
        item.messages,
        item.steps,
        separator_id=separator_id,
        max_tokens=config.max_tokens,
        system=config.system,
    )
