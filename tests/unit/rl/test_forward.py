"""Log-probabilities of chosen tokens: right numbers, independent of chunks, padding and packing."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from rl.learner.config import LearnerConfig, ScratchModel
from rl.learner.forward import TokenScorer, check_head, varlen_attention
from rl.learner.micro_batch import to_device
from rl.learner.model import load_model
from rl.learner.scratch import build_model
from rl.losses.config import TokenMean
from rl.packing import MicroBatch, pack
from tests.fakes.learner import training_batch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).train()


def micro_batches(layout: str, micro_batch_tokens: int = 4096) -> list[MicroBatch]:
    batch = pack(
        training_batch(12).samples,
        aggregation=TokenMean(),
        num_ranks=1,
        num_optimizer_steps=1,
        micro_batch_tokens=micro_batch_tokens,
        layout=layout,  # type: ignore[arg-type]
        row_tokens=64 if layout == "packed" else None,
    )
    return list(batch.steps[0].ranks[0])


def score(scorer: TokenScorer, batches: list[MicroBatch]) -> tuple[dict[tuple[int, int], float], list[torch.Tensor]]:
    """Log-probability of each (sample, position), and the gradient of their weighted sum."""
    scorer.zero_grad()
    found = {}
    for m in batches:
        d = to_device(m, CPU, varlen=False)
        logprobs, _ = scorer(*d.tokens, attention=d.attention)
        (logprobs * torch.cos(d.targets)).sum().backward()
        keys = zip(m.segments[m.loss_mask].tolist(), m.position_ids[m.loss_mask].tolist(), strict=True)
        found |= dict(zip(keys, logprobs[d.loss_mask].tolist(), strict=True))
    return found, [p.grad.clone() for p in scorer.parameters()]


def close(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.allclose(x, y, atol=1e-5, rtol=1e-4) for x, y in zip(a, b, strict=True))


def test_logprobs_and_entropy_are_those_of_a_plain_forward(model: LlamaForCausalLM) -> None:
    scorer = TokenScorer(model, temperature=0.7, max_logit_mib=1)
    (m,) = micro_batches("buckets")
    d = to_device(m, CPU, varlen=False)
    logprobs, entropies = scorer(*d.tokens, attention=d.attention)
    for row in range(m.input_ids.shape[0]):
        length = int((m.segments[row] >= 0).sum())  # one sample alone, without its padding
        logits = model(input_ids=d.input_ids[row : row + 1, :length]).logits[0].float() / 0.7
        expected = F.log_softmax(logits, dim=-1)
        chosen = d.loss_mask[row, :length]
        picked = expected.gather(-1, d.targets[row, :length, None])[:, 0]
        assert torch.allclose(logprobs[row, :length][chosen], picked[chosen], atol=1e-5)
        assert torch.allclose(entropies[row, :length][chosen], -(expected.exp() * expected).sum(-1)[chosen], atol=1e-5)
    assert (logprobs[~d.loss_mask] == 0).all() and not entropies.requires_grad


def test_chunks_change_neither_values_nor_gradients(model: LlamaForCausalLM) -> None:
    whole = TokenScorer(model, temperature=1.0, max_logit_mib=1)
    chunked = TokenScorer(model, temperature=1.0, max_logit_mib=1)
    chunked.head.chunk_tokens = 7
    (values, gradients), (other_values, other_gradients) = (
        score(s, micro_batches("buckets")) for s in (whole, chunked)
    )
    assert other_values == pytest.approx(values, abs=1e-5)
    assert close(gradients, other_gradients)


@pytest.mark.parametrize(("layout", "tokens"), [("packed", 4096), ("packed", 64), ("buckets", 64)])
def test_layouts_agree(model: LlamaForCausalLM, layout: str, tokens: int) -> None:
    scorer = TokenScorer(model, temperature=1.0, max_logit_mib=1)
    values, gradients = score(scorer, micro_batches("buckets"))
    other_values, other_gradients = score(scorer, micro_batches(layout, tokens))
    assert other_values == pytest.approx(values, abs=1e-5)
    assert close(gradients, other_gradients)


def test_boundaries_for_a_varlen_kernel_by_hand() -> None:
    segments = torch.tensor([[4, 4, 4, 0], [2, 7, -1, -1]])  # rows are laid end to end; padding is a stretch of its own
    attention = varlen_attention(segments.view(1, -1), torch.zeros(1, 8))
    assert attention["cu_seq_lens_q"].tolist() == attention["cu_seq_lens_k"].tolist() == [0, 3, 4, 5, 6, 8]
    assert attention["max_length_q"] == attention["max_length_k"] == 3


def test_a_model_that_changes_its_logits_after_the_head_is_refused(model: LlamaForCausalLM) -> None:
    check_head(model)

    class Capped(LlamaForCausalLM):  # type: ignore[misc]
        def forward(self, *args: object, **options: object) -> object:
            output = super().forward(*args, **options)
            output.logits = 0.1 * torch.tanh(output.logits / 0.1)
            return output

    capped = Capped(model.config)
    capped.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="changes its logits after the output head"):
        check_head(capped)


def test_a_directory_without_weights_or_without_some_of_them_is_refused(tmp_path: Path) -> None:
    config = LearnerConfig()
    with pytest.raises(ValueError, match="holds no weights"):
        load_model(str(tmp_path), config)
    spec = ScratchModel(hidden_size=64, num_layers=2, intermediate_size=64, num_heads=2)
    build_model(spec, str(tmp_path / "one"), seed=0)
    build_model(spec.model_copy(update={"num_layers": 3}), str(tmp_path / "two"), seed=0)
    (tmp_path / "one" / "config.json").write_bytes((tmp_path / "two" / "config.json").read_bytes())
    with pytest.raises(ValueError, match=r"lacks 9 tensors, first \['model\.layers\.2"):
        load_model(str(tmp_path / "one"), config)


def test_dropout_is_off(tmp_path: Path) -> None:
    spec = ScratchModel(hidden_size=64, num_layers=1, intermediate_size=64, num_heads=2)
    build_model(spec, str(tmp_path), seed=0)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"attention_dropout": 0.0', '"attention_dropout": 0.5'))
    model = load_model(str(tmp_path), LearnerConfig())
    ids = torch.arange(8).unsqueeze(0)
    assert model.training and torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
