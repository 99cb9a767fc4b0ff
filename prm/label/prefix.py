"""A trajectory cut at the end of a step: what a continuation starts from."""

from __future__ import annotations

import dataclasses
import hashlib

from rollout.schema import Finish, Task, Trajectory


def cut_at(trajectory: Trajectory, end: int) -> Trajectory:
    """The first `end` tokens, thinking still open. Raises ValueError for an end inside of the prompt."""
    if not trajectory.prompt_len <= end <= len(trajectory.token_ids):
        raise ValueError(f"a prefix ends in [{trajectory.prompt_len}, {len(trajectory.token_ids)}], got {end}")
    size = int(trajectory.char_ends[end - 1]) if end > trajectory.prompt_len else 0
    thinking = trajectory.thinking
    if thinking is not None:
        thinking = None if thinking[0] > size else (thinking[0], min(thinking[1], size))
    answer = trajectory.answer
    if answer is not None:
        answer = None if answer[0] > size else (answer[0], min(answer[1], size))
    return dataclasses.replace(
        trajectory,
        token_ids=trajectory.token_ids[:end].copy(),
        sampled=trajectory.sampled[:end].copy(),
        sampler_logprobs=trajectory.sampler_logprobs[:end].copy(),
        char_ends=trajectory.char_ends[:end].copy(),
        text=trajectory.text[:size],
        thinking=thinking,
        answer=answer,
        finish=Finish.LENGTH,
    )


def seed_of(seed: int, task: Task, token_ids: bytes, index: int) -> int:
    """63 bits that depend on these alone: a label that is made again asks for the same continuations."""
    name = f"{seed}/{task.key}/{index}/".encode() + token_ids
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1
