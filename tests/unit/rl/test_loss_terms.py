"""KL, corrections, selection, adaptive coefficients and the metrics, against numbers worked out by hand."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from rl.losses.adaptive import Coefficients
from rl.losses.config import Cispo, PpoClip
from rl.losses.kl import kl_values
from rl.losses.objective import Objective
from rl.losses.selection import Scored, Selection, covariance, select
from rl.losses.summary import summarize
from rl.losses.term_config import AdaptiveEntropy, ClipCov, EntropyBonus, Kl, KlCov, TopEntropy
from tests.fakes.losses import loss_inputs, one_row

RHO = [0.3, 0.9, 1.1, 2.5, 6.0]  # product 4.455, geometric mean 1.34825, mean k3 .8612


# ------------------------------------------------------------------------------------------------ KL


@pytest.mark.parametrize(
    ("estimator", "value", "gradient"),
    [("k1", 0.0201355, 0.0), ("k2", 0.0199310, 0.0973116), ("k3", 0.0201355, 0.1000)],
)
def test_worked_kl_of_two_coins(estimator: str, value: float, gradient: float) -> None:
    """Policy (.6, .4), reference (.5, .5), theta the logit; expectations over the policy's own draws."""
    theta = torch.tensor(math.log(0.6 / 0.4), dtype=torch.float64, requires_grad=True)
    logprobs = torch.stack([torch.nn.functional.logsigmoid(theta), torch.nn.functional.logsigmoid(-theta)])
    terms = kl_values(estimator, logprobs, torch.full((2,), math.log(0.5), dtype=torch.float64))
    expected = (logprobs.detach().exp() * terms).sum()
    expected.backward()
    assert expected.item() == pytest.approx(value, abs=1e-7)
    assert theta.grad is not None and theta.grad.item() == pytest.approx(gradient, abs=1e-7)


def test_unbiased_k3_has_the_gradient_of_the_kl_itself() -> None:
    theta = torch.tensor(math.log(0.6 / 0.4), requires_grad=True)
    logprobs = torch.stack([torch.nn.functional.logsigmoid(theta), torch.nn.functional.logsigmoid(-theta)])
    anchor = logprobs.detach()
    config = PpoClip(kl=Kl(estimator="k3", placement="loss", coefficient=1.0, unbiased=True))
    half = math.log(0.5)
    inputs = loss_inputs(
        config, anchor=[anchor.tolist()], log_ratios=[[0, 0]], advantages=[[0, 0]], reference=[[half] * 2]
    )
    # Each side of the coin once: its share is its probability, so the weight of a token is that times both.
    changed = dataclasses.replace(inputs, learner_logprobs=logprobs[None], weights=2 * anchor.exp()[None])
    Objective(config)(changed).loss.backward()
    assert theta.grad is not None and theta.grad.item() == pytest.approx(0.0973116, abs=1e-6)


def test_the_kl_term_is_averaged_like_the_loss() -> None:
    config = PpoClip(kl=Kl(estimator="k2", placement="loss", coefficient=0.1))
    output = one_row(config, [0.0, 0.0], 0.0, reference=[-0.7, -1.4])  # learner -.5, -1: d = .2, .4
    assert output.loss.item() == pytest.approx(0.1 * (0.02 + 0.08) / 2)
    assert output.sums["loss/reference_k1"].item() == pytest.approx(0.6)
    assert output.sums["loss/kl_coefficient"].item() == pytest.approx(0.2)


def test_a_kl_in_the_reward_adds_nothing_to_the_loss() -> None:
    config = PpoClip(kl=Kl(estimator="k1", placement="reward", coefficient=0.1))
    output = one_row(config, [0.0, 0.0], 1.0, reference=[-0.7, -1.4])
    assert output.loss.item() == pytest.approx(-1.0)
    assert config.reward_kl_coefficient == 0.1 and config.needs_reference


def test_a_kl_term_without_a_reference_is_an_error() -> None:
    config = PpoClip(kl=Kl(estimator="k3", placement="loss", coefficient=0.1))
    with pytest.raises(ValueError, match="no reference log-probabilities"):
        one_row(config, [0.0], 1.0)


# ------------------------------------------------------------------------------------------------ corrections


