"""A tiny model directory and items to score, for the tests of learned step scorers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from prm.items import ScoreItem
from rl.learner.config import ScratchModel
from rl.learner.scratch import build_model
from rollout.schema import Finish, Group, Job, Message, PolicySpan, Sampling, Task, TokenBudget, Trajectory

TINY = ScratchModel(
    hidden_size=32,
    num_layers=2,
    intermediate_size=48,
    num_heads=2,
    characters="0123456789+;=<> abcdefghijklmnopqrstuvwxyz\n",
    special_tokens=("<sep>",),
    max_positions=128,
    initializer_range=0.2,
)


def tiny_model(path: Path, *, seed: int = 0) -> str:
    """A random language model of a few thousand parameters."""
    build_model(TINY, str(path), seed=seed)
    return str(path)


def items(lengths: list[int], *, prompt: int = 3, step: int = 4, seed: int = 0) -> list[ScoreItem]:
    """One item a length, cut into steps of `step` tokens after the prompt."""
    rng = np.random.default_rng(seed)
    found = []
    for length in lengths:
        starts = range(prompt, length, step)
        found.append(
            ScoreItem(
                token_ids=rng.integers(8, 40, length).astype(np.int32),
                sampled=np.arange(length) >= prompt,
                spans=tuple((start, min(start + step, length)) for start in starts),
            )
        )
    return found


def worded_group(thoughts: list[str], model_dir: str, *, prompt: str = "1+2+3=") -> Group:
    """A group whose siblings thought these texts and answered 6, as tokens of a model's own tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    task = Task(key="k", prompt=(Message(role="user", content=prompt),), answer="6", verifier="exact", source="fake")
    budget = TokenBudget(effort="high", max_prompt_tokens=32, max_thinking_tokens=None, max_answer_tokens=32)
    job = Job(group_id="g", task=task, num_siblings=len(thoughts), budget=budget, sampling=Sampling())
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    trajectories = []
    for sibling, thought in enumerate(thoughts):
        text = f"{thought}</think>6"
        marks = [*thought, "</think>", "6"]
        ids = [*prompt_ids, *(tokenizer.convert_tokens_to_ids(mark) for mark in marks)]
        ends = np.cumsum([0] * len(prompt_ids) + [len(mark) for mark in marks])
        trajectories.append(
            Trajectory(
                group_id="g",
                sibling=sibling,
                token_ids=np.asarray(ids, np.int32),
                sampled=np.arange(len(ids)) >= len(prompt_ids),
                sampler_logprobs=np.zeros(len(ids), np.float32),
                char_ends=ends.astype(np.int32),
                prompt_len=len(prompt_ids),
                text=text,
                thinking=(0, len(thought)),
                answer=(len(text) - 1, len(text)),
                finish=Finish.STOP,
                policy=PolicySpan(start=0, end=0),
            )
        )
    return Group(job=job, trajectories=tuple(trajectories))
