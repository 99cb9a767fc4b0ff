"""Each loss against numbers worked out by hand: log-ratios .3, -.1, .05; log-probabilities of CISPO -.5, -1, -.2."""

import math

import pytest

from rl.losses.config import Cispo, Decoupled, Dppo, Dro, Gmpo, Gspo, LossConfig, PpoClip, Rloo, Sapo, Topr
from rl.losses.objective import Objective
from tests.fakes.losses import loss_inputs, one_row, one_row_gradient

ROW = [0.3, -0.1, 0.05]


@pytest.mark.parametrize(
    ("config", "good", "bad"),
    [
        (PpoClip(), -1.078703, 1.101989),
        (Gspo(), -1.0004, 1.086904),
        (Gspo(token=True), -1.0004, 1.086904),
        (Gmpo(log_clip=0.4), -1.086904, 1.086904),
        (Gmpo(log_clip=0.2), -1.051271, 1.086904),
        (Sapo(), -(2.346333 + 1.904909 + 2.051260) / 3, (2.250739 + 1.809678 + 1.956021) / 3),
        (Rloo(), -1.2, math.exp(0.25)),
    ],
)
def test_worked_row(config: LossConfig, good: float, bad: float) -> None:
    assert one_row(config, ROW, 1.0).loss.item() == pytest.approx(good, abs=1e-6)
    assert one_row(config, ROW, -1.0).loss.item() == pytest.approx(bad, abs=1e-6)


@pytest.mark.parametrize(
    ("advantage", "expected"), [(1.0, [1.309381, 0.902792, 1.050581]), (-1.0, [1.305324, 0.902583, 1.050510])]
)
def test_worked_gradient_weights_of_sapo(advantage: float, expected: list[float]) -> None:
    _, gradient = one_row_gradient(Sapo(), ROW, advantage)
    assert [-3 * advantage * g for g in gradient] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_worked_row_of_cispo(advantage: float) -> None:
    """The learner's log-probabilities are -.5, -1, -.2 here, so the anchor's differ from them by the row."""
    anchor = [-0.5 - 0.3, -1.0 + 0.1, -0.2 - 0.05]
    output, gradient = one_row_gradient(Cispo(max_ratio=1.2), [0.0, 0.0, 0.0], advantage, anchor=anchor)
    assert output.loss.item() == pytest.approx(advantage * 0.571697, abs=1e-6)
    assert gradient == pytest.approx([-advantage * w / 3 for w in (1.2, 0.904837, 1.051271)], abs=1e-6)


@pytest.mark.parametrize(("ratio", "weight"), [(0.5, 0.5), (2.0, 1.0)])
def test_topr_tapers_bad_sequences_only(ratio: float, weight: float) -> None:
    row = [math.log(ratio) / 2] * 2  # a sequence ratio of `ratio`, spread over two tokens
    _, bad = one_row_gradient(Topr(), row, -1.0)
    _, good = one_row_gradient(Topr(), row, 1.0)
    assert bad == pytest.approx([weight / 2] * 2) and good == pytest.approx([-0.5] * 2)
    _, root = one_row_gradient(Topr(ratio="geometric"), row, -1.0)
    assert root == pytest.approx([min(1.0, math.sqrt(ratio)) / 2] * 2)


def test_decoupled_weighs_by_proximal_over_sampler() -> None:
    """Sampler .20, proximal .25, current .30: weight 1.25, ratio 1.2, objective 1.5; the coupled clip gives 1.28."""
    rows = {"anchor": [[math.log(0.25)]], "log_ratios": [[math.log(1.2)]], "sampler": [[math.log(0.2)]]}
    assert _loss(Decoupled(), **rows) == pytest.approx(-1.5)
    assert _loss(PpoClip(anchor="sampler"), **rows) == pytest.approx(-1.28)
    assert _loss(Decoupled(max_weight=1.1), **rows) == pytest.approx(-1.1 * 1.2)


def _loss(config: LossConfig, **rows: list[list[float]]) -> float:
    return Objective(config)(loss_inputs(config, advantages=[[1.0]], **rows)).loss.item()


@pytest.mark.parametrize(
    ("before", "after", "advantage", "kept"),
    [(0.01, 0.02, 1.0, True), (0.4, 0.7, 1.0, False), (0.4, 0.05, -1.0, False), (0.4, 0.7, -1.0, True)],
)
def test_dppo_judges_probabilities_not_ratios(before: float, after: float, advantage: float, kept: bool) -> None:
    for divergence in ("tv", "kl"):
        config = Dppo(divergence=divergence, clip_low=0.15, clip_high=0.15)
        inputs = loss_inputs(
            config, anchor=[[math.log(before)]], log_ratios=[[math.log(after / before)]], advantages=[[advantage]]
        )
        Objective(config)(inputs).loss.backward()
        assert inputs.learner_logprobs.grad is not None
        expected = -advantage * after / before if kept else 0.0
        assert inputs.learner_logprobs.grad.item() == pytest.approx(expected, rel=1e-5)


def test_dro_pulls_to_the_anchor() -> None:
    _, gradient = one_row_gradient(Dro(beta=0.1), ROW, 1.0)
    assert gradient == pytest.approx([-(1.0 - 0.1 * d) / 3 for d in ROW], abs=1e-6)


def test_gspo_token_equals_gspo_in_the_gradient_too() -> None:
    for advantage in (1.0, -1.0):
        row = [0.0002, -0.0001, 0.0001]
        _, whole = one_row_gradient(Gspo(), row, advantage)
        _, token = one_row_gradient(Gspo(token=True), row, advantage)
        assert whole == pytest.approx(token, rel=1e-5)


@pytest.mark.parametrize("config", [Gspo(), Gmpo(), Rloo(), Topr()])
def test_a_sequence_loss_refuses_advantages_of_single_tokens(config: LossConfig) -> None:
    rows = {"anchor": [[-0.5, -0.5], [-1.0, -1.0]], "log_ratios": [[0.0, 0.0]] * 2}
    with pytest.raises(ValueError, match="takes one advantage a sequence"):
        Objective(config)(loss_inputs(config, advantages=[[1.0, 1.0], [1.0, 0.5]], **rows))
    Objective(config)(loss_inputs(config, advantages=[[1.0, 1.0], [0.5, 0.5]], **rows))


def test_gspo_token_takes_advantages_of_single_tokens() -> None:
    config = Gspo(token=True)
    inputs = loss_inputs(config, anchor=[[-0.5, -0.5]], log_ratios=[[0.0, 0.0]], advantages=[[1.0, 0.5]])
    Objective(config)(inputs).loss.backward()
    assert inputs.learner_logprobs.grad is not None
    assert inputs.learner_logprobs.grad[0].tolist() == pytest.approx([-0.5, -0.25])