@pytest.mark.parametrize(
    ("correction", "weights"),
    [
        ({"type": "token_tis"}, [0.3, 0.9, 1.1, 2.0, 2.0]),
        ({"type": "clamp_tis"}, [0.5, 0.9, 1.1, 2.5, 5.0]),
        ({"type": "icepop"}, [0.0, 0.9, 1.1, 2.5, 0.0]),
        ({"type": "sequence_tis"}, [2.0] * 5),
        ({"type": "sequence_tis", "high": 10.0}, [4.455] * 5),
        ({"type": "sequence_mis"}, [0.0] * 5),
        ({"type": "sequence_mis", "high": 4.5}, [4.455] * 5),
        ({"type": "geometric_mask", "low": 0.5, "high": 1.34}, [0.0] * 5),
        ({"type": "geometric_mask", "low": 0.5, "high": 1.35}, [1.0] * 5),
        ({"type": "k3_mask", "high": 0.861}, [0.0] * 5),
        ({"type": "k3_mask", "high": 0.862}, [1.0] * 5),
    ],
)
def test_worked_corrections(correction: dict[str, Any], weights: list[float]) -> None:
    """The weight of a token is its gradient: advantage -1, ratio 1, no average. The sampler's own gets none."""
    config = PpoClip.model_validate({"correction": correction, "aggregation": {"type": "dr_grpo", "length": 1}})
    anchor = [-0.5, -1.0, -0.2, -0.7, -0.9]
    sampler = [a - math.log(rho) for a, rho in zip(anchor, RHO, strict=True)]
    inputs = loss_inputs(config, anchor=[anchor], log_ratios=[[0] * 5], advantages=[[-1] * 5], sampler=[sampler])
    inputs.sampler_logprobs.requires_grad_()
    output = Objective(config)(inputs)
    output.loss.backward()
    assert inputs.learner_logprobs.grad is not None
    assert inputs.learner_logprobs.grad[0].tolist() == pytest.approx(weights, rel=1e-5)
    assert inputs.sampler_logprobs.grad is None
    assert output.loss.item() == pytest.approx(sum(weights), rel=1e-5)
    assert output.sums["mismatch/masked_tokens"].item() == weights.count(0.0)
    assert output.sums["raw/masked_sequences"].item() == (not any(weights))


def test_a_product_drifts_with_length_and_a_geometric_mean_does_not() -> None:
    rows = {"anchor": [[-1.0] * 1000], "log_ratios": [[0.0] * 1000], "advantages": [[-1.0] * 1000]}
    for kind, high, weight in (("sequence_tis", 5.0, math.e), ("geometric_mask", 1.0011, 1.0)):
        config = PpoClip.model_validate({"correction": {"type": kind, "high": high}})
        output = Objective(config)(loss_inputs(config, **rows, sampler=[[-1.001] * 1000]))
        assert output.loss.item() == pytest.approx(weight, rel=1e-3)


def test_a_bad_sampler_value_is_not_a_rejection() -> None:
    for kind in ("token_tis", "icepop", "sequence_mis", "geometric_mask", "k3_mask"):
        config = PpoClip.model_validate({"correction": {"type": kind}})
        assert not math.isfinite(one_row(config, [0.0, 0.0], 1.0, sampler=[float("nan"), -1.0]).loss.item())


def test_bypass_measures_from_the_sampler() -> None:
    config = PpoClip(anchor="sampler")
    output = one_row(config, [0.0, 0.0], 1.0, sampler=[-0.6, -0.5])  # learner -.5, -1: ratios exp(.1), exp(-.5)
    assert output.loss.item() == pytest.approx(-(math.exp(0.1) + math.exp(-0.5)) / 2)
    assert output.sums["loss/update_k3"].item() == 0.0  # the metrics keep the learner's anchor
    assert output.maxima["mismatch/max_abs"].item() == pytest.approx(0.5)


# ------------------------------------------------------------------------------------------------ mismatch


def test_worked_mismatch() -> None:
    sampler = [a - math.log(rho) for a, rho in zip([-0.5, -1.0, -0.2, -0.7, -0.9], RHO, strict=True)]
    inputs = loss_inputs(
        PpoClip(),
        anchor=[[-0.5, -1.0, -0.2, -0.7, -0.9]],
        log_ratios=[[0] * 5],
        advantages=[[1] * 5],
        sampler=[sampler],
    )
    output = Objective(PpoClip())(inputs)
    found = summarize({name: value.item() / 5 for name, value in output.sums.items()})
    assert found["mismatch/ess_share"] == pytest.approx(0.5259, abs=1e-4)
    assert found["mismatch/k3"] == pytest.approx(0.8612, abs=1e-4)
    assert found["mismatch/chi2"] == pytest.approx(sum(r * r for r in RHO) / 5 - 1, rel=1e-5)
    assert found["mismatch/k1"] == pytest.approx(-math.log(4.455) / 5, rel=1e-5)
    assert output.maxima["mismatch/max_abs"].item() == pytest.approx(math.log(6.0), rel=1e-5)
    assert not any(name.startswith("raw/") for name in found)


