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
from budgets.config import PLACE, EffortConfig
from launch.config import ModelConfig, PathModel
from launch.model_dir import check_model, replace_directory
from rl.coldstart_config import SftConfig
from rollout.config import FormatConfig
from rollout.schema import Task

if TYPE_CHECKING:
    from rl.coldstart import SftRow
    from rollout.render import Renderer

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
    efforts: Mapping[str, EffortConfig],
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
            known[place] = sft_row(renderer, demonstration, efforts[demonstration.effort])
        rows.append(known[place])
    target = Path(out_dir)
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    result = run_sft(
        config, rows, model_dir, str(aside), seed=seed, progress=lambda now: progress((now.step, now.loss))
    )
    replace_directory(aside, target)
    return asdict(result)


def sft_row(renderer: Renderer, demonstration: Demonstration, effort: EffortConfig) -> SftRow:
    """A solution as the rollouts would render it. What the effort puts in is given, not learned.

    An instruction that names a number names the tokens that the solution thinks for. Raises ValueError for a solution
    that does not begin with the effort's prefix.
    """
    thinking, preface = demonstration.thinking, demonstration.preface
    if not preface.startswith(effort.prefix):
        raise ValueError(
            f"the worked solution of task {demonstration.task.key} for effort {demonstration.effort!r} must begin with "
            f"the effort's prefix {effort.prefix!r}, got the preface {preface!r}; write it so, or change the prefix"
        )
    number = str(len(renderer.forced_ids(thinking)))
    prompt = renderer.prompt_ids(demonstration.task.prompt, effort.instruction.replace(PLACE, number))
    response = renderer.response_ids(thinking, demonstration.answer, preface=preface)
    given = [*renderer.forced_ids(effort.prefix)]
    if response[: len(given)] != given:
        raise ValueError(
            f"the tokenizer joins the prefix {effort.prefix!r} of effort {demonstration.effort!r} with the text after "
            "it, so the cold start would not train what is generated; end the prefix with a space or a line break"
        )
    num_given = len(prompt) + len(given)
    mask = [0] * num_given + [1] * (len(prompt) + len(response) - num_given)
    return {"input_ids": [*prompt, *response], "completion_mask": mask}
