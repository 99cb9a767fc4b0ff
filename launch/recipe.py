"""TOML recipe plus `--set` overrides in, checked `RunConfig` out; every mistake becomes one clear error.

An override is `section.key=value`, its value in TOML: `--set learner.lr=2e-4`, `--set run.name="night"`.
    - A value that is no TOML is taken as a string: `--set run.name=night` needs no quotes through the shell.
    - `none` without quotes takes a setting or a whole section away: `--set sft=none`.
    - Another `type` starts its table anew: `--set prm.type=none` drops the settings of the type that was there.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from launch.config import RunConfig


class RecipeError(ValueError):
    """A recipe or an override that cannot be run as written."""


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the recipe (or the resolved JSON of a run) at `path`, apply `overrides` in order, check the whole."""
    return check(apply(read(path), overrides), where=str(path))


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML or JSON file."""
    if not path.is_file():
        beside = sorted(str(p) for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        known = f"; recipes there: {', '.join(beside)}" if beside else ""
        raise RecipeError(f"there is no recipe at {path}{known}")
    try:
        if path.suffix == ".json":
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return content
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid {path.suffix[1:].upper() or 'TOML'}: {error}") from error


def apply(tables: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`tables` with each `section.key=value` set; tables on the way are made when absent. The input is not changed."""
    result: dict[str, Any] = json.loads(json.dumps(tables, default=str))
    for override in overrides:
        keys, value = _parse(override)
        table = result
        for depth, key in enumerate(keys[:-1]):
            if table.get(key) is None:
                table[key] = {}
            table = table[key]
            if not isinstance(table, dict):
                raise RecipeError(
                    f"--set {override}: {'.'.join(keys[: depth + 1])} is a value, not a table of settings"
                )
        if keys[-1] == "type" and table.get("type", value) != value:
            table.clear()
        table[keys[-1]] = value
    return result


def check(tables: Mapping[str, Any], *, where: str) -> RunConfig:
    """Validate; raises RecipeError naming each wrong key with its value and what would be right."""
    if "stages" in tables:
        raise RecipeError(f"{where} is a chain of stages; run it with ponder chain")
    try:
        return RunConfig.model_validate(tables)
    except ValidationError as error:
        lines = [_explain(dict(problem)) for problem in error.errors(include_url=False)]
        raise RecipeError(f"{where}: " + "; ".join(dict.fromkeys(lines))) from error


def dump(config: RunConfig) -> dict[str, Any]:
    """The resolved settings as JSON values: every default written out, nulls kept."""
    resolved: dict[str, Any] = config.model_dump(mode="json")
    return resolved


def leaves(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Dotted name of every setting a recipe may hold; the members of a union all count."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}" + (".NAME" if _is_mapping(field.annotation) else "")
        nested = list(models_in(field.annotation))
        if not nested:
            yield path
        for part in nested:
            yield from leaves(part, f"{path}.")


def _parse(override: str) -> tuple[list[str], Any]:
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    value = _value(text.strip(), is_type=keys[-1] == "type")
    if not equals or not all(keys) or (len(keys) < 2 and value is not None):
        raise RecipeError(f"--set {override!r} must read section.key=value, for example --set learner.lr=1e-4")
    return keys, value


def _value(text: str, *, is_type: bool) -> Any:
    if text == "none" and not is_type:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(problem: dict[str, Any]) -> str:
    place, siblings = _locate(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {place}{_closest(place, siblings)}"
    if problem["type"] == "missing":
        return f"{place} is required and not set"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("value_error", "union_tag_invalid", "union_tag_not_found", "model_type"):
        return f"{place}: {message}" if place else message
    return f"{place} = {problem['input']!r}: {message}"


def _locate(location: Sequence[Any]) -> tuple[str, set[str]]:
    """The place as a recipe writes it, and the settings that exist in its table.

    pydantic puts the tag of a chosen union member into a location ("credit", "grpo", "epsilon"); recipes do not.
    """
    models: list[type[BaseModel]] = [RunConfig]
    is_mapping = False
    place: list[str] = []
    siblings: set[str] = set()
    for part in map(str, location):
        tagged = [model for model in models if place and part in _tag_of(model)]
        if tagged and len(models) > 1:
            models = tagged
            continue
        place.append(part)
        siblings = set() if is_mapping else {name for model in models for name in model.model_fields}
        if is_mapping:
            is_mapping = False
            continue
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        is_mapping = any(_is_mapping(field.annotation) for field in fields)
        models = [inner for field in fields for inner in models_in(field.annotation)]
    return ".".join(place), siblings


def _closest(place: str, siblings: set[str]) -> str:
    """The nearest valid setting: in the same table first, else one of the same or a similar name elsewhere."""
    parent, _, key = place.rpartition(".")
    if close := difflib.get_close_matches(key, siblings, n=1):
        return f"; did you mean {parent + '.' if parent else ''}{close[0]}?"
    known = sorted(set(leaves()))
    same = [name for name in known if name.rpartition(".")[2] == key]
    if close := same[:1] or difflib.get_close_matches(place, known, n=1, cutoff=0.75):
        return f"; did you mean {close[0]}?"
    return f"; the settings there are {', '.join(sorted(siblings))}" if siblings else ""


def _tag_of(model: type[BaseModel]) -> tuple[str, ...]:
    kind = model.model_fields.get("type")
    return () if kind is None else tuple(map(str, get_args(kind.annotation)))


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_is_mapping(part) for part in get_args(annotation))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every settings class inside an annotation: the class itself, a union's members, a mapping's values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in get_args(annotation):
        yield from models_in(part)
