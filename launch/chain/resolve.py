"""From a chain's file to the settings of every stage, all checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from launch import recipe
from launch.chain.config import ChainConfig, SftStage
from launch.config import PathModel, RunConfig
from launch.recipe import RecipeError
from launch.sessions import find_recipe
from rollout.config import Columns, DecontaminateConfig, FilesSource

LATER_MODEL = "the model of the stage before"  # stands for a path that is known when the stage begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain with the settings of the whole (`base`, which suites are measured under) and of each stage, in order."""

    config: ChainConfig
    base: RunConfig
    stages: Mapping[str, RunConfig]


def load(path: Path, overrides: Sequence[str] = ()) -> Chain:
    """Read a chain, apply `--set`, resolve its stages. Raises RecipeError with what is wrong and where."""
    tables = recipe.apply(recipe.read(path), overrides)
    for part in ("stages", "suites"):  # `--set suites.NAME=none` takes one away
        if isinstance(tables.get(part), dict):
            tables[part] = {name: table for name, table in tables[part].items() if table is not None}
    if "stages" not in tables:
        raise RecipeError(f"{path} has no [stages.NAME] tables, so it is no chain; a recipe is run with ponder train")
    try:
        config = ChainConfig.model_validate(tables)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors(include_url=False)]
        raise RecipeError(f"{path}: {'; '.join(lines)}") from error
    base = _resolved(config, config.chain.recipe, {}, where=str(path))
    stages = {}
    for number, (name, stage) in enumerate(config.stages.items()):
        tables = _tables(config, stage.recipe or config.chain.recipe, stage.settings)
        if number:
            tables["model"] = {"type": "path", "path": LATER_MODEL}
        if not isinstance(stage, SftStage) and "sft" not in stage.settings:
            tables.pop("sft", None)
        try:
            stages[name] = recipe.check(tables, where=str(path))
        except RecipeError as error:
            raise RecipeError(f"stage {name!r}: {error}") from error
        if isinstance(stage, SftStage) and stages[name].sft is None:
            raise RecipeError(f"stage {name!r} of type 'sft' needs an [sft] section; put it into the stage's settings")
    return Chain(config=config, base=base, stages=stages)


def dump(chain: Chain) -> dict[str, Any]:
    """What a chain that goes on later reads: nothing of it depends on files that may have changed since."""
    return {
        "chain": chain.config.model_dump(mode="json"),
        "base": recipe.dump(chain.base),
        "stages": {name: recipe.dump(config) for name, config in chain.stages.items()},
    }


def restored(value: Mapping[str, Any], *, where: str) -> Chain:
    """What `dump` wrote."""
    return Chain(
        config=ChainConfig.model_validate(value["chain"]),
        base=recipe.check(value["base"], where=where),
        stages={name: recipe.check(tables, where=where) for name, tables in value["stages"].items()},
    )


def stage_config(config: RunConfig, *, place: Path, model: Path | None, suites: Path) -> RunConfig:
    """The settings that a stage runs under: in its own directory, from the model before, without the suites' tasks."""
    rule = config.tasks.decontaminate or DecontaminateConfig()
    asked = FilesSource(paths=(str(suites),), columns=Columns(prompt="prompt", answer="answer"))
    tasks = config.tasks.model_copy(
        update={"decontaminate": rule.model_copy(update={"against": (*rule.against, asked)})}
    )
    run = config.run.model_copy(update={"dir": str(place.parent), "name": place.name})
    changes: dict[str, Any] = {"run": run, "tasks": tasks}
    if model is not None:
        changes["model"] = PathModel(path=str(model))
    return config.model_copy(update=changes)


def merged(tables: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`tables` with `changes` on top, table by table; one with another `type` is replaced whole."""
    result = dict(tables)
    for key, value in changes.items():
        old = result.get(key)
        is_same = isinstance(old, Mapping) and isinstance(value, Mapping) and _type(value, old) == old.get("type")
        result[key] = merged(old, value) if isinstance(old, Mapping) and is_same else value
    return result


def _type(value: Mapping[str, Any], old: Mapping[str, Any]) -> Any:
    return value.get("type", old.get("type"))


def _tables(config: ChainConfig, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return merged(merged(recipe.read(find_recipe(name)), config.settings), settings)


def _resolved(config: ChainConfig, name: str, settings: Mapping[str, Any], *, where: str) -> RunConfig:
    return recipe.check(_tables(config, name, settings), where=where)


def _explain(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}" if place else str(problem["msg"])
