"""The table of objectives: every one is a valid recipe, and its numbers are at equal tokens."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from launch import plugins, recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load_benchmark() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("objectives", BENCHMARKS / "objectives.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["objectives"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


objectives = load_benchmark()


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_every_objective_is_a_valid_recipe(name: str) -> None:
    config = recipe.load(objectives.RECIPE, [*objectives.COMMON, "run.seed=1", *objectives.OBJECTIVES[name]])
    assert config.budgets.shaping.type == "none" and config.run.seed == 1


def test_every_estimator_is_in_the_table() -> None:
    named = {s.removeprefix("credit.type=") for settings in objectives.ADVANTAGES.values() for s in settings}
    assert set(plugins.registered("ponder.credit")) - {"grpo"} <= named  # grpo is the recipe's own


def test_accuracies_are_read_at_equal_tokens_and_failures_are_named() -> None:
    fast = objectives.Curve(tokens=[10, 20, 30, 40], accuracy=[0.4, 0.6, 0.8, 1.0], held_out=0.9)
    slow = objectives.Curve(tokens=[10, 20, 30], accuracy=[0.4, 0.4, 0.4], held_out=0.4)
    found = objectives.table({("grpo", 0): fast, ("nsr", 0): slow, ("dro", 0): slow}, {("gspo", 0): "engine died"})
    assert (found["tokens"], found["accuracy_before"]) == (30, pytest.approx(0.4))
    rows = found["objectives"]
    assert rows["grpo"]["accuracy"] == pytest.approx(0.6) and rows["grpo"]["note"] == ""
    assert not rows["nsr"]["has_learned"] and rows["nsr"]["note"] == objectives.NOTES["nsr"]
    assert rows["dro"]["note"] == "UNEXPLAINED"
    assert rows["gspo"]["note"] == "engine died" and rows["gspo"]["accuracy"] is None
