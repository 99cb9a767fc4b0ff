"""What happens to the model before training. Runs in isolated processes: torch and transformers stay out of the driver.

The functions are importable without either; they import what they need when they run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgets.coldstart_data import Demonstration, draw_demonstrations
from launch.config import ModelConfig, PathModel
from launch.model_dir import check_model, replace_directory
from rl.coldstart_config import SftConfig
from rollout.config import FormatConfig
from rollout.schema import Task

if TYPE_CHECKING:
    from rl.coldstart import SftRow

NUM_PROBES = 4
MAX_PROBE_TOKENS = 64


def make_model(
    model: ModelConfig,
    out_dir: str,
    *,
    format: FormatConfig,
    tasks: Sequence[Task],
    instructions: Sequence[str],
    num_prompts: int,
    max_prompt_tokens: int,
    seed: int,
) -> tuple[list[list[int]], list[list[int]]]:
    """Put the policy's first weights into `out_dir`, built from scratch or copied; return probes and prompts.

    A run directory holds everything, so the copy is worth its disk space: the source may change or vanish. Probes are
    the token sequences on which engines and learner are compared after each publish: prompts with their references.
    The first `num_prompts` prompts are what the geometry of the hidden states is measured on.
    Raises ValueError when the format does not fit the model's tokenizer or chat template, or no prompt fits its limit.
    """
    from rollout.render import Renderer

    target = Path(out_dir)
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    if isinstance(model, PathModel):
        check_model(Path(model.path), setting="model.path")
        renderer = Renderer.load(model.path, format)  # before the copy: what is wrong is said of the user's directory
        shutil.copytree(model.path, aside)
    else:
        from rl.learner.scratch import build_model

        build_model(model, str(aside), seed=seed)
        renderer = Renderer.load(str(aside), format)
    prompts = [
        renderer.prompt_ids(task.prompt, instructions[number % len(instructions)])
        for number, task in enumerate(tasks[: max(num_prompts, NUM_PROBES)])
    ]
    shortest = min(map(len, prompts))
    if shortest > max_prompt_tokens:
        raise ValueError(
            f"budgets.max_prompt_tokens = {max_prompt_tokens} is less than every prompt that was looked at, with the "
            f"instruction and the chat template {shortest} to {max(map(len, prompts))} tokens; raise it"
        )
    probes = [
        [*prompt, *renderer.response_ids("", task.answer)][-MAX_PROBE_TOKENS:]
        for prompt, task in zip(prompts[:NUM_PROBES], tasks, strict=False)
    ]
    replace_directory(aside, target)
    return probes, prompts[:num_prompts]


def cold_start(
    config: SftConfig,
    format: FormatConfig,
    tasks: Sequence[Task],
    *,
    mix: Mapping[str, float],
    instructions: Mapping[str, str],
    model_dir: str,
    out_dir: str,
    seed: int,
    progress: Callable[[tuple[int, float]], None],
) -> dict[str, Any]:
    """Fine-tune `model_dir` on worked solutions of `tasks`, write it to `out_dir`; return the result as plain data.

    `progress` gets (step, loss): to unpickle the types of `rl.coldstart` the driver would have to load torch.
    """
    from rl.coldstart import run_sft
    from rollout.render import Renderer

    renderer = Renderer.load(model_dir, format)
    drawn = draw_demonstrations(tasks, mix=mix, num_draws=config.num_draws, seed=seed)
    rows: list[SftRow] = []
    known: dict[tuple[str, str], SftRow] = {}
    for demonstration in drawn:
        place = (demonstration.task.key, demonstration.effort)
        if place not in known:
            known[place] = _row(renderer, demonstration, instructions[demonstration.effort])
        rows.append(known[place])
    target = Path(out_dir)
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    result = run_sft(
        config, rows, model_dir, str(aside), seed=seed, progress=lambda now: progress((now.step, now.loss))
    )
    replace_directory(aside, target)
    return asdict(result)


def _row(renderer: Any, demonstration: Demonstration, instruction: str) -> SftRow:
    prompt = renderer.prompt_ids(demonstration.task.prompt, instruction)
    response = renderer.response_ids(demonstration.thinking, demonstration.answer)
    return {"input_ids": [*prompt, *response], "completion_mask": [0] * len(prompt) + [1] * len(response)}