def test_entropy_p10_is_right_to_a_tenth_however_it_is_split() -> None:
    values = np.random.default_rng(0).lognormal(-2.0, 1.5, 4000).astype(np.float32)
    totals: dict[str, float] = {}
    for part in np.split(values, [100, 1500]):
        zeros = [[0.0] * part.size]
        inputs = loss_inputs(
            PpoClip(), anchor=zeros, log_ratios=zeros, advantages=zeros, entropies=torch.tensor(part)[None]
        )
        for name, value in Objective(PpoClip())(inputs).sums.items():
            totals[name] = totals.get(name, 0.0) + value.item()
    found = summarize({name: value / values.size for name, value in totals.items()})
    assert found["loss/entropy_p10"] == pytest.approx(float(np.quantile(values, 0.1)), rel=0.1)
    assert found["loss/entropy"] == pytest.approx(float(values.mean()), rel=1e-5)


# ------------------------------------------------------------------------------------------------ entropy


def test_a_bonus_is_a_mean_over_the_tokens_of_the_step_whatever_the_aggregation() -> None:
    for aggregation in ({"type": "token_mean"}, {"type": "sequence_mean"}, {"type": "dr_grpo", "length": 50}):
        config = PpoClip.model_validate({"entropy": {"type": "bonus", "coefficient": 0.1}, "aggregation": aggregation})
        entropies = torch.tensor([[0.2, 0.4, 9.0], [0.1, 0.3, 0.5]], requires_grad=True)
        rows = {name: [[0.0] * 2, [0.0] * 3] for name in ("anchor", "log_ratios", "advantages")}
        output = Objective(config)(loss_inputs(config, **rows, entropies=entropies))
        output.loss.backward()
        assert output.loss.item() == pytest.approx(-0.1 * 1.5 / 5)
        assert entropies.grad is not None
        assert entropies.grad.flatten().tolist() == pytest.approx([-0.02, -0.02, 0.0, -0.02, -0.02, -0.02])


def test_adaptive_entropy_acts_only_below_its_target() -> None:
    coefficients = Coefficients(PpoClip(entropy=AdaptiveEntropy(target=0.2, delta=0.25, max=0.5)))
    seen = []
    for entropy in (0.1, 0.2, 0.15, 0.3, 0.1):
        coefficients.adapt(mean_kl=0.0, mean_entropy=entropy, num_sequences=8)
        seen.append(coefficients.entropy)
    assert seen == [0.25, 0.5, 0.5, 0.0, 0.5]  # at .3 the coefficient falls to .25 and rests


def test_worked_adaptive_kl() -> None:
    config = PpoClip(kl=Kl(estimator="k2", placement="loss", coefficient=0.001, target=0.1, horizon=10_000))
    coefficients = Coefficients(config)
    coefficients.adapt(mean_kl=0.15, mean_entropy=0.0, num_sequences=256)
    assert coefficients.kl == pytest.approx(0.00100512)
    restored = Coefficients(config)
    restored.load(coefficients.state())
    assert restored.kl == coefficients.kl


def test_a_constant_coefficient_is_the_recipe_s_after_a_resume() -> None:
    old = Coefficients(PpoClip(kl=Kl(estimator="k2", placement="loss", coefficient=0.5)))
    new = Coefficients(PpoClip(kl=Kl(estimator="k2", placement="loss", coefficient=0.1)))
    new.load(old.state())
    assert new.kl == 0.1


def test_the_objective_adapts_once_a_step_from_sums_over_micro_batches_and_ranks() -> None:
    kl = Kl(estimator="k2", placement="loss", coefficient=1.0, target=0.01, horizon=2)
    config = PpoClip(kl=kl, entropy=AdaptiveEntropy(target=0.2, delta=0.1))
    objective = Objective(config)
    for entropy in (0.1, 0.2):
        inputs = loss_inputs(
            config,
            anchor=[[0.0]],
            log_ratios=[[0.0]],
            advantages=[[0.0]],
            reference=[[-0.2]],
            entropies=torch.tensor([[entropy]]),
        )
        objective(inputs)
    objective.end_step(lambda totals: 2 * totals)  # two ranks that saw the same
    assert objective.coefficients.kl == pytest.approx(1.0 + 0.2 * 4 / 2)  # 4 sequences, far above the target
    assert objective.coefficients.entropy == pytest.approx(0.1)  # mean .15 is below .2
    objective.end_step(lambda totals: totals)  # nothing was trained: nothing changes
    assert objective.coefficients.kl == pytest.approx(1.4)


# ------------------------------------------------------------------------------------------------ selection


