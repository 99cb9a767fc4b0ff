"""LoRA on real DeepSpeed: only adapters move, what is published is merged, and a checkpoint goes on to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from rl.learner.config import LearnerConfig, LoraConfig, ScratchModel
from rl.learner.engine import LearnerEngine, Rendezvous
from rl.learner.scratch import build_model
from rl.losses.config import PpoClip
from rl.packing import PackedBatch, pack
from tests.fakes.learner import training_batch

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("rank_environment")]
SPEC = ScratchModel(hidden_size=64, num_layers=2, intermediate_size=64, num_heads=2, initializer_range=0.1)
LORA = LoraConfig(rank=4, alpha=8.0, target_modules=("q_proj", "down_proj"))
PROBES = [[8, 9, 10, 11], [9, 9, 14, 15, 16]]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("model"))
    build_model(SPEC, path, seed=0)
    return path


def make(model_dir: str, **settings: Any) -> LearnerEngine:
    config = LearnerConfig(**{"lr": 1e-2, "micro_batch_tokens": 256, "lora": LORA, **settings})
    rendezvous = Rendezvous(rank=0, num_ranks=1, address="tcp://127.0.0.1:29637")
    return LearnerEngine(
        config,
        PpoClip(),
        model_dir,
        rendezvous,
        temperature=1.0,
        seed=0,
        total_steps=100,
        dump_dir=f"{model_dir}_dump",
    )


def batch(seed: int) -> PackedBatch:
    return pack(
        training_batch(16, seed=seed).samples,
        aggregation=PpoClip().aggregation,
        num_ranks=1,
        num_optimizer_steps=1,
        micro_batch_tokens=256,
        layout="buckets",
    )


def weights(engine: LearnerEngine) -> dict[str, torch.Tensor]:
    return {name: tensor for i in range(engine.info().num_chunks) for name, tensor in engine.export_chunk(i)}


@pytest.mark.parametrize(("zero_stage", "dtype"), [(0, "float32"), (2, "float32"), (3, "float32"), (1, "bfloat16")])
def test_only_adapted_matrices_move_and_the_merged_model_is_the_learner(
    model_dir: str, tmp_path: Path, zero_stage: int, dtype: str
) -> None:
    engine = make(model_dir, zero_stage=zero_stage, dtype=dtype)
    before = weights(engine)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype)).state_dict()
    assert before.keys() == base.keys() and all(torch.equal(before[name], base[name]) for name in base)
    for seed in range(3):
        engine.train(batch(seed))
    after = weights(engine)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {name for name in after if "q_proj" in name or "down_proj" in name}

    engine.save(str(tmp_path))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), tmp_path / "adapter")
    tolerance = 1e-5 if dtype == "float32" else 5e-2
    for ids, probe in zip(PROBES, engine.probe(PROBES), strict=True):
        for model in (merged, adapted):
            with torch.no_grad():
                scores = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
            expected = scores[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()
            assert np.abs(probe[1:] - expected).max() < tolerance


def test_optimizer_state_is_that_of_the_adapters_alone(model_dir: str) -> None:
    engine = make(model_dir)
    engine.train(batch(0))
    held = sum(s["exp_avg"].numel() for s in engine._optimizer.state.values())
    # rank * (in + out), two layers, q_proj 64 x 64 and down_proj 64 x 64
    assert held == 2 * 2 * 4 * (64 + 64)


def test_a_resumed_adapter_goes_on_to_the_bit(model_dir: str, tmp_path: Path) -> None:
    straight = make(model_dir)
    for seed in range(3):
        straight.train(batch(seed))
    first = make(model_dir)
    first.train(batch(0))
    first.save(str(tmp_path))
    resumed = make(model_dir)
    resumed.load(str(tmp_path))
    for seed in (1, 2):
        resumed.train(batch(seed))
    assert straight.checksums() == resumed.checksums()
    with pytest.raises(ValueError, match=r"'lora': \{.*this run has.*'lora': None"):
        make(model_dir, lora=None).load(str(tmp_path))


@pytest.mark.parametrize("target", [("lm_head",), ("embed_tokens", "q_proj")])
def test_the_head_and_the_embedding_cannot_be_adapted(model_dir: str, target: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="names the embedding or the output head"):
        make(model_dir, lora=LoraConfig(target_modules=target))
    with pytest.raises(ValueError, match="no_such_matrix"):
        make(model_dir, lora=LoraConfig(target_modules=("no_such_matrix",)))
