"""Rules between the diagnostics and the other sections of a recipe: rule, values, remedy."""

from __future__ import annotations

from rl.diagnostics.config import ALPHA_RANKS, DiagnosticsConfig
from rl.learner.config import LearnerConfig


def check(settings: DiagnosticsConfig, num_held_out: int, learner: LearnerConfig) -> None:
    """Raise ValueError for what cannot be measured."""
    if settings.geometry_every and settings.geometry_tasks > num_held_out:
        raise ValueError(
            f"diagnostics.geometry_tasks = {settings.geometry_tasks} is more than tasks.held_out.num_tasks = "
            f"{num_held_out}; lower the first or raise the second"
        )
    if settings.gradient_every and learner.zero_stage == 3:
        raise ValueError(
            f"diagnostics.gradient_every = {settings.gradient_every} needs whole weight matrices on a rank, and "
            f"learner.zero_stage = 3 splits them; set zero_stage = 2 or gradient_every = 0"
        )
    if settings.gradient_every and learner.lora is not None:
        raise ValueError(
            f"diagnostics.gradient_every = {settings.gradient_every} reads the gradients of the attention matrices, "
            f"and with learner.lora they are frozen; leave learner.lora out or set gradient_every = 0"
        )


def doubts(settings: DiagnosticsConfig, *, num_steps: int, width: int | None) -> list[str]:
    """What will be measured otherwise than wished. `width` is the model's, where the recipe says it."""
    found = []
    if settings.gradient_every > num_steps:
        found.append(
            f"diagnostics.gradient_every = {settings.gradient_every} is more than loop.num_steps = {num_steps}, so no "
            f"gradient is ever measured; lower it"
        )
    last = ALPHA_RANKS[1]
    if settings.geometry_every and (settings.geometry_tasks <= last or (width is not None and width < last)):
        found.append(
            f"diagnostics: alpha-ReQ needs a model at least {last} wide and more than {last} prompts, got width "
            f"{width or 'of the given model'} and geometry_tasks = {settings.geometry_tasks}, so it is left out; raise "
            f"them if it is wanted"
        )
    return found
