"""Time of one training step at most, from stated formulas: every response as long as its budget allows.

    decoding   waves * L * max( (P b + B K_b) / bandwidth, 2 P B / operations ) / 0.6
               waves = ceil(sequences of an engine / max_num_seqs); B sequences at a time; L longest response;
               K_b bytes of keys and values of a sequence half as long as it may become; an engine on several GPUs has
               the operations and the bandwidth of all of them
    learning   6 P T / (ranks * operations * 0.4), a third more with gradient checkpointing; T tokens of the batch
    lag        with buffer.max_lag = 0 a step takes decoding + learning, otherwise the longer of the two

0.6 and 0.4 are the shares of the peak that good kernels reach on large models. A model of a few million parameters
reaches a hundredth of it, because a step of the engine then costs a fixed few milliseconds, which is added: see
`ENGINE_STEP_S`. Judging runs beside the next generation and is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from launch.config import RunConfig
from launch.plan.machine import Machine
from launch.plan.memory import BYTES, longest_sequence, width
from launch.plan.shape import ModelShape

DECODING_SHARE = 0.6
LEARNING_SHARE = 0.4
CHECKPOINTING = 4 / 3
ENGINE_STEP_S = {"cpu": 0.008, "cuda": 0.006}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Upper estimates of one step, in seconds, and what they are for."""

    sequences: int
    longest_response: int
    tokens: int  # prompt and response of all sequences, at their longest
    decode_s: float
    learn_s: float
    is_overlapped: bool

    @property
    def step_s(self) -> float:
        return max(self.decode_s, self.learn_s) if self.is_overlapped else self.decode_s + self.learn_s


def step_time(config: RunConfig, shape: ModelShape, machine: Machine) -> StepTime:
    sequences = config.loop.groups_per_step * config.rollout.group_size
    total = longest_sequence(config)
    response = max(total - config.budgets.max_prompt_tokens, 1)
    return StepTime(
        sequences=sequences,
        longest_response=response,
        tokens=sequences * total,
        decode_s=_decode(config, shape, machine, sequences, response),
        learn_s=_learn(config, shape, machine, sequences * total),
        is_overlapped=config.buffer.max_lag > 0,
    )


def _decode(config: RunConfig, shape: ModelShape, machine: Machine, sequences: int, response: int) -> float:
    rollout = config.rollout
    each = math.ceil(sequences / rollout.num_engines)
    at_once = min(each, rollout.max_num_seqs)
    flops, bandwidth = _peaks(rollout.device, rollout.threads_per_engine, machine)
    size = BYTES[rollout.dtype]
    cache = shape.num_layers * shape.kv_width * size * longest_sequence(config)  # keys and values at half the length
    flops, bandwidth = flops * width(config), bandwidth * width(config)
    moved = (shape.num_parameters * size + at_once * cache) / bandwidth
    computed = 2 * shape.num_parameters * at_once / flops
    token = max(moved, computed) / DECODING_SHARE + ENGINE_STEP_S[rollout.device]
    return math.ceil(each / at_once) * response * token


def _learn(config: RunConfig, shape: ModelShape, machine: Machine, tokens: int) -> float:
    learner = config.learner
    flops, _ = _peaks(learner.device, learner.threads_per_rank, machine)
    work = 6 * shape.num_parameters * tokens * learner.epochs * (CHECKPOINTING if learner.gradient_checkpointing else 1)
    return work / (flops * learner.num_ranks * LEARNING_SHARE)


def _peaks(device: str, threads: int, machine: Machine) -> tuple[float, float]:
    """Operations and bytes a second."""
    if device == "cuda":
        return machine.gpu_peaks
    return machine.cpu_flops * min(threads, machine.cores), machine.cpu_bandwidth
