"""`ponder plan`: the formulas against stored runs and against counting, and every refusal."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch import recipe
from launch.cli import app
from launch.plan.fit import misfits
from launch.plan.machine import Machine, this_machine
from launch.plan.memory import GIB, activations, longest_sequence, roles
from launch.plan.shape import ModelShape, shape_of
from launch.plan.time import step_time
from rl.learner.config import ScratchModel

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "launch/recipes/quickstart.toml"
SMOLLM2 = ModelShape(
    num_parameters=134_515_008,
    num_layers=30,
    hidden=576,
    intermediate=1536,
    num_heads=9,
    kv_width=192,
    vocab=49_152,
)
BOX = Machine(cores=64, memory_gib=500.0, gpu="NVIDIA H100 80GB HBM3", num_gpus=8, gpu_memory_gib=80.0)


def test_a_small_model_is_counted_as_it_is_built(tmp_path: Path) -> None:
    from rl.learner.scratch import build_model

    model = ScratchModel(hidden_size=64, num_layers=3, intermediate_size=96, num_heads=2, characters="abc", tied=True)
    build_model(model, str(tmp_path), seed=0)
    built = shape_of(recipe.load(QUICKSTART, ["model.type=path", f"model.path={tmp_path}", "sft=none"]).model)
    ours = shape_of(model)
    assert ours == built


def test_a_directory_is_counted_by_the_headers_of_its_weights(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {}, "a": {"shape": [3, 5]}, "b": {"shape": [7]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text(
        json.dumps({"num_attention_heads": 4, "hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 11})
    )
    config = recipe.load(QUICKSTART, ["model.type=path", f"model.path={tmp_path}", "sft=none"])
    assert shape_of(config.model) == ModelShape(
        num_parameters=22, num_layers=2, hidden=8, intermediate=32, num_heads=4, kv_width=8, vocab=11
    )


@pytest.mark.parametrize(("name", "result"), [("quickstart", "quickstart_seeds"), ("smollm2", "smollm2")])
def test_the_estimate_covers_the_measured_peak_and_is_no_guess(name: str, result: str) -> None:
    """Within half again of what the stored run held at its peak, and not below nine tenths of it."""
    measured = json.loads((ROOT / f"benchmarks/results/{result}.json").read_text())["metrics"]
    peak = measured.get("peak_rss_gib", measured.get("peak_rss_gib_max"))
    config = recipe.load(ROOT / f"launch/recipes/{name}.toml", [])
    shape = SMOLLM2 if name == "smollm2" else shape_of(config.model)
    estimate = sum(role.total_gib for role in roles(config, shape))
    assert 0.9 * peak <= estimate <= 1.5 * peak


def test_worked_memory_of_a_learner_rank() -> None:
    """SmolLM2 in float32: 134.5 M x 4 bytes of weights and of gradients, 8 of moments; 16 ranks share the moments."""
    config = recipe.load(ROOT / "launch/recipes/smollm2.toml", ["learner.num_ranks=16", "cluster.num_cpus=64"])
    rank = next(role for role in roles(config, SMOLLM2) if role.name == "learner rank")
    assert rank.count == 16
    assert rank.parts["weights"] == rank.parts["gradients"] == pytest.approx(134_515_008 * 4 / GIB)
    assert rank.parts["optimizer"] == pytest.approx(134_515_008 * 8 / 16 / GIB)
    layer = 2048 * (10 * 576 + 2 * 192 + 4 * 1536) * 4 + 2 * 2048 * longest_sequence(config) * 9 * 4
    assert activations(config, SMOLLM2) == 30 * layer
    less = recipe.load(ROOT / "launch/recipes/smollm2.toml", ["learner.gradient_checkpointing=true"])
    assert activations(less, SMOLLM2) == layer + 30 * 2048 * 576 * 4


def test_worked_time_of_a_step() -> None:
    """100 operations a parameter and second would be slow: one number a formula, so that a slip of a factor shows."""
    config = recipe.load(QUICKSTART, [])
    shape = shape_of(config.model)
    machine = Machine(cores=2, memory_gib=16.0, cpu_flops=1e10, cpu_bandwidth=1e10)
    step = step_time(config, shape, machine)
    assert step.sequences == config.loop.groups_per_step * config.rollout.group_size
    assert step.learn_s == pytest.approx(6 * shape.num_parameters * step.tokens / (1e10 * 0.4))
    assert step.step_s == step.decode_s + step.learn_s
    ahead = step_time(recipe.load(QUICKSTART, ["buffer.max_lag=1"]), shape, machine)
    assert ahead.step_s == max(ahead.decode_s, ahead.learn_s)
    doubled = step_time(recipe.load(QUICKSTART, ["rollout.num_engines=2"]), shape, machine)
    assert doubled.decode_s == pytest.approx(step.decode_s / 2, rel=0.35)


def test_what_cannot_fit_is_said_with_the_remedy() -> None:
    config = recipe.load(QUICKSTART, [])
    planned = roles(config, shape_of(config.model))
    assert misfits(config, planned, replace(BOX, num_gpus=0)) == []
    small = misfits(config, planned, replace(BOX, memory_gib=1.0))
    assert len(small) == 1 and "1.0 GiB are free" in small[0] and "kv_cache_gib" in small[0]
    few = misfits(config, planned, replace(BOX, cores=1))
    assert few == ["cluster.num_cpus = 2 and this machine gives this process 1 cores: lower it"]


def test_gpus_are_counted_and_their_memory_is_kept() -> None:
    settings = ["rollout.device=cuda", "learner.device=cuda", "rollout.num_engines=6", "learner.num_ranks=4"]
    config = recipe.load(ROOT / "launch/recipes/smollm2.toml", settings)
    planned = roles(config, SMOLLM2)
    assert misfits(config, planned, BOX, num_machines=2) == []
    (found,) = misfits(config, planned, BOX)
    assert "6 x engine, 4 x learner rank take 10 GPUs, and there are 8" in found
    tight = misfits(config, planned, replace(BOX, gpu_memory_gib=5.0), num_machines=2)
    assert len(tight) == 1 and "learner rank needs" in tight[0] and "gradient_checkpointing" in tight[0]


def test_an_engine_on_several_gpus_splits_its_weights_and_adds_their_speed() -> None:
    on_gpu = ["rollout.device=cuda", "learner.device=cuda"]
    smollm2 = ROOT / "launch/recipes/smollm2.toml"
    one, two = (recipe.load(smollm2, [*on_gpu, f"rollout.tensor_parallel={width}"]) for width in (1, 2))
    whole = next(role for role in roles(one, SMOLLM2) if role.name == "engine")
    part = next(role for role in roles(two, SMOLLM2) if role.name.startswith("engine's part"))
    assert (whole.count, part.count) == (1, 2) and part.parts["weights"] == whole.parts["weights"] / 2
    assert step_time(two, SMOLLM2, BOX).decode_s < step_time(one, SMOLLM2, BOX).decode_s
    (found,) = misfits(two, roles(two, SMOLLM2), replace(BOX, num_gpus=2))
    assert "take 3 GPUs, and there are 2" in found


def test_shared_gpus_are_counted_once_and_must_hold_both() -> None:
    settings = ["rollout.device=cuda", "learner.device=cuda", "rollout.num_engines=8", "learner.num_ranks=8"]
    smollm2 = ROOT / "launch/recipes/smollm2.toml"
    split = recipe.load(smollm2, [*settings, "cluster.placement=split"])
    turns = recipe.load(smollm2, [*settings, "cluster.placement=colocated"])
    planned = roles(split, SMOLLM2)
    assert misfits(split, planned, BOX) == [] and misfits(turns, planned, BOX) == []
    engine = next(role for role in planned if role.name == "engine")
    rank = next(role for role in planned if role.name == "learner rank")
    stays = rank.memory_gib - rank.parts["activations"] - rank.parts["logits"] + engine.memory_gib
    for spare, count in ((0.01, 0), (-0.01, 1)):
        box = replace(BOX, gpu_memory_gib=max(stays, rank.memory_gib) / 0.92 + spare)
        found = [line for line in misfits(turns, planned, box) if "colocated" in line]
        assert len(found) == (count if stays > rank.memory_gib else 0)
    narrow = recipe.load(smollm2, [*settings, "cluster.placement=split", "cluster.engine_share=0.01"])
    (found,) = misfits(narrow, planned, BOX)
    assert (
        "engine_share = 0.01 leaves 0.7 GiB of a GPU to engine, which needs" in found
        and "rollout.kv_cache_gib" in found
    )


def test_the_command_prints_a_plan_and_refuses_one_that_cannot_fit() -> None:
    done = CliRunner().invoke(app, ["plan", "quickstart", "--json", "--memory", "8"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["problems"] == [] and found["num_parameters"] > 100_000
    assert {role["name"] for role in found["roles"]} >= {"engine", "learner rank", "judge", "step scorer"}
    refused = CliRunner().invoke(app, ["plan", "quickstart", "--memory", "1"])
    assert refused.exit_code == 2
    missing = CliRunner().invoke(app, ["plan", "quickstart", "--set", "model.type=path", "--set", "model.path=no"])
    assert missing.exit_code != 0


def test_this_machine_is_measured() -> None:
    machine = this_machine()
    assert machine.cores >= 1 and machine.memory_gib > 0
    assert 1e8 < machine.cpu_flops < 1e13 and 1e8 < machine.cpu_bandwidth < 1e13
