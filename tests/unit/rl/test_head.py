"""The fused output head: values and gradients of plain logits, whatever the chunk, and no [tokens, vocabulary] kept."""

import pytest
import torch
import torch.nn.functional as F

from rl.learner import head as head_module
from rl.learner.head import ChunkedHead

TOKENS, WIDTH, VOCABULARY = 23, 8, 50
Scored = tuple[torch.Tensor, torch.Tensor]


def parts(dtype: torch.dtype, *, bias: bool = False) -> tuple[torch.Tensor, torch.nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    linear = torch.nn.Linear(WIDTH, VOCABULARY, bias=bias).to(dtype)
    hidden = torch.randn(TOKENS, WIDTH, dtype=dtype).mul_(2.0).requires_grad_()
    return hidden, linear, torch.randint(0, VOCABULARY, (TOKENS,))


def plain(hidden: torch.Tensor, linear: torch.nn.Linear, labels: torch.Tensor, temperature: float) -> Scored:
    scores = F.log_softmax(linear(hidden).to(torch.float64) / temperature, dim=-1)
    return scores.gather(-1, labels[:, None])[:, 0], -(scores.exp() * scores).sum(-1)


def mixed(logprobs: torch.Tensor, entropies: torch.Tensor, *, entropy: float) -> torch.Tensor:
    """A loss with another weight for each token, so that a mixed-up row shows."""
    weights = torch.linspace(-1.0, 2.0, TOKENS, dtype=logprobs.dtype)
    return (weights * logprobs).sum() + entropy * (weights.flip(0) * entropies).sum()


def gradients(hidden: torch.Tensor, linear: torch.nn.Linear, loss: torch.Tensor) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, [hidden, *linear.parameters()])
    return [g.double() for g in found]


@pytest.fixture(params=[(1000, 2**19), (7, 2**19), (7, 120), (1, 1)], ids=str)
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Tokens a chunk; the block inside a chunk is set too."""
    chunk, block = request.param
    monkeypatch.setattr(head_module, "BLOCK_ELEMENTS", block)
    return int(chunk)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("entropy", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_values_and_gradients_are_those_of_plain_logits(
    sizes: int, dtype: torch.dtype, tolerance: float, entropy: float, bias: bool
) -> None:
    hidden, linear, labels = parts(dtype, bias=bias)
    head = ChunkedHead(linear, max_logit_mib=1)
    head.chunk_tokens = sizes
    found = head(hidden, labels, temperature=0.7, entropy_gradient=entropy > 0)
    expected = plain(hidden, linear, labels, 0.7)
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype == torch.float32 and torch.allclose(value.double(), reference, atol=1e-5)
    assert found[1].requires_grad is (entropy > 0)
    ours = gradients(hidden, linear, mixed(*found, entropy=entropy))
    theirs = gradients(hidden, linear, mixed(*expected, entropy=entropy))
    for gradient, reference in zip(ours, theirs, strict=True):
        assert (gradient - reference).abs().max() <= tolerance * reference.abs().max()


def test_gradients_by_finite_differences() -> None:
    """Two tokens, three words, float32, hence the wide step."""
    torch.manual_seed(1)
    linear = torch.nn.Linear(2, 3, bias=False)
    labels = torch.tensor([2, 0])
    head = ChunkedHead(linear, max_logit_mib=1)
    hidden = torch.randn(2, 2, requires_grad=True)

    def value(h: torch.Tensor) -> torch.Tensor:
        logprobs, entropies = head(h, labels, temperature=1.3, entropy_gradient=True)
        return logprobs[0] - 2 * logprobs[1] + 0.5 * entropies.sum()

    (gradient,) = torch.autograd.grad(value(hidden), hidden)
    for index in range(4):
        step = torch.zeros(4).index_fill_(0, torch.tensor(index), 1e-2).view(2, 2)
        slope = (value(hidden + step) - value(hidden - step)) / 2e-2
        assert slope.item() == pytest.approx(float(gradient.flatten()[index]), abs=1e-3)


def test_a_second_backward_pass_gives_the_same_gradients() -> None:
    hidden, linear, labels = parts(torch.float32)
    loss = ChunkedHead(linear, max_logit_mib=1)(hidden, labels, temperature=1.0)[0].sum()
    first = torch.autograd.grad(loss, [hidden, linear.weight], retain_graph=True)
    second = torch.autograd.grad(loss, [hidden, linear.weight])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(first, second, strict=True))


def test_a_frozen_head_gets_no_gradient_and_no_tokens_are_no_error() -> None:
    hidden, linear, labels = parts(torch.float32)
    linear.requires_grad_(False)
    ChunkedHead(linear, max_logit_mib=1)(hidden, labels, temperature=1.0)[0].sum().backward()
    assert linear.weight.grad is None and hidden.grad is not None
    linear.requires_grad_(True)
    logprobs, _ = ChunkedHead(linear, max_logit_mib=1)(hidden[:0], labels[:0], temperature=1.0)
    assert torch.equal(torch.autograd.grad(logprobs.sum(), linear.weight)[0], torch.zeros(VOCABULARY, WIDTH))


def test_memory_for_the_backward_pass_is_one_chunk() -> None:
    """What the graph keeps of size [*, vocabulary] is the last chunk's logits, in the dtype of the model."""
    hidden, linear, labels = parts(torch.bfloat16)
    head = ChunkedHead(linear, max_logit_mib=1)
    assert head.chunk_tokens == 2**20 // (2 * VOCABULARY)
    head.chunk_tokens = 10
    logprobs, _ = head(hidden, labels, temperature=1.0)
    node = logprobs.grad_fn
    assert node is not None
    assert node.kept.shape == (3, VOCABULARY) and node.kept.dtype == torch.bfloat16  # 23 tokens: 10, 10, 3
    saved = [t for t in node.saved_tensors if t is not None and t is not linear.weight]
    assert all(t.numel() <= TOKENS * WIDTH for t in saved)
