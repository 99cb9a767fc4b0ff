"""How many loss tokens a second does the learner train on, next to bare PyTorch and next to TRL?

One optimizer step over the same trajectories, each side in its own process, strictly in turn: learner, bare, trl,
trl_same_allocator, learner, ... Medians of the paired ratios, so a machine that is busy for a while slows all alike.

    learner   rl.packing.pack and LearnerEngine.train, in the environment that the actor gets: what runs for a batch
    bare      transformers and torch alone on the micro-batches that the learner packed: forward, output head at loss
              tokens only, log-softmax, the clipped loss, backward, gradient clipping, fused AdamW; same environment
    trl       GRPOTrainer.train() of TRL, generation replaced by the same trajectories; a step is what lies between its
              callbacks on_step_begin and on_step_end. Rows are padded as TRL pads them, in micro-batches as large as
              the learner's limit of positions allows. `trl_same_allocator` runs it in the learner's environment

All in float32 with the same learning rate, clipping, thread count and number of samples an optimizer step. Lengths are
those of real runs (lengths.json). The tiny model has the shape of the recipe quickstart. smollm2 is read from --path;
without that directory a model of its shape with random weights stands in, and the result says so. There each side holds
about 6 GiB: race against them one at a time (--sides bare, then --sides trl) where memory is short.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import DistributedType
from datasets import Dataset
from result import arguments, finish
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from rl.batch import TrainingSample
from rl.learner.actor import rank_environment
from rl.learner.config import LearnerConfig, ScratchModel
from rl.learner.engine import LearnerEngine, Rendezvous
from rl.learner.micro_batch import DeviceBatch, to_device
from rl.learner.scratch import build_model, build_tokenizer
from rl.losses.config import PpoClip
from rl.packing import PackedBatch, pack
from rollout.schema import PolicySpan

LENGTHS = Path(__file__).parent / "lengths.json"
QUICKSTART = ScratchModel(characters="0123456789+;=", max_positions=160, initializer_range=0.08)
SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
    pad_token_id=0,
)
LR, CLIP = 1e-5, 1.0
GROUP = 8
SIDES = ("learner", "bare", "trl", "trl_same_allocator")
Step = Callable[[], object]
MARK = "step took"


def trajectories(model: str, count: int, vocabulary: int) -> list[TrainingSample]:
    """`count` samples with lengths drawn from a real run, and random tokens."""
    histogram = np.asarray(json.loads(LENGTHS.read_text())[model]["lengths"])
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(histogram), size=count, p=histogram[:, 2] / histogram[:, 2].sum())
    samples = []
    for index, (prompt, length, _) in enumerate(histogram[drawn].tolist()):
        mask = np.arange(length) >= prompt
        samples.append(
            TrainingSample(
                group_id=f"g{index // GROUP}",
                sibling=index % GROUP,
                effort="high",
                token_ids=rng.integers(8, vocabulary, length).astype(np.int32),
                loss_mask=mask,
                advantages=np.where(mask, rng.choice([-1.0, 1.0]), 0.0).astype(np.float32),
                sampler_logprobs=np.where(mask, -1.0, 0.0).astype(np.float32),
                policy=PolicySpan(start=0, end=0),
            )
        )
    return samples


def learner_config(options: argparse.Namespace) -> LearnerConfig:
    """Settings of the recipe of that name, as far as they bear on speed."""
    positions = 8192 if options.model == "tiny" else 2048
    return LearnerConfig(lr=LR, max_grad_norm=CLIP, threads_per_rank=options.threads, micro_batch_tokens=positions)


def packed(samples: Sequence[TrainingSample], config: LearnerConfig) -> PackedBatch:
    """As the client in the driver packs a batch for one CPU rank."""
    return pack(
        samples,
        aggregation=PpoClip().aggregation,
        num_ranks=1,
        num_optimizer_steps=1,
        micro_batch_tokens=config.micro_batch_tokens,
        layout="buckets",
    )


def learner(model_dir: str, config: LearnerConfig, samples: Sequence[TrainingSample]) -> Step:
    engine = LearnerEngine(
        config,
        PpoClip(),
        model_dir,
        Rendezvous(rank=0, num_ranks=1, address=free_address()),
        temperature=1.0,
        seed=0,
        total_steps=1000,
        dump_dir=model_dir,
    )
    assert engine.info().layout == "buckets"
    return lambda: engine.train(packed(samples, config))


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def bare(model_dir: str, config: LearnerConfig, samples: Sequence[TrainingSample]) -> Step:
    """Forward, loss, backward and update as one would write them by hand, on the very same micro-batches."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=config.betas, weight_decay=0.0, fused=True)
    (batch,) = packed(samples, config).steps
    micro_batches: list[DeviceBatch] = [to_device(m, torch.device("cpu"), varlen=False) for m in batch.ranks[0]]

    def step() -> None:
        optimizer.zero_grad()
        for m in micro_batches:
            hidden = model.model(input_ids=m.input_ids, use_cache=False, **m.attention).last_hidden_state
            logits = model.lm_head(hidden[m.loss_mask])
            logprobs = F.log_softmax(logits, -1).gather(-1, m.targets[m.loss_mask].unsqueeze(-1)).squeeze(-1)
            ratio = (logprobs - logprobs.detach()).exp()
            advantages = m.advantages[m.loss_mask]
            loss = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
            (loss.sum() / batch.normalizer).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    return step


