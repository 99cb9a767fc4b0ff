"""What an evaluation is asked: by its options, under a recipe's settings, about tasks in modes; whatever the policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgets.modes import Mode, base_of, parse_modes
from launch.evaluation.policies import is_endpoint
from launch.evaluation.settings import EvalSettings
from launch.evaluation.tasks import find_tasks
from rollout.schema import Sampling, Task


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the command line says about a server: model, variable of its key, fields by mode, requests at a time."""

    model: str | None = None
    api_key_env: str | None = None
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    num_requests: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """What the command line says."""

    policy: str | None = None
    tasks: str = "held_out"
    modes: str | None = None
    num_samples: int = 4
    out: Path | None = None
    limit: int | None = None
    recipe: str | None = None
    overrides: Sequence[str] = ()
    base: str | None = None
    against: Path | None = None
    seed: int = 0
    temperature: float | None = None
    numeric_instruction: str | None = None
    is_enforced: bool = True
    saved: Path | None = None
    keeps_verdicts: bool = False
    table: Mapping[str, Any] = field(default_factory=dict)  # how rows of a task file are read
    server: ServerOptions = ServerOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be measured, whatever the policy."""

    options: EvalOptions
    settings: EvalSettings
    tasks: tuple[Task, ...]
    modes: tuple[Mode, ...]
    out: Path

    @property
    def context(self) -> dict[str, Any]:
        """What texts and verdicts depend on besides policy, modes and tasks."""
        return {
            "format": self.settings.format.model_dump(mode="json"),
            "rewards": self.settings.rewards.model_dump(
                mode="json", include={"components", "task_settings", "plugins"}
            ),
            "sampling": {
                "temperature": self.sampling.temperature,
                "top_p": self.sampling.top_p,
                "top_k": self.sampling.top_k,
            },
            "max_model_len": self.settings.rollout.max_model_len,
        }

    @property
    def sampling(self) -> Sampling:
        rollout, asked = self.settings.rollout, self.options.temperature
        temperature = rollout.temperature if asked is None else asked
        return Sampling(temperature=temperature, top_p=rollout.top_p, top_k=rollout.top_k)


def ask(
    options: EvalOptions, settings: EvalSettings, *, name: str = "modes", tasks: tuple[Task, ...] | None = None
) -> Question:
    """The question, its tasks loaded unless they are given. `name` begins the directory of the results, where none is
    given."""
    modes = parse_modes(
        options.modes or ",".join([*settings.budgets.efforts, "auto"]),
        settings.budgets,
        numeric_instruction=options.numeric_instruction,
        is_enforced=options.is_enforced,
        can_begin=options.policy is None or not is_endpoint(options.policy),
    )
    base_of(modes, options.base)
    if tasks is None:
        tasks = find_tasks(options.tasks, settings, changes=options.table, limit=options.limit)
    return Question(
        options=options, settings=settings, tasks=tasks, modes=tuple(modes), out=directory_of(options, name)
    )


def directory_of(options: EvalOptions, name: str) -> Path:
    """Where the results go."""
    policy = options.policy or f"again-{options.saved}"
    return options.out or Path("runs") / f"{name}-{re.sub(r'[^A-Za-z0-9._-]+', '-', policy).strip('-.')}"


def check_room(question: Question) -> None:
    """Refuse a mode that the engines have no positions for, before anything is started."""
    longest = question.settings.rollout.max_model_len
    for mode in question.modes:
        budget = mode.budget
        needed = budget.max_prompt_tokens + (budget.max_thinking_tokens or 0) + budget.max_answer_tokens
        if mode.kind == "number" and longest is not None and needed > longest:
            raise ValueError(
                f"mode {mode.name} may need {needed} tokens (prompt {budget.max_prompt_tokens}, answer "
                f"{budget.max_answer_tokens}) and rollout.max_model_len is {longest}; take a smaller number, or raise "
                "it with --set rollout.max_model_len=... as far as the model allows"
            )
