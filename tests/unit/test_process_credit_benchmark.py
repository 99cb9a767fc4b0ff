"""The arms are valid recipes, and the token ratio is read off the curves as it says."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from launch import recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load_benchmark() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("process_credit", BENCHMARKS / "process_credit.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["process_credit"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


benchmark = load_benchmark()


@pytest.mark.parametrize("regime", benchmark.REGIMES)
@pytest.mark.parametrize("arm", benchmark.ARMS)
def test_every_arm_is_a_valid_recipe_of_the_same_task(arm: str, regime: str) -> None:
    common = benchmark.common_settings(regime, quick=False)
    config = recipe.load(
        BENCHMARKS.parent / benchmark.RECIPE, ["sft=none", *common, "run.seed=1", *benchmark.ARMS[arm]]
    )
    assert list(config.budgets.efforts) == ["high"] and config.run.seed == 1
    assert (config.credit.process is None) == (arm == benchmark.OUTCOME)  # type: ignore[union-attr]
    section = getattr(config.credit, "process", None)
    is_wide = getattr(section, "on_all_wrong", False)
    assert is_wide == arm.endswith("_wide") == (config.sampling.judge_on == "off")  # else such groups are dropped


@pytest.mark.parametrize("regime", benchmark.REGIMES)
def test_cold_starts_are_valid_recipes(regime: str) -> None:
    made = benchmark.REGIMES[regime]
    config = recipe.load(BENCHMARKS.parent / benchmark.RECIPE, [*made.settings, *made.cold])
    assert config.sft is not None and set(made.arms) <= set(benchmark.ARMS)


def test_the_metrics_are_the_best_ratio_of_the_hard_regime_and_the_worst_default() -> None:
    rows = {
        "long_sums": {
            "outcome": {"ratio": 1.0, "gain": 0.0},
            "centered": {"ratio": 0.8, "gain": 0.02},
            "min_form_wide": {"ratio": 0.5, "gain": 0.1},
            "first_error": {"ratio": None, "gain": -0.1},
        },
        "quickstart": {"outcome": {"ratio": 1.0, "gain": 0.0}, "centered": {"ratio": 0.3, "gain": 0.01}},
    }
    metrics, best = benchmark.figures(rows)
    assert best == "min_form_wide" and metrics["tokens_ratio_to_outcome"] == 0.5
    assert metrics["final_accuracy_gain"] == 0.01
    assert "ratio_long_sums_first_error" not in metrics and metrics["gain_long_sums_first_error"] == -0.1


def curve(*points: tuple[float, float]) -> object:
    return benchmark.Curve(*(np.asarray(axis, dtype=np.float64) for axis in zip(*points, strict=True)))


def test_ratio_and_gain_of_curves_worked_by_hand() -> None:
    outcome = curve((0, 0.4), (100, 0.6), (200, 0.8))
    faster = curve((0, 0.4), (80, 0.7), (160, 0.9), (240, 0.9))
    ratio, gain = benchmark.compare([faster], [outcome])
    assert ratio == pytest.approx(120 / 200)  # half-way between 80 and 160 tokens
    assert gain == pytest.approx(0.1)
    slower = curve((0, 0.4), (100, 0.5), (200, 0.6))
    assert benchmark.compare([slower], [outcome]) == (None, pytest.approx(-0.2))
    assert benchmark.compare([outcome], [outcome]) == (pytest.approx(1.0), pytest.approx(0.0))
    mixed = benchmark.interval([faster, slower], [outcome])
    assert mixed["ratio_90"][1] is None and mixed["gain_90"][0] < 0 < mixed["gain_90"][1]


def test_a_run_is_read_with_its_training_tokens_and_a_trailing_mean(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"loop": {"groups_per_step": 2}, "rollout": {"group_size": 3}}))
    lines = [
        {"eval/high/sampled/accuracy": 0.3},
        {"response/tokens_mean": 10.0},
        {"response/tokens_mean": 20.0},
        {"eval/high/sampled/accuracy": 0.5},
    ]
    text = "".join(json.dumps({"step": 0, "metrics": line}) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    found = benchmark.read_curve(tmp_path)
    assert found.tokens.tolist() == [0.0, 180.0]
    np.testing.assert_allclose(found.accuracy, [0.3, 0.4])
