"""Illegal mixes cannot be written, and the refusal says the rule, the value and the remedy."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from rl.losses.config import LossConfig
from rl.losses.registry import LOSSES

LOSS: TypeAdapter[Any] = TypeAdapter(LossConfig)
K1 = {"estimator": "k1", "placement": "loss", "coefficient": 0.1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "ppo_clip", "kl": K1}, "expected gradient of log p is zero"),
        ({"type": "ppo_clip", "kl": {**K1, "placement": "reward", "estimator": "k3"}}, "needs estimator 'k1'"),
        ({"type": "ppo_clip", "kl": {**K1, "estimator": "k2", "unbiased": True}}, "corrects k3"),
        ({"type": "ppo_clip", "kl": {**K1, "estimator": "k2", "target": 0.1}}, "both target and horizon"),
        (
            {"type": "ppo_clip", "kl": {**K1, "placement": "reward", "target": 0.1, "horizon": 100}},
            "a penalty in the reward never sees",
        ),
        (
            {"type": "ppo_clip", "anchor": "sampler", "correction": {"type": "token_tis"}},
            "'token_tis' would count it twice",
        ),
        ({"type": "gspo", "anchor": "sampler", "correction": {"type": "k3_mask"}}, "would count it twice"),
        ({"type": "gspo", "correction": {"type": "icepop"}}, "or token = true"),
        ({"type": "gmpo", "correction": {"type": "icepop"}}, "does not match any of the expected tags"),
        ({"type": "rloo", "correction": {"type": "clamp_tis"}}, "does not match any of the expected tags"),
        ({"type": "decoupled", "correction": {"type": "token_tis"}}, "Extra inputs"),
        ({"type": "decoupled", "anchor": "sampler"}, "Extra inputs"),
        ({"type": "topr", "correction": {"type": "token_tis"}}, "Extra inputs"),
        ({"type": "cispo", "dual_clip": 3.0}, "Extra inputs"),
        ({"type": "cispo", "covariance": {"type": "kl_cov"}}, "Extra inputs"),
        ({"type": "rloo", "entropy": {"type": "top_fraction"}}, "keeps the loss of single tokens"),
        ({"type": "gspo", "entropy": {"type": "top_fraction"}}, "keeps the loss of single tokens"),
        (
            {"type": "ppo_clip", "entropy": {"type": "top_fraction"}, "covariance": {"type": "clip_cov"}},
            "choose tokens by two rules",
        ),
        ({"type": "ppo_clip", "dual_clip": 1.2}, "must be above 1 [+] clip_high"),
        ({"type": "ppo_clip", "correction": {"type": "icepop", "low": 1.1}}, "must keep the ratio 1"),
        ({"type": "ppo_clip", "entropy": {"type": "adaptive", "initial": 2.0}}, "min <= initial <= max"),
        ({"type": "ppo_clip", "covariance": {"type": "clip_cov", "low": 9.0}}, "low < high"),
        ({"type": "vanilla"}, "does not match any of the expected tags"),
    ],
)
def test_an_illegal_mix_is_refused_with_the_reason(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LOSS.validate_python(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "gspo", "token": True, "correction": {"type": "icepop"}, "entropy": {"type": "top_fraction"}},
        {"type": "gspo", "correction": {"type": "geometric_mask"}},
        {"type": "cispo", "anchor": "sampler", "kl": {**K1, "placement": "reward"}},
        {"type": "rloo", "kl": {**K1, "placement": "reward"}},
        {"type": "ppo_clip", "kl": {**K1, "estimator": "k2", "target": 0.1, "horizon": 100}, "dual_clip": 3.0},
        {"type": "decoupled", "entropy": {"type": "adaptive"}},
    ],
)
def test_a_legal_mix_is_accepted(settings: dict[str, Any]) -> None:
    assert LOSS.validate_python(settings).type == settings["type"]


def test_every_type_has_a_function() -> None:
    for name in LOSSES:
        config = LOSS.validate_python({"type": name})
        assert config.type == name and config.reward_kl_coefficient == 0.0 and not config.needs_reference


def test_every_line_of_the_page_can_be_written() -> None:
    page = (Path(__file__).parents[3] / "docs/choose_an_objective.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    own = next(block for block in blocks if 'type = "plugin"' in block)
    assert LOSS.validate_python(tomllib.loads(own)["loss"]).params
    blocks.remove(own)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith(("[", "type"))]
    assert len(lines) > 10
    for line in lines:
        LOSS.validate_python({"type": "ppo_clip"} | tomllib.loads(line))
    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == set(LOSSES)