def answer(step: Step) -> None:
    """Run and time one step for every line that the parent writes."""
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        step()
        report(start, cpu)


def report(start: float, cpu: float) -> None:
    print(MARK, time.perf_counter() - start, time.process_time() - cpu, flush=True)


class Replay(GRPOTrainer):  # type: ignore[misc]  # TRL is not type-checked
    """TRL's trainer with its generation replaced: everything after it is TRL's own."""

    prepared: dict[str, torch.Tensor]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, torch.Tensor]:
        return dict(self.prepared)


class OnCall(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
    """Lets TRL begin an optimizer step when the parent asks for it, and times it."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        sys.stdin.readline()
        self._start = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        report(*self._start)


def padded(samples: Sequence[TrainingSample]) -> dict[str, torch.Tensor]:
    """What TRL makes of its completions: prompts padded on the left, completions on the right."""
    prompts = [torch.from_numpy(s.token_ids[~s.loss_mask]).long() for s in samples]
    completions = [torch.from_numpy(s.token_ids[s.loss_mask]).long() for s in samples]

    def stack(rows: list[torch.Tensor], side: str) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0, padding_side=side)

    return {
        "prompt_ids": stack(prompts, "left"),
        "prompt_mask": stack([torch.ones_like(p) for p in prompts], "left"),
        "completion_ids": stack(completions, "right"),
        "completion_mask": stack([torch.ones_like(c) for c in completions], "right"),
        "advantages": torch.tensor([float(s.advantages[-1]) for s in samples]),
        "num_items_in_batch": torch.tensor(sum(c.numel() for c in completions)),
    }


def rows_at_once(prepared: dict[str, torch.Tensor], positions: int) -> int:
    """Most rows of a micro-batch that divide the batch and stay within `positions`."""
    total, completion = prepared["completion_ids"].shape
    width = prepared["prompt_ids"].shape[1] + completion
    return max(n for n in range(1, total + 1) if total % n == 0 and n * width <= positions)


def trl_trainer(model_dir: str, samples: Sequence[TrainingSample], positions: int, steps: int, out: str) -> Replay:
    prepared = padded(samples)
    rows = rows_at_once(prepared, positions)
    arguments = GRPOConfig(
        output_dir=out,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=len(samples) // rows,
        num_generations=GROUP,
        max_completion_length=prepared["completion_ids"].shape[1],
        max_steps=steps,
        loss_type="dapo",
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.28,
        learning_rate=LR,
        adam_beta2=0.95,
        max_grad_norm=CLIP,
        lr_scheduler_type="constant",
        save_strategy="no",
        logging_steps=10**6,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Replay(
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["1+1"] * len(samples)}),
        processing_class=build_tokenizer(QUICKSTART),  # never used: nothing is generated
    )
    if trainer.accelerator.distributed_type != DistributedType.NO:
        raise RuntimeError("TRL wraps the model for several processes, which would slow it down")
    trainer.prepared = prepared
    trainer.add_callback(OnCall())
    return trainer


def prepare_model(options: argparse.Namespace, scratch: str) -> tuple[str, str]:
    """Model directory and what it is."""
    if options.model == "tiny":
        build_model(QUICKSTART, scratch, seed=0)
        return scratch, "shape of the recipe quickstart, random weights"
    if options.path.is_dir():
        return str(options.path), f"SmolLM2-135M-Instruct from {options.path.name}"
    torch.manual_seed(0)
    LlamaForCausalLM(SMOLLM2).save_pretrained(scratch)
    return scratch, f"shape of SmolLM2-135M with random weights: there is no {options.path}"


def contest(options: argparse.Namespace, side: str, model_dir: str, count: int) -> None:
    """The work of one side's process."""
    torch.set_num_threads(options.threads)
    config = learner_config(options)
    samples = trajectories(options.model, count, vocabulary(options))
    match side:
        case "learner":
            answer(learner(model_dir, config, samples))
        case "bare":
            answer(bare(model_dir, config, samples))
        case _:
            with tempfile.TemporaryDirectory() as out:
                trl_trainer(model_dir, samples, config.micro_batch_tokens, options.repeats + 1, out).train()


def vocabulary(options: argparse.Namespace) -> int:
    return QUICKSTART.vocab_size if options.model == "tiny" else int(SMOLLM2.vocab_size)


def start(options: argparse.Namespace, side: str, model_dir: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--model", options.model, "--threads", str(options.threads)]
    command += ["--repeats", str(options.repeats), "--side", side, model_dir, str(count)]
    environment = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
    if side != "trl":
        environment |= rank_environment(learner_config(options))
    if side == "trl_same_allocator":
        del environment["LOCAL_RANK"]  # TRL takes it for a launch with several processes
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def seconds_of(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one step of that side."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("step\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith(MARK):  # the libraries print too
            wall, cpu = line.removeprefix(MARK).split()
            return float(wall), float(cpu)
    raise RuntimeError(f"a side ended early: {process.args}")


def measure(options: argparse.Namespace, scratch: str) -> tuple[dict[str, float], dict[str, Any]]:
    is_tiny = options.model == "tiny"
    count = (64 if is_tiny else 8) if options.quick else (512 if is_tiny else 32)
    options.repeats = options.repeats or ((3 if is_tiny else 1) if options.quick else (15 if is_tiny else 5))
    model_dir, description = prepare_model(options, scratch)
    sides = ("learner", *options.sides)
    processes = {side: start(options, side, model_dir, count) for side in sides}
    wall: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    try:
        for _ in range(options.repeats + 1):  # the first is a warm-up
            for side, process in processes.items():
                seconds = seconds_of(process)
                wall[side].append(seconds[0])
                cpu[side].append(seconds[1])
    finally:
        for process in processes.values():
            process.kill()
            process.wait()

    samples, config = trajectories(options.model, count, vocabulary(options)), learner_config(options)
    batch, prepared = packed(samples, config), padded(samples)
    loss_tokens = batch.steps[0].num_loss_tokens
    ratios = {
        kind: {side: median(a / b for a, b in zip(times[side], times["learner"], strict=True)) for side in sides[1:]}
        for kind, times in (("wall", wall), ("cpu", cpu))
    }
    metrics = {
        **{f"ratio_{side}": ratios["wall"][side] for side in ("bare", "trl") if side in sides},
        "padding_waste": batch.padding_share,
        **{f"tokens_per_s_{side}": loss_tokens / median(wall[side]) for side in sides},
    }
    details = {
        "model": description,
        "threads": options.threads,
        "samples": count,
        "loss_tokens": loss_tokens,
        "steps_timed": options.repeats,
        "ratios_of_wall_time": ratios["wall"],
        "ratios_of_cpu_time": ratios["cpu"],
        "learner_micro_batches": [list(m.input_ids.shape) for m in batch.steps[0].ranks[0]],
        "learner_positions": sum(m.num_positions for m in batch.steps[0].ranks[0]),
        "trl_micro_batch_rows": rows_at_once(prepared, config.micro_batch_tokens),
        "trl_positions": prepared["prompt_ids"].numel() + prepared["completion_ids"].numel(),
        "load_average": os.getloadavg()[0],
    }
    return metrics, details


def median(values: Iterable[float]) -> float:
    """Without the first, the warm-up."""
    return statistics.median(list(values)[1:])


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", choices=["tiny", "smollm2"], default="tiny")
    parser.add_argument("--path", type=Path, default=Path("models/smollm2"), help="directory of SmolLM2-135M-Instruct")
    parser.add_argument("--threads", type=int, default=1, help="threads of every side")
    parser.add_argument("--repeats", type=int, help="timed steps of each side")
    parser.add_argument("--sides", nargs="+", choices=SIDES[1:], default=SIDES[1:], help="whom to race against")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)  # how it calls itself: side, model, samples
    options = parser.parse_args()
    if options.side:
        side, model_dir, count = options.side
        contest(options, side, model_dir, int(count))
        return
    with tempfile.TemporaryDirectory() as scratch:
        metrics, details = measure(options, scratch)
    threads = f"_{options.threads}_threads" if options.threads > 1 else ""
    name = f"learner_speed_{options.model}{threads}" + ("_quick" if options.quick else "")
    finish(name, metrics, details, store=options.store)


if __name__ == "__main__":
    main()
