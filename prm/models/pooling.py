"""A step classifier inside vLLM, as a pooling model: its own kernels, batching and quantized weights.

    logits at every token     task token_classify, pooling type ALL, no activation
    scores                    ours, from the logits at the positions of a `Reading`

vLLM's own convention (pooling type STEP: the positions of one separator token, a softmax over the classes) is the same
number where a checkpoint has that separator; reading the positions ourselves serves steps without a separator, too, and
a text that spells the separator adds no step.

What vLLM serves of this kind is Qwen2 with the two-layer head and two classes (`Qwen2ForProcessRewardModel`). It runs
in this process, which `prm/actor_model.py` tells it before vLLM is imported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from vllm import LLM, PoolingParams, TokensPrompt
from vllm.config import PoolerConfig

from prm.encode import Reading
from prm.models.config import DiscriminativePrmConfig
from rollout.schema import Float32Array

ARCHITECTURE = "Qwen2ForProcessRewardModel"
BYTES_PER_GIB = 1024**3


def check_architecture(path: str) -> None:
    """Raises ValueError when vLLM does not know the model of this directory as a step classifier."""
    file = Path(path) / "config.json"
    if not file.is_file():
        raise ValueError(f"a model directory holds config.json and weights, {path!r} does not; check prm.path")
    settings = json.loads(file.read_text(encoding="utf-8"))
    names = settings.get("architectures") or []
    if names != [ARCHITECTURE]:
        raise ValueError(
            f"prm.engine = 'vllm' serves {ARCHITECTURE}, and {path!r} is {names}; set prm.engine = 'torch'"
        )


class PoolingModel:
    """The model in an engine of this process. Use it from one thread."""

    def __init__(self, config: DiscriminativePrmConfig) -> None:
        check_architecture(config.path)
        self._llm = LLM(
            model=config.path,
            runner="pooling",
            pooler_config=PoolerConfig(tok_pooling_type="ALL", use_activation=False),
            skip_tokenizer_init=True,
            dtype=config.dtype,
            max_model_len=config.max_tokens,
            max_num_batched_tokens=config.batch_tokens,
            kv_cache_memory_bytes=int(config.kv_cache_gib * BYTES_PER_GIB),
            enable_prefix_caching=False,  # a token whose keys are cached has no logits
            enable_chunked_prefill=False,
            enforce_eager=config.device == "cpu",
            disable_log_stats=True,
        )

    def logits(self, readings: Sequence[Reading]) -> list[torch.Tensor]:
        """Per reading [K, 2] float32 logits at its positions. Raises RuntimeError when the engine lost a token."""
        prompts = [TokensPrompt(prompt_token_ids=reading.token_ids.tolist()) for reading in readings]
        outputs = self._llm.encode(
            prompts, PoolingParams(use_activation=False), pooling_task="token_classify", use_tqdm=False
        )
        found = []
        for reading, output in zip(readings, outputs, strict=True):
            data = output.outputs.data.float()
            if data.shape != (len(reading.token_ids), 2):
                raise RuntimeError(f"vLLM gave logits of shape {tuple(data.shape)} for {len(reading.token_ids)} tokens")
            found.append(data[list(reading.positions)])
        return found


def probabilities(logits: Sequence[torch.Tensor]) -> list[Float32Array]:
    """P(the step is good) from two classes, per reading."""
    return [torch.sigmoid(part[:, 1] - part[:, 0]).cpu().numpy().astype(np.float32) for part in logits]
