"""What the soak and the scale benchmark make of their numbers, without running anything long."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module(request.param)
    for name in set(sys.modules) - before:
        if name in {path.stem for path in BENCHMARKS.glob("*.py")}:
            del sys.modules[name]


def row(step: int, driver: float, descriptors: float = 40) -> dict[str, Any]:
    return {
        "step": step,
        "driver": {"mib": driver, "descriptors": descriptors, "threads": 20},
        "learner": {"mib": 600.0, "descriptors": 9, "threads": 5},
        "raylet": {"mib": 50.0, "descriptors": 9, "threads": 5},
        "engine": {"mib": 900.0, "processes": 1 if step % 40 == 0 else 2},
    }


@pytest.mark.parametrize("benchmark", ["soak"], indirect=True)
def test_growth_is_seen_and_the_warm_up_is_not(benchmark: Any) -> None:
    """200 MiB in the first quarter are the warm-up; 30 MiB in 100 steps after it are a leak, 5 are not."""
    steps = range(10, 401, 10)
    metrics, details = benchmark.judged([row(s, 300 + 2 * min(s, 100) + 0.05 * s) for s in steps], 400)
    assert metrics["driver_mib_per_100_steps"] == pytest.approx(5.0) and metrics["flat"] == 1.0
    assert metrics["learner_mib_per_100_steps"] == pytest.approx(0.0, abs=1e-6)
    assert (details["from_step"], details["to_step"]) == (100, 400)
    metrics, _ = benchmark.judged([row(s, 300 + 0.3 * s) for s in steps], 400)
    assert metrics["driver_mib_per_100_steps"] == pytest.approx(30.0) and metrics["flat"] == 0.0
    metrics, _ = benchmark.judged([row(s, 300, descriptors=40 + s / 20) for s in steps], 400)
    assert metrics["driver_descriptors_per_100_steps"] == pytest.approx(5.0) and metrics["flat"] == 0.0
    with pytest.raises(ValueError, match="too few notes"):
        benchmark.judged([row(400, 300.0)], 400)


@pytest.mark.parametrize("benchmark", ["scale_world"], indirect=True)
def test_the_clock_moves_with_the_driver_and_jumps_over_waiting(benchmark: Any) -> None:
    """An hour of waiting takes no time; 50 ms of computing are 50 ms; what another process would compute is none."""
    meter = benchmark.Meter()

    def compute(seconds: float) -> None:
        ends = time.thread_time() + seconds
        while time.thread_time() < ends:
            pass

    async def story() -> tuple[float, float, float]:
        now = asyncio.get_running_loop().time
        start = now()
        await asyncio.sleep(3600)
        waited = now() - start
        compute(0.05)
        await asyncio.sleep(0)
        computed = now() - start - waited
        with meter.outside():
            compute(0.05)
        await asyncio.sleep(0)
        return waited, computed, now() - start - waited - computed

    with asyncio.Runner(loop_factory=lambda: benchmark.SimulatedLoop(meter)) as runner:
        began = time.perf_counter()
        waited, computed, simulated = runner.run(story())
        assert time.perf_counter() - began < 60
    assert 3600 <= waited < 3600.05 and 0.05 <= computed < 0.08 and simulated < 0.03


@pytest.mark.parametrize("benchmark", ["scale_world"], indirect=True)
def test_latencies_are_drawn_from_the_quantiles(benchmark: Any) -> None:
    latencies = benchmark.Latencies(seconds={"learn": [1.0, 2.0, 9.0]}, ray_call_s=0.0)
    drawn = sorted(latencies.draw("learn") for _ in range(2000))
    assert drawn[0] >= 1.0 and drawn[-1] <= 9.0 and drawn[1000] == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("benchmark", ["scale_sim"], indirect=True)
def test_the_headline_says_where_it_breaks(benchmark: Any) -> None:
    def point(engines: int, overhead: float, lag: int = 0) -> dict[str, float]:
        return {"engines": engines, "max_lag": lag, "driver_overhead": overhead, "longer": 1 / (1 - overhead)}

    found = {
        "smollm2": [point(64, 0.01), point(256, 0.04), point(512, 0.2), point(1024, 0.3), point(1024, 0.9, lag=1)],
        "tiny": [point(256, 0.05)],
    }
    assert benchmark.headline(found) == {
        "driver_overhead_256": 0.04,
        "breaks_at": 512,
        "driver_overhead_256_tiny": 0.05,
        "breaks_at_tiny": 0,
    }
