"""A step classifier served by vLLM gives the scores of our own forward pass, through the actor and its client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from prm.actor_model import start_model_scorer
from prm.config import SeparatorSplitter
from prm.items import item_of
from prm.models.config import DiscriminativePrmConfig
from prm.models.discriminative import new_classifier, save_classifier
from prm.models.scorer import load_scorer
from tests.fakes.prm import TINY, tiny_model, worded_group

pytestmark = pytest.mark.stack
THOUGHTS = ["1+2+3;3+3;6", "1+2;3", "9;9;9;9;9;9;9;9;9;9;9;9", "4+4"]


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Qwen2 with a random two-class head, temperature-calibrated, in Qwen's layout."""
    root = tmp_path_factory.mktemp("models")
    words = tiny_model(root / "words")
    torch.manual_seed(3)
    settings = Qwen2Config(
        vocab_size=len(AutoTokenizer.from_pretrained(words)),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=TINY.max_positions,
        initializer_range=0.2,
    )
    Qwen2ForCausalLM(settings).save_pretrained(root / "policy")
    AutoTokenizer.from_pretrained(words).save_pretrained(root / "policy")
    model = new_classifier(str(root / "policy"), "hard", "float32")
    kept = {"kind": "discriminative", "labels": "hard", "calibration": {"type": "temperature", "temperature": 2.0}}
    save_classifier(model, str(root / "policy"), str(root / "classifier"), kept)
    return str(root / "classifier")


async def test_vllm_scores_as_we_do(cluster: None, classifier: str, tmp_path: Path) -> None:
    config = DiscriminativePrmConfig(
        path=classifier, splitter=SeparatorSplitter(), max_tokens=24, batch_tokens=96, engine="vllm", kv_cache_gib=0.05
    )
    group = worded_group(THOUGHTS, classifier)
    client = start_model_scorer(config, state_dir=str(tmp_path / "prm"))
    try:
        served = await client.score(group)
        again = await client.score(group)
    finally:
        client.close()
    assert all(item is not None for item in served)
    spans = [item.spans for item in served if item is not None]
    own = load_scorer(config.model_copy(update={"engine": "torch"}))
    expected = own.score([item_of(t, s) for t, s in zip(group.trajectories, spans, strict=True)])
    for got, repeated, wanted in zip(served, again, expected, strict=True):
        assert got is not None and repeated is not None
        np.testing.assert_allclose(got.scores, wanted.scores, atol=2e-5)
        np.testing.assert_allclose(got.scores, repeated.scores, atol=2e-5)
        assert got.truncated == wanted.truncated
    assert [item.truncated for item in expected] == [False, False, True, False]
    spread = np.concatenate([item.scores for item in expected])
    assert np.nanstd(spread) > 0.02  # else equal scores would prove nothing


async def test_vllm_refuses_what_it_does_not_serve(cluster: None, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "llama")
    config = DiscriminativePrmConfig(path=other, max_tokens=24, batch_tokens=96, engine="vllm")
    with pytest.raises(ValueError, match=r"set prm\.engine = 'torch'"):
        start_model_scorer(config, state_dir=str(tmp_path / "prm"))
