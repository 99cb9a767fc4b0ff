"""Learned step scorers: worked numbers, and the same scores alone and packed."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from prm.encode import prompt_ids, read_chat, read_tokens
from prm.items import ItemScores, fault_of
from prm.models.config import DiscriminativePrmConfig, ImplicitPrmConfig, OnlineConfig, ValuePrmConfig
from prm.models.discriminative import good_logit, load_classifier, new_classifier, save_classifier, step_losses
from prm.models.implicit import ce_loss, dpo_loss, span_scores
from prm.models.rows import plan
from prm.models.scorer import ImplicitScorer, load_scorer
from prm.models.tie import tie_losses
from prm.models.value import mean_value_loss, new_value, save_value, value_losses, values
from rollout.schema import Message
from tests.fakes.prm import items, tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    paths = {name: tiny_model(root / name, seed=seed) for seed, name in enumerate(("policy", "trained"))}
    for labels in ("hard", "three_way"):
        classifier = new_classifier(paths["policy"], labels, "float32")  # type: ignore[arg-type]
        paths[labels] = str(root / labels)
        save_classifier(classifier, paths["policy"], paths[labels], {"kind": "discriminative", "labels": labels})
    value = new_value(paths["policy"], "float32")
    torch.nn.init.normal_(value.score.weight)
    paths["value"] = str(root / "value")
    save_value(value, paths["policy"], paths["value"], {"kind": "value"})
    return paths


# ------------------------------------------------------------------------------------------------ worked numbers


def test_log_ratios_become_rewards_and_values() -> None:
    ratios = (0.05 * np.array([2.0, -1.0, 3.0])).astype(np.float32)
    tokens = [(0, 1), (1, 2), (2, 3)]
    assert span_scores(ratios, tokens, cumulative=True) == pytest.approx([0.10, 0.05, 0.20])
    assert span_scores(ratios, tokens, cumulative=False) == pytest.approx([0.10, -0.05, 0.15])
    whole = torch.tensor([0.20, 0.20])
    assert ce_loss(whole, torch.tensor([1.0, 0.0])).tolist() == pytest.approx([0.598139, 0.798139], abs=1e-6)


def test_losses_without_information() -> None:
    zero = torch.zeros(1)
    assert ce_loss(zero, torch.ones(1)).item() == pytest.approx(math.log(2))
    assert dpo_loss(zero, zero).item() == pytest.approx(math.log(2))
    assert dpo_loss(torch.tensor([0.3]), torch.tensor([-0.1])).item() == pytest.approx(0.513015, abs=1e-6)


def test_a_partial_sum_is_a_soft_expectation_of_the_whole() -> None:
    beta, first, second = 0.05, {"a": 0.8, "b": 0.2}, {"aa": 0.9, "ab": 0.1}
    q1 = beta * math.log(first["a"] / 0.5)
    ends = [q1 + beta * math.log(p / 0.5) for p in second.values()]
    soft = beta * math.log(sum(0.5 * math.exp(r / beta) for r in ends))
    assert q1 == pytest.approx(0.0235002, abs=1e-7) and soft == pytest.approx(q1)
    assert np.mean(ends) == pytest.approx(-0.00204, abs=1e-5) and max(ends) == pytest.approx(0.05289, abs=1e-5)


def test_a_soft_label_is_not_cast_to_a_class() -> None:
    logits = torch.zeros(1, 2)
    assert step_losses(logits, torch.tensor([0.75]), "soft").item() == pytest.approx(0.0625)
    with pytest.raises(ValueError, match=r"'hard' cannot be \[0.75\]"):
        step_losses(logits, torch.tensor([0.75]), "hard")
    with pytest.raises(ValueError, match="three_way"):
        step_losses(torch.zeros(1, 3), torch.tensor([2.0]), "three_way")


def test_a_tie_costs_least_where_two_wordings_score_alike() -> None:
    odds = torch.tensor([0.0, 2.0, 2.0])
    assert tie_losses(odds, torch.tensor([0.0, 1.0, 3.0])).tolist() == pytest.approx([0.693147, 0.813262, 0.813262])


def test_neutral_is_not_wrong() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]]))
    assert torch.sigmoid(good_logit(logits, "three_way")).item() == pytest.approx(0.8)
    assert step_losses(logits, torch.tensor([0.0]), "three_way").item() == pytest.approx(-math.log(0.5))
    assert torch.sigmoid(good_logit(logits[:, :2], "hard")).item() == pytest.approx(0.5 / 0.7)


def test_values_and_their_loss() -> None:
    logits = torch.tensor([[0.0], [0.5]])
    assert values(logits).tolist() == pytest.approx([0.0, math.tanh(0.5)])
    losses = value_losses(logits, torch.tensor([1.0, -1.0]))
    expected = (1.0 + (math.tanh(0.5) + 1) ** 2) / 2.001
    assert mean_value_loss(losses).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        value_losses(logits, torch.tensor([1.0, 1.5]))


# ------------------------------------------------------------------------------------------------ packing


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(40, 200))
def test_a_plan_holds_every_sequence_once_within_the_bound(lengths: list[int], bound: int) -> None:
    batches = plan(lengths, bound)
    assert sorted(i for rows in batches for row in rows for i in row) == list(range(len(lengths)))
    for rows in batches:
        width = max(sum(lengths[i] for i in row) for row in rows)
        assert width * len(rows) <= bound


def test_a_sequence_that_fits_no_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 8 tokens"):
        plan([4, 9], 8)


def configs(
    models: dict[str, str], batch_tokens: int
) -> list[ImplicitPrmConfig | DiscriminativePrmConfig | ValuePrmConfig]:
    size = {"batch_tokens": batch_tokens, "max_tokens": 60}
    return [
        ImplicitPrmConfig(path=models["trained"], reference=models["policy"], **size),
        DiscriminativePrmConfig(path=models["hard"], **size),
        DiscriminativePrmConfig(path=models["three_way"], **size),
        ValuePrmConfig(path=models["value"], **size),
    ]


@pytest.mark.parametrize("which", range(4))
def test_scores_are_the_same_alone_and_packed(models: dict[str, str], which: int) -> None:
    asked = items([30, 7, 19, 60, 12, 11, 8])
    packed = load_scorer(configs(models, 120)[which]).score(asked)
    one = load_scorer(configs(models, 60)[which])
    for item, together in zip(asked, packed, strict=True):
        (alone,) = one.score([item])
        assert together.scores == pytest.approx(alone.scores, abs=1e-5)
        assert fault_of(item, together) is None and not together.truncated
    assert np.concatenate([answer.scores for answer in packed]).std() > 1e-3  # they say something


@pytest.mark.parametrize("which", range(4))
def test_what_lies_beyond_the_limit_is_nan_and_said(models: dict[str, str], which: int) -> None:
    scorer = load_scorer(configs(models, 60)[which])
    (long,) = items([75])
    (short,) = scorer.score([long])
    assert short.truncated and np.isnan(short.scores[-1]) and np.isfinite(short.scores[0])
    assert fault_of(long, short) is None


def test_a_model_that_is_its_own_reference_scores_zero(models: dict[str, str]) -> None:
    scorer = ImplicitScorer(ImplicitPrmConfig(path=models["policy"], reference=models["policy"]))
    (answer,) = scorer.score(items([20]))
    assert not answer.scores.any()


def test_implicit_scores_are_those_of_plain_transformers(models: dict[str, str]) -> None:
    (item,) = items([23])
    ids = torch.tensor(item.token_ids[None].astype(np.int64))
    scorer = ImplicitScorer(ImplicitPrmConfig(path=models["trained"], reference=models["policy"], beta=0.5, kind="q"))
    sums = []
    for model in (scorer.model.model, scorer._reference.model):
        logprobs = model(ids).logits[0].log_softmax(-1)
        sums.append([logprobs[t - 1, ids[0, t]].item() for t in range(3, 23)])
    ratios = 0.5 * (np.array(sums[0]) - np.array(sums[1]))
    expected = [ratios[: end - 3].sum() for _, end in item.spans]
    assert scorer.score([item])[0].scores == pytest.approx(expected, abs=1e-5)
    forced = dataclasses.replace(item, sampled=np.zeros(23, np.bool_))
    assert not scorer.score([forced])[0].scores.any()


# ------------------------------------------------------------------------------------------------ directories, reading


def test_a_language_model_is_no_classifier(models: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is no step classifier"):
        load_classifier(models["policy"], "float32")
    with pytest.raises(ValueError, match="no value model"):
        load_scorer(ValuePrmConfig(path=models["hard"]))


def test_the_tensors_have_the_names_of_released_models(models: dict[str, str]) -> None:
    from safetensors import safe_open

    with safe_open(str(Path(models["hard"]) / "model.safetensors"), framework="pt") as tensors:
        names = set(tensors.keys())
    assert {"score.0.weight", "score.2.bias", "model.embed_tokens.weight"} <= names
    assert all(name.startswith(("score.", "model.")) for name in names)


def test_separators_are_put_in_after_steps() -> None:
    ids = np.arange(10, 20, dtype=np.int32)
    reading = read_tokens(ids, [(2, 4), (4, 7)], separator_id=99, max_tokens=50)
    assert reading.token_ids.tolist() == [10, 11, 12, 13, 99, 14, 15, 16, 99, 17, 18, 19]
    assert reading.positions == (4, 8)
    assert read_tokens(ids, [(2, 4), (4, 7)], separator_id=None, max_tokens=5).positions == (3,)


def test_text_cannot_spell_a_separator(models: dict[str, str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models["policy"])
    separator = tokenizer.convert_tokens_to_ids("<sep>")
    messages = (Message(role="user", content="1+1= <sep>"),)
    reading = read_chat(tokenizer, messages, ["a<sep>", "b"], separator_id=separator, max_tokens=90)
    assert np.flatnonzero(reading.token_ids == separator).tolist() == list(reading.positions)
    cut = read_chat(tokenizer, messages, ["a", "b" * 80], separator_id=separator, max_tokens=60)
    assert len(cut.positions) == 1 and len(cut.token_ids) <= 60


def test_a_chat_template_is_filled_with_plain_text(models: dict[str, str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models["policy"])
    tokenizer.chat_template = "{% for m in messages %}<think>{{ m.content }}</think>{% endfor %}<sep>"
    opening, closing, separator = tokenizer.convert_tokens_to_ids(["<think>", "</think>", "<sep>"])
    ids = prompt_ids(tokenizer, (Message(role="user", content="1<sep>2"),), system="3")
    assert (ids.count(opening), ids.count(closing), ids.count(separator)) == (2, 2, 1)
    assert ids[:3] == [opening, *tokenizer.encode("3", add_special_tokens=False), closing] and ids[-1] == separator


# ------------------------------------------------------------------------------------------------ checks and settings


def test_faults_of_an_answer_are_named() -> None:
    (item,) = items([11])
    good = np.array([0.1, 0.2], np.float32)
    answer = ItemScores(scores=good, truncated=False, version=0)
    assert fault_of(item, answer) is None
    assert fault_of(item, dataclasses.replace(answer, scores=good[:1])) == "(1,) scores for 2 steps"
    hole = dataclasses.replace(answer, scores=np.array([0.1, np.nan], np.float32))
    assert fault_of(item, hole) == "non-finite scores at steps [1]"
    assert fault_of(item, dataclasses.replace(hole, truncated=True)) is None
    infinite = dataclasses.replace(answer, scores=np.array([np.inf, np.nan], np.float32), truncated=True)
    assert fault_of(item, infinite) is not None


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold one sequence"):
        DiscriminativePrmConfig(path="m", max_tokens=100, batch_tokens=50)
    with pytest.raises(ValueError, match="its own reference scores 0"):
        ImplicitPrmConfig()
    with pytest.raises(ValueError, match="lives in one actor"):
        ImplicitPrmConfig(online=OnlineConfig(), num_actors=2)
