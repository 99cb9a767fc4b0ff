"""Reduction of metrics, the metrics file, TensorBoard without torch, and the clock of phases."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rl.metrics import MetricsWriter, read_metrics, reduce_metrics
from rl.phases import PhaseClock
from rl.step_metrics import time_metrics
from rollout.schema import Metric


def test_each_rule() -> None:
    pairs = [(2.0, 1.0), (4.0, 3.0)]
    rules = ("mean", "sum", "max", "min", "last")
    metrics = [Metric(name=r, value=v, weight=w, reduce=r) for v, w in pairs for r in rules]  # type: ignore[arg-type]
    assert reduce_metrics(metrics) == {"mean": 3.5, "sum": 6, "max": 4, "min": 2, "last": 4}


def test_weightless_means_are_left_out_and_rules_must_agree() -> None:
    assert reduce_metrics([Metric(name="a", value=math.nan, weight=0)]) == {}
    with pytest.raises(ValueError, match=r"'a' must have one reduction, got \['max', 'mean'\]"):
        reduce_metrics([Metric(name="a", value=1), Metric(name="a", value=1, reduce="max")])


def test_writer_flushes_every_step_and_feeds_tensorboard(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    for step in (1, 2):
        writer.write(step, [Metric(name="x", value=step / 2), Metric(name="bad", value=math.inf, reduce="last")])
        assert len(read_metrics(tmp_path / "metrics.jsonl")) == step
    writer.close()
    assert read_metrics(tmp_path / "metrics.jsonl")[1]["metrics"] == {"x": 1.0, "bad": None}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("x")] == [(1, 0.5), (2, 1.0)]


def test_lines_beyond_the_checkpoint_are_set_aside(tmp_path: Path) -> None:
    first = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        first.write(step, [Metric(name="x", value=step)])
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 4, "me')  # killed while writing
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    resumed = MetricsWriter(tmp_path)
    resumed.set_aside(after_step=2)
    resumed.write(3, [Metric(name="x", value=30)])
    resumed.close()
    assert [line["metrics"]["x"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 30]
    aside = (tmp_path / "metrics.set-aside-1.jsonl").read_text().splitlines()
    assert json.loads(aside[0])["step"] == 3 and aside[1] == '{"step": 4, "me'


def test_phases_measure_the_union_of_their_calls() -> None:
    now = 0.0
    clock = PhaseClock(lambda: now)
    one, two, three = clock.phase("generate"), clock.phase("generate"), clock.phase("learn")
    one.__enter__()  # generate 0-3 and 1-6: busy for 6 seconds, not 8
    now = 1.0
    two.__enter__()
    now = 3.0
    one.__exit__(None, None, None)
    now = 6.0
    two.__exit__(None, None, None)
    now = 9.0
    three.__enter__()
    clock.sampled(120)
    now = 10.0
    lap = clock.lap()
    assert lap.seconds == 10 and lap.busy_s == {"generate": 6, "learn": 1} and lap.num_sampled_tokens == 120
    values = reduce_metrics(time_metrics(lap, num_loss_tokens=50))
    assert values["generate/tokens_per_s"] == 20 and values["learn/tokens_per_s"] == 50
    assert values["time/publish_s"] == 0
    idle = {name: value for name, value in values.items() if name.startswith("idle/")}
    assert idle == pytest.approx({"idle/engines": 0.4, "idle/judge": 1.0, "idle/learner": 0.9})
    now = 14.0
    three.__exit__(None, None, None)
    assert clock.lap().busy_s == {"learn": 4}


def test_the_driver_process_loads_no_heavy_library() -> None:
    program = (
        "import sys, tempfile, pathlib, rl.driver, rl.credit.build, rl.sampling.gate, rl.record_reader\n"
        "from rl.metrics import MetricsWriter; from rollout.schema import Metric\n"
        "w = MetricsWriter(pathlib.Path(tempfile.mkdtemp())); w.write(1, [Metric(name='a', value=1)]); w.close()\n"
        "heavy = {'torch', 'ray', 'vllm', 'deepspeed', 'transformers', 'trl', 'tensorflow'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3])