def test_worked_covariance() -> None:
    rows = torch.tensor([[1, -0.1], [1, -2.0], [-1, -0.1], [-1, -2.0]], dtype=torch.float64)
    assert covariance(rows, rows).tolist() == pytest.approx([0.95, -0.95, -0.95, 0.95])


def scored(num: int, seed: int = 0) -> Scored:
    g = torch.Generator().manual_seed(seed)
    return Scored(
        logprobs=3 * torch.randn(num, 10, generator=g),
        entropies=torch.rand(num, 10, generator=g),
        advantages=2 * torch.randn(num, 10, generator=g),
        mask=torch.rand(num, 10, generator=g) > 0.3,
        samples=torch.arange(num, dtype=torch.int32)[:, None].expand(num, 10),
        positions=torch.arange(10)[None].expand(num, 10),
    )


def cut(whole: Scored, start: int, stop: int) -> Scored:
    return Scored(**{name: getattr(whole, name)[start:stop] for name in Scored.__slots__})


@pytest.mark.parametrize("config", [TopEntropy(fraction=0.2), KlCov(fraction=0.1), ClipCov(fraction=0.05)])
def test_the_choice_does_not_depend_on_the_cut(config: Selection) -> None:
    whole = scored(30)
    (together,) = select(config, [whole], lambda rows: rows, salt=1)
    parts = select(config, [cut(whole, 0, 7), cut(whole, 7, 30)], lambda rows: rows, salt=1)
    assert torch.equal(torch.cat(parts), together)
    assert not (together & ~whole.mask).any()
    expected = config.fraction * int(whole.mask.sum())
    assert abs(int(together.sum()) - expected) <= 1


def test_ranks_choose_together() -> None:
    """Each rank sees the rows of both; what they choose adds up to the choice of one rank alone."""
    whole = scored(30)
    config = KlCov(fraction=0.1)
    (alone,) = select(config, [whole], lambda rows: rows, salt=0)
    shares = [cut(whole, 0, 11), cut(whole, 11, 30)]
    seen: list[torch.Tensor] = []
    for share in shares:
        select(config, [share], lambda rows: seen.append(rows) or rows, salt=0)  # type: ignore[func-returns-value]
    chosen = [select(config, [share], lambda rows: torch.cat(seen), salt=0)[0] for share in shares]
    assert torch.equal(torch.cat(chosen), alone)


def test_clip_cov_draws_others_at_another_step() -> None:
    config, whole = ClipCov(fraction=0.05), scored(30)
    first, second = (select(config, [whole], lambda rows: rows, salt=salt)[0] for salt in (1, 2))
    assert not torch.equal(first, second)
    rows = torch.stack([whole.advantages[whole.mask], whole.logprobs[whole.mask]], 1).double()
    values = covariance(rows, rows)[first[whole.mask]]
    assert ((values > config.low) & (values < config.high)).all()


@pytest.mark.parametrize(
    ("settings", "loss", "gradient"),
    [
        ({"entropy": {"type": "top_fraction"}}, -0.5, [-0.5, 0.0]),
        ({"covariance": {"type": "clip_cov"}}, -1.0, [0.0, -0.5]),
    ],
)
def test_what_is_selected_changes_the_gradient_and_not_the_normalizer(
    settings: dict[str, Any], loss: float, gradient: list[float]
) -> None:
    config = PpoClip.model_validate(settings)
    rows = {"anchor": [[-0.5, -1.0]], "log_ratios": [[0.0, 0.0]], "advantages": [[1.0, 1.0]]}
    inputs = loss_inputs(config, **rows, selected=[[True, False]])
    output = Objective(config)(inputs)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(loss)
    assert inputs.learner_logprobs.grad is not None and inputs.learner_logprobs.grad[0].tolist() == gradient
    with pytest.raises(ValueError, match=r"call Objective.select before the step"):
        Objective(config)(loss_inputs(config, **rows))


def test_kl_cov_holds_what_is_selected() -> None:
    config = PpoClip(covariance=KlCov(coefficient=0.5))
    inputs = loss_inputs(
        config, anchor=[[-0.5, -1.0]], log_ratios=[[0.1, -0.1]], advantages=[[0.0, 0.0]], selected=[[True, True]]
    )
    output = Objective(config)(inputs)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(0.05)
    assert inputs.learner_logprobs.grad is not None
    assert inputs.learner_logprobs.grad[0].tolist() == pytest.approx([0.25, -0.25])


def test_a_selection_is_not_asked_of_a_loss_without_one() -> None:
    for config in (PpoClip(), Cispo(entropy=EntropyBonus(coefficient=0.1))):
        assert not Objective(config).needs_selection
        with pytest.raises(RuntimeError, match="ask needs_selection first"):
            Objective(config).select([], lambda rows: rows, salt=0)
