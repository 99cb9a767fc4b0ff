"""TRL's side of end_to_end_trl.py: a GRPOTrainer that trains a round whenever a line comes on its standard input."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl_asked import Asked


def main() -> None:
    asked = Asked(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the error stream
    torch.set_num_threads(asked.threads())
    with tempfile.TemporaryDirectory() as out_dir:
        make_trainer(asked, out_dir, answers).train()


def prompts_of(asked: Asked) -> list[dict[str, str]]:
    """Every prompt of every step, in the order in which our sampler gives them. Raises ValueError where TRL would read
    other tokens."""
    from launch import build, task_splits
    from rollout.render import Renderer

    config = asked.config()
    tasks = task_splits.load_task_splits(config.tasks, seed=0).train
    model = config.model.path  # type: ignore[union-attr]
    renderer, tokenizer = Renderer.load(model, config.format), AutoTokenizer.from_pretrained(model)
    said = config.budgets.efforts["high"].instruction
    rows = []
    for number in range(asked.rounds):
        sampler = build.build_sampler(asked.config(number), tasks)
        for _ in range(config.loop.num_steps * config.loop.groups_per_step):
            task = sampler.next()
            ids = renderer.prompt_ids(task.prompt, said)
            text = tokenizer.decode(ids)
            if tokenizer(text=[text])["input_ids"][0] != ids:
                raise ValueError(f"the prompt {text!r} is other tokens to TRL")
            rows.append({"prompt": text, "answer": task.answer})
    return rows


class Rounds(TrainerCallback):  # type: ignore[misc]
    """Waits before the first step of a round, counts from its second step on, and answers after its last."""

    def __init__(self, per_round: int, answers: Any) -> None:
        self._per_round, self._answers = per_round, answers
        self._tokens, self._started = 0, 0.0

    def reward(
        self, completions: list[str], completion_ids: list[list[int]], answer: list[str], **_: Any
    ) -> list[float]:
        """A comparison of strings; what is scored is what is trained on."""
        self._tokens += sum(map(len, completion_ids))
        return [float(text.strip().endswith(right)) for text, right in zip(completions, answer, strict=True)]

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:
            self._answer({"is_up": 1})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        place = state.global_step % self._per_round
        if place == 1:
            self._started, self._tokens = time.perf_counter(), 0
        if place == 0:
            seconds = time.perf_counter() - self._started
            step_s = seconds / (self._per_round - 1)
            self._answer({"tokens_per_s": self._tokens / seconds, "tokens": self._tokens, "step_s": step_s})

    def _answer(self, found: dict[str, float]) -> None:
        print(json.dumps(found), file=self._answers, flush=True)
        if not sys.stdin.readline():
            os._exit(0)  # the other side has gone


def make_trainer(asked: Asked, out_dir: str, answers: Any) -> GRPOTrainer:
    config = asked.config()
    model, learner = config.model.path, config.learner  # type: ignore[union-attr]
    size = config.loop.groups_per_step * config.rollout.group_size
    rows = min(asked.rows, size)
    rounds = Rounds(config.loop.num_steps, answers)

    def reward(**columns: Any) -> list[float]:  # TRL wants a function with a name
        return rounds.reward(**columns)

    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(model),
        reward_funcs=reward,
        train_dataset=Dataset.from_list(prompts_of(asked)),
        callbacks=[rounds],
        args=GRPOConfig(
            output_dir=out_dir,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=size // rows,
            num_generations=config.rollout.group_size,
            max_completion_length=config.budgets.efforts["high"].max_answer_tokens,
            temperature=config.rollout.temperature,
            learning_rate=learner.lr,
            adam_beta1=learner.betas[0],
            adam_beta2=learner.betas[1],
            lr_scheduler_type="constant",
            max_grad_norm=learner.max_grad_norm,
            max_steps=asked.rounds * config.loop.num_steps,
            shuffle_dataset=False,
            use_cpu=True,
            bf16=learner.dtype == "bfloat16",
            report_to="none",
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
        ),
    )


if __name__ == "__main__":
    main()
