"""Every recipe parses, the settings do not sprawl, and each of them is explained."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from launch import recipe
from launch.chain import resolve
from launch.chain.config import ChainConfig
from launch.config import RunConfig

ROOT = Path(__file__).parents[2]
TOMLS = sorted((ROOT / "launch/recipes").glob("*.toml")) + sorted((ROOT / "examples").rglob("*.toml"))
CHAINS = [path for path in TOMLS if "stages" in recipe.read(path)]
RECIPES = [path for path in TOMLS if path not in CHAINS]
MAX_LEAVES = 557  # raising it needs a sentence in the commit
MAX_FIELDS = 20


def settings_classes(model: type[BaseModel] = RunConfig) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for part in recipe.models_in(field.annotation):
            yield from settings_classes(part)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses(path: Path) -> None:
    recipe.load(path)


@pytest.mark.parametrize("path", CHAINS, ids=lambda path: path.stem)
def test_every_chain_parses(path: Path) -> None:
    resolve.load(path)


def test_the_number_of_settings_is_held() -> None:
    assert len(set(recipe.leaves())) <= MAX_LEAVES


SECTIONS = {*settings_classes(), *settings_classes(ChainConfig)}


@pytest.mark.parametrize("model", sorted(SECTIONS, key=lambda c: c.__name__), ids=lambda c: c.__name__)
def test_every_section_is_small_closed_and_explained(model: type[BaseModel]) -> None:
    assert len(model.model_fields) <= MAX_FIELDS
    assert model.model_config.get("extra") == "forbid"
    assert model.model_config.get("frozen") is True
    unexplained = [name for name, field in model.model_fields.items() if name != "type" and not field.description]
    assert not unexplained
