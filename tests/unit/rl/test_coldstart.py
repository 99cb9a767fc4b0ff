"""The cold start on a tiny model: that it equals a bare loop, what it writes and what it refuses."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl.coldstart import SftProgress, SftRow, batch_order, check_rows, run_sft
from rl.coldstart_config import SftConfig
from rl.learner.config import ScratchModel
from rl.learner.scratch import build_model

pytestmark = pytest.mark.stack

CONFIG = SftConfig(num_steps=12, batch_size=4, lr=5e-3, warmup_steps=3, num_threads=1, report_every=4, max_length=32)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("scratch") / "model"
    spec = ScratchModel(
        hidden_size=32,
        num_layers=1,
        intermediate_size=32,
        num_heads=2,
        characters="0123456789+=",
        initializer_range=0.2,
    )
    build_model(spec, str(out), seed=0)
    return str(out)


@pytest.fixture(scope="module")
def rows(model_dir: str) -> list[SftRow]:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    made: list[SftRow] = []
    for left in range(1, 7):
        for right in (3, 45, 678):
            prompt = tokenizer.encode(f"<low>{left}+{right}=", add_special_tokens=False)
            response = tokenizer.encode(f"<think></think>{left + right}<eos>", add_special_tokens=False)
            mask = [0] * len(prompt) + [1] * len(response)
            made.append({"input_ids": prompt + response, "completion_mask": mask})
    return made


def response_loss(model: Any, batch: list[SftRow]) -> torch.Tensor:
    """Mean negative log-likelihood of the response tokens, one row at a time and therefore without padding."""
    losses = []
    for row in batch:
        ids, mask = torch.tensor(row["input_ids"]), torch.tensor(row["completion_mask"])
        logits = model(input_ids=ids[None]).logits[0, :-1]
        losses.append(F.cross_entropy(logits, ids[1:], reduction="none")[mask[1:] == 1])
    return torch.cat(losses).mean()


def bare_loop(config: SftConfig, rows: list[SftRow], model_dir: str, *, seed: int) -> tuple[Any, list[float]]:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    optimizer = torch.optim.AdamW(model.parameters(), betas=config.betas, weight_decay=config.weight_decay)
    order = batch_order([len(r["input_ids"]) for r in rows], config=config, seed=seed)
    losses = []
    for step in range(config.num_steps):
        done = (step - config.warmup_steps) / (config.num_steps - 1 - config.warmup_steps)
        cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2
        rate = config.lr * ((step + 1) / config.warmup_steps if step < config.warmup_steps else cosine)
        loss = response_loss(model, [rows[i] for i in order[step * config.batch_size : (step + 1) * config.batch_size]])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def test_equals_a_bare_loop_and_writes_a_model_with_its_tokenizer(
    rows: list[SftRow], model_dir: str, tmp_path: Path
) -> None:
    reports: list[SftProgress] = []
    result = run_sft(CONFIG, rows, model_dir, str(tmp_path / "out"), seed=3, progress=reports.append)
    expected, losses = bare_loop(CONFIG, rows, model_dir, seed=3)
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for (name, ours), theirs in zip(written.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")
    assert [r.step for r in reports] == [1, 4, 8, 12]
    assert reports[0].loss == pytest.approx(losses[0], abs=1e-3)
    assert result.final_loss == reports[-1].loss == pytest.approx(sum(losses[8:]) / 4, abs=2e-3)
    assert result.first_loss == reports[0].loss > result.final_loss + 0.5
    assert reports[-1].eta_s == 0 < reports[1].eta_s
    order = batch_order([len(r["input_ids"]) for r in rows], config=CONFIG, seed=3)
    assert result.tokens == sum(len(rows[i]["input_ids"]) for i in order)
    assert result.tokens_per_s == pytest.approx(result.tokens / result.seconds) and 0 <= result.padding < 0.2
    text = "<low>1+3=<think></think>4<eos>"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.encode(text) == AutoTokenizer.from_pretrained(model_dir).encode(text)


def test_a_loss_that_is_not_finite_stops_it(rows: list[SftRow], model_dir: str, tmp_path: Path) -> None:
    wild = CONFIG.model_copy(update={"lr": 1e30, "warmup_steps": 0, "report_every": 1})
    with pytest.raises(FloatingPointError, match=r"at step [2-4]: lower sft\.lr"):
        run_sft(wild, rows, model_dir, str(tmp_path / "out"), seed=3, progress=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_batches_use_every_row_before_any_again_and_pad_little() -> None:
    lengths = [5 + 7 * (i % 9) for i in range(500)]
    config = CONFIG.model_copy(update={"num_steps": 200, "batch_size": 8})
    order = batch_order(lengths, config=config, seed=0)
    assert len(order) == 1600
    uses = Counter(order)
    assert set(uses.values()) == {3, 4} and len(uses) == 500
    batches = [[lengths[i] for i in order[k : k + 8]] for k in range(0, 1600, 8)]
    padding = 1 - sum(map(sum, batches)) / sum(8 * max(batch) for batch in batches)
    assert padding < 0.05
    firsts = [max(batch) for batch in batches[:50]]
    assert firsts != sorted(firsts) and firsts != sorted(firsts, reverse=True)
    assert order == batch_order(lengths, config=config, seed=0) != batch_order(lengths, config=config, seed=1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no worked solutions"),
        ([{"input_ids": [], "completion_mask": []}], "row 0: none of its 0 tokens"),
        ([{"input_ids": [1, 2], "completion_mask": [0, 0]}], "row 0: none of its 2 tokens belongs to a solution"),
        ([{"input_ids": [1, 2], "completion_mask": [1]}], "row 0: 2 tokens but a completion_mask of 1"),
        ([{"input_ids": [1] * 9, "completion_mask": [1] * 9}], r"9 tokens exceed sft\.max_length = 8"),
        ([{"input_ids": [1, 50], "completion_mask": [0, 1]}], "from 1 to 50 do not fit a vocabulary of 50"),
        ([{"input_ids": [-1, 5], "completion_mask": [0, 1]}], "from -1 to 5 do not fit"),
    ],
)
def test_unusable_rows_are_refused(bad: list[SftRow], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_rows(bad, max_length=8, vocab_size=50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_steps": 12}, "lower warmup_steps"),
        ({"mix": {"high": 0.0}}, "positive share"),
        ({"lr": 0}, "greater than 0"),
        ({"epochs": 3}, "Extra inputs"),
    ],
)
def test_impossible_settings_say_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SftConfig.model_validate({"num_steps": 12, "warmup_steps": 3, **changes})
