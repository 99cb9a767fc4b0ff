"""How much memory does one training step take, next to a plain transformers loss on the same model?

8,192 tokens at a vocabulary of 49,152, in micro-batches of one: the setting where logits weigh most. Each side trains
in a process of its own; reported is the peak above what the process held once model and optimizer state stood, which
is after a first step on 64 tokens. On a CPU that is resident memory, read from the kernel every 2 ms and from its own
high-water mark; on a GPU torch.cuda.max_memory_allocated.

    learner      LearnerEngine.train as the actor runs it
    plain        model(...).logits, log-softmax, gather, entropy without gradient, the clipped loss, backward, gradient
                 clipping, fused AdamW; the same attention, gradient checkpointing and dtype

The model has the shape of SmolLM2-135M with random weights. Both sides recompute activations, without which they alone
would take about 15 GiB; --no-checkpointing keeps them, and --layers builds fewer than 30 layers. Memory of activations
grows with the layers, on both sides alike, memory of logits does not.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from learner_speed import SMOLLM2, free_address
from result import arguments, finish
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from rl.batch import TrainingSample
from rl.learner.actor import rank_environment
from rl.learner.config import LearnerConfig
from rl.learner.engine import LearnerEngine, Rendezvous
from rl.learner.micro_batch import to_device
from rl.losses.config import PpoClip
from rl.packing import PackedBatch, pack
from rollout.schema import PolicySpan

TOKENS, PROMPT = 512, 64
MIB = 2**20


class Peak:
    """Largest memory of this process while the block runs, above what it held at its start."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._process = psutil.Process()
        self._is_over = threading.Event()

    def __enter__(self) -> Peak:
        gc.collect()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated()
            return self
        self.base = self.top = self._process.memory_info().rss
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_gpu:
            self.top = torch.cuda.max_memory_allocated()
            return
        self._is_over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.002):
            self.top = max(self.top, self._process.memory_info().rss)

    @property
    def mib(self) -> float:
        return (self.top - self.base) / MIB


def batch(config: LearnerConfig, num_samples: int, length: int) -> PackedBatch:
    """`num_samples` trajectories of `length` positions; all but the prompt are loss tokens."""
    rng = np.random.default_rng(0)
    mask = np.arange(length + 1) > min(PROMPT, length // 2)
    samples = [
        TrainingSample(
            group_id="g",
            sibling=i,
            effort="high",
            token_ids=rng.integers(8, SMOLLM2.vocab_size, length + 1).astype(np.int32),
            loss_mask=mask,
            advantages=np.where(mask, rng.choice([-1.0, 1.0]), 0.0).astype(np.float32),
            sampler_logprobs=np.where(mask, -10.0, 0.0).astype(np.float32),
            policy=PolicySpan(start=0, end=0),
        )
        for i in range(num_samples)
    ]
    return pack(
        samples,
        aggregation=PpoClip().aggregation,
        num_ranks=1,
        num_optimizer_steps=1,
        micro_batch_tokens=config.micro_batch_tokens,
        layout="buckets",
    )


def learner(config: LearnerConfig, model_dir: str) -> Callable[[PackedBatch], object]:
    engine = LearnerEngine(
        config,
        PpoClip(),
        model_dir,
        Rendezvous(rank=0, num_ranks=1, address=free_address()),
        temperature=1.0,
        seed=0,
        total_steps=100,
        dump_dir=model_dir,
    )
    return engine.train


def plain(config: LearnerConfig, model_dir: str) -> Callable[[PackedBatch], object]:
    """The loss as it is usually written over the logits of a transformers model."""
    device = torch.device(config.device)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, config.dtype)).to(device).train()
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=config.betas, weight_decay=0.0, fused=True)

    def train(packed: PackedBatch) -> None:
        (step,) = packed.steps
        optimizer.zero_grad()
        for m in (to_device(m, device, varlen=False) for m in step.ranks[0]):
            logits = model(input_ids=m.input_ids, use_cache=False, **m.attention).logits.float()
            scores = F.log_softmax(logits, dim=-1)
            logprobs = scores.gather(-1, m.targets.unsqueeze(-1)).squeeze(-1)
            with torch.no_grad():
                entropies = -(scores.exp() * scores).sum(-1)
            ratio = (logprobs - logprobs.detach()).exp()
            losses = -torch.minimum(ratio * m.advantages, ratio.clamp(0.8, 1.28) * m.advantages)
            (losses[m.loss_mask].sum() / step.normalizer).backward()
            entropies[m.loss_mask].mean().item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()

    return train


def contest(options: argparse.Namespace) -> None:
    """The work of one side's process: prints its memory in MiB."""
    side, model_dir = options.side
    config = learner_config(options)
    torch.set_num_threads(options.threads)
    train = {"learner": learner, "plain": plain}[side](config, model_dir)
    train(batch(config, 1, 64))  # optimizer state and buffers stand from here on
    start = time.perf_counter()
    with Peak(options.device) as peak:
        train(batch(config, options.tokens // TOKENS, TOKENS))
    print(json.dumps({"peak_mib": peak.mib, "base_mib": peak.base / MIB, "seconds": time.perf_counter() - start}))


def learner_config(options: argparse.Namespace) -> LearnerConfig:
    return LearnerConfig(
        device=options.device,
        dtype=options.dtype,
        zero_stage=0 if options.dtype == "float32" else 1,
        layout="buckets",
        micro_batch_tokens=options.tokens,
        gradient_checkpointing=not options.no_checkpointing,
        threads_per_rank=options.threads,
    )


def run_side(options: argparse.Namespace, side: str, model_dir: str) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side, model_dir]
    environment = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
    if side == "learner":
        environment |= rank_environment(learner_config(options))
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=8192, help="positions of the one micro-batch")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations, on both sides")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)  # how it calls itself: side, model
    options = parser.parse_args()
    if options.quick:
        options.layers, options.tokens = 2, 1024
    if options.side:
        contest(options)
        return
    shape = LlamaConfig(**{**SMOLLM2.to_dict(), "num_hidden_layers": options.layers})
    with tempfile.TemporaryDirectory() as model_dir:
        torch.manual_seed(0)
        LlamaForCausalLM(shape).save_pretrained(model_dir)
        details: dict[str, Any] = {side: run_side(options, side, model_dir) for side in ("plain", "learner")}
    details |= {"layers": options.layers, "tokens": options.tokens, "vocabulary": SMOLLM2.vocab_size}
    details |= {name: getattr(options, name) for name in ("device", "dtype", "no_checkpointing", "threads")}
    metrics = {
        "peak_ratio": details["learner"]["peak_mib"] / details["plain"]["peak_mib"],
        "peak_mib_learner": details["learner"]["peak_mib"],
        "peak_mib_plain": details["plain"]["peak_mib"],
    }
    kept = "_no_checkpointing" if options.no_checkpointing else ""
    name = f"learner_memory{kept}" + ("_quick" if options.quick else "")
    finish(name, metrics, details, store=options.store)


if __name__ == "__main__":
    main()
