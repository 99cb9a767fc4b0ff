"""The learner on a CUDA device: the same numbers as on the CPU, with NCCL, bfloat16 and the variable-length kernel."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from rl.learner.config import LearnerConfig, ScratchModel
from rl.learner.engine import LearnerEngine, Rendezvous
from rl.learner.head import ChunkedHead
from rl.learner.scratch import build_model
from rl.losses.config import PpoClip
from rl.packing import PackedBatch, pack
from tests.fakes.learner import training_batch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
SPEC = ScratchModel(hidden_size=128, num_layers=2, intermediate_size=128, num_heads=4, initializer_range=0.1)
PROBES = [[8, 9, 10, 11], [12, 13], [9, 9, 14, 15, 16]]


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "0")
        yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("model"))
    build_model(SPEC, path, seed=0)
    return path


def make(model_dir: str, **settings: Any) -> LearnerEngine:
    config = LearnerConfig(**{"lr": 1e-3, "device": "cuda", "micro_batch_tokens": 256, **settings})
    rendezvous = Rendezvous(rank=0, num_ranks=1, address="tcp://127.0.0.1:29639")
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


def packed(engine: LearnerEngine, seed: int) -> PackedBatch:
    info = engine.info()
    return pack(
        training_batch(24, seed=seed).samples,
        aggregation=PpoClip().aggregation,
        num_ranks=1,
        num_optimizer_steps=1,
        micro_batch_tokens=256,
        layout=info.layout,
        row_tokens=info.row_tokens,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_head_gives_the_gradients_of_plain_logits(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 5000, bias=False).to("cuda", dtype)
    hidden = torch.randn(700, 64, device="cuda", dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 5000, (700,), device="cuda")
    head = ChunkedHead(linear, max_logit_mib=1)
    assert head.chunk_tokens < 700
    ours, entropies = head(hidden, labels, temperature=0.8)
    scores = (linear(hidden).float() / 0.8).log_softmax(-1)
    theirs = scores.gather(-1, labels[:, None])[:, 0]
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert torch.allclose(entropies, -(scores.exp() * scores).sum(-1), atol=1e-3)
    weights = torch.linspace(-1, 1, 700, device="cuda")
    for a, b in zip(
        torch.autograd.grad((weights * ours).sum(), [hidden, linear.weight]),
        torch.autograd.grad((weights * theirs).sum(), [hidden, linear.weight]),
        strict=True,
    ):
        assert (a - b).abs().max() <= (1e-4 if dtype == torch.float32 else 2e-2) * b.abs().max()


def test_a_step_in_float32_over_nccl_is_the_step_of_the_cpu(model_dir: str) -> None:
    engine = make(model_dir)
    before = engine.probe(PROBES)
    result = engine.train(packed(engine, 0))
    assert torch.distributed.get_backend() == "nccl" and result.version == 1
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    for ids, probe in zip(PROBES, before, strict=True):
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = scores[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()
        assert np.abs(probe[1:] - expected).max() < 1e-3
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, engine.probe(PROBES), strict=True))


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_steps_in_bfloat16_lower_the_loss_they_should(model_dir: str, zero_stage: int) -> None:
    """The same batch again and again: what was rewarded becomes likelier, so the policy loss falls."""
    engine = make(model_dir, dtype="bfloat16", zero_stage=zero_stage, layout="buckets", num_optimizer_steps=1, epochs=8)
    result = engine.train(packed(engine, 1))
    assert all(np.isfinite(result.losses)) and all(np.isfinite(result.grad_norms))
    assert result.losses[-1] < result.losses[0]


@pytest.mark.skipif(not is_flash_attn_2_available(), reason="needs flash-attn")
def test_the_variable_length_kernel_gives_the_update_of_padded_rows(model_dir: str) -> None:
    seen = []
    for layout in ("packed", "buckets"):
        engine = make(model_dir, dtype="bfloat16", zero_stage=1, layout=layout)
        assert (engine.info().row_tokens is not None) is (layout == "packed")
        result = engine.train(packed(engine, 2))
        seen.append((result, engine.probe(PROBES)))
    (one, probe), (two, other) = seen
    assert one.losses == pytest.approx(two.losses, abs=2e-2)
    assert one.grad_norms == pytest.approx(two.grad_norms, rel=5e-2)
    assert all(np.abs(a - b).max() < 5e-2 for a, b in zip(probe, other, strict=True))
