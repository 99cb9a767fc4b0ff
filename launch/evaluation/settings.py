"""What an evaluation of modes runs under: the sections of a recipe that matter without training.

They come from the recipe that is named, else from the run that the policy belongs to, else from the defaults below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from budgets.config import BudgetsConfig, EffortConfig
from launch import recipe
from launch.config import ClusterConfig, PrmSection, RunConfig
from launch.recipe import RecipeError
from launch.sessions import find_recipe
from prm.config import NoPrmConfig
from rewards.config import RewardsConfig
from rollout.config import Columns, FilesSource, FormatConfig, RolloutConfig, TasksConfig
from rollout.tasks.files import READERS

DEFAULT_EFFORTS = {
    "high": EffortConfig(
        instruction="Think thoroughly: look at the problem from several sides, check every step, then answer.",
        max_thinking_tokens=8192,
        max_answer_tokens=1024,
    ),
    "medium": EffortConfig(
        instruction="Think as far as the problem needs and do not repeat yourself, then answer.",
        max_thinking_tokens=4096,
        max_answer_tokens=1024,
    ),
    "low": EffortConfig(
        instruction="Think as little as you can, then answer.", max_thinking_tokens=1024, max_answer_tokens=1024
    ),
}


class EvalSettings(BaseModel):
    """The sections of a recipe that an evaluation reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: FormatConfig = FormatConfig()
    """How thinking is marked."""
    tasks: TasksConfig | None = None
    """Where tasks come from, if not from a file."""
    rollout: RolloutConfig = RolloutConfig(max_num_seqs=256)
    """Engines and sampling."""
    budgets: BudgetsConfig = Field(default=BudgetsConfig(efforts=DEFAULT_EFFORTS, max_prompt_tokens=4096))
    """Efforts and their limits."""
    rewards: RewardsConfig = RewardsConfig()
    """The verifier service."""
    prm: PrmSection = NoPrmConfig()
    """The step scorer, which a search is guided by."""
    cluster: ClusterConfig = ClusterConfig()
    """The Ray that engines run in."""
    seed: int = 0
    """Seed of the tasks: the held-out ones are then those of the run."""

    @classmethod
    def of(cls, config: RunConfig) -> EvalSettings:
        shared = {name: getattr(config, name) for name in cls.model_fields if name != "seed"}
        return cls(**shared, seed=config.run.seed if config.tasks.seed is None else config.tasks.seed)


def run_of(path: Path) -> Path | None:
    """The run directory that a path lies in, or is; None if it is in none."""
    for place in (path, *path.resolve().parents):
        if (place / "config.json").is_file() and (place / "manifest.json").is_file():
            return place
    return None


def load_settings(name: str | None, run: Path | None, overrides: Sequence[str]) -> EvalSettings:
    """Settings of the recipe called `name`, else of the run, else the defaults; with `--set` on top of any."""
    if name is not None:
        return EvalSettings.of(recipe.load(find_recipe(name), overrides))
    if run is not None:
        return EvalSettings.of(recipe.load(run / "config.json", overrides))
    return _defaults(overrides)


def _defaults(overrides: Sequence[str]) -> EvalSettings:
    tables: Mapping[str, Any] = EvalSettings().model_dump(mode="json", exclude_none=True)
    try:
        return EvalSettings.model_validate(recipe.apply(tables, overrides))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise RecipeError(
            f"{place}: {problem['msg']}; without --recipe or a run, --set changes the defaults"
        ) from error


# ------------------------------------------------------------------------------------------------ tasks


def is_task_file(name: str) -> bool:
    """Whether `--tasks` names a file of rows, or a pattern of them."""
    return Path(name).suffix in READERS


def file_source(name: str, settings: EvalSettings, changes: Mapping[str, Any]) -> FilesSource:
    """The rows of a file, read as the recipe reads its own table of tasks where it has one; `changes` go on top."""
    known: dict[str, Any] = {}
    if settings.tasks is not None:
        tables = [settings.tasks.held_out.source, settings.tasks.train]
        like = next((source for source in tables if source is not None and hasattr(source, "columns")), None)
        if like is not None:
            known = like.model_dump(include=set(FilesSource.model_fields) - {"type", "paths", "limit", "solutions"})
    columns = {**known.pop("columns", {}), **{k: v for k, v in changes.items() if k in Columns.model_fields}}
    rest = {k: v for k, v in changes.items() if k not in Columns.model_fields}
    return FilesSource(paths=(name,), columns=Columns(**columns), **{**known, **rest})
