"""Pairs of files: verified by the recipe's verifiers, rendered as rollouts are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch import recipe
from launch.chain.optimize import rendered
from launch.chain.pair_files import verified_rows
from launch.config import RunConfig
from rl.preference.config import FilePairs
from rollout.config import FormatConfig
from tests.tiny_model import build_tokenizer

QUICKSTART = Path(__file__).parents[3] / "launch/recipes/quickstart.toml"


def write(path: Path, rows: list[dict[str, object]]) -> FilePairs:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FilePairs(type="file", paths=(str(path),), verifier="exact")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return recipe.load(QUICKSTART)


def test_rows_that_the_verifier_contradicts_are_left_out(config: RunConfig, tmp_path: Path) -> None:
    asked = {"prompt": "2+3=", "answer": "5"}
    wanted = write(
        tmp_path / "pairs.jsonl",
        [
            {**asked, "chosen": {"thinking": "2+3", "answer": "5"}, "rejected": "6"},
            {**asked, "prompt": "a", "chosen": "6", "rejected": "7"},
            {**asked, "prompt": "b", "chosen": "5", "rejected": {"answer": "5"}},
        ],
    )
    rows, left_out = verified_rows(wanted, config)
    assert [row["prompt"] for row in rows] == [(("user", "2+3="),)]
    assert rows[0]["chosen"] == {"thinking": "2+3", "answer": "5"}
    assert rows[0]["rejected"] == {"thinking": "", "answer": "6"}
    assert left_out == {"pair whose chosen is wrong": 1, "pair whose rejected is right": 1}


def test_a_row_that_is_no_pair_is_named(config: RunConfig, tmp_path: Path) -> None:
    wanted = write(tmp_path / "pairs.jsonl", [{"prompt": "2+3=", "answer": "5", "chosen": 5, "rejected": "6"}])
    with pytest.raises(ValueError, match=r"chosen of a pair must be .* got '5' for '2\+3='"):
        verified_rows(wanted, config)
    lacking = write(tmp_path / "other.jsonl", [{"prompt": "2+3=", "answer": "5", "chosen": "5"}])
    with pytest.raises(ValueError, match="there is no column 'rejected'"):
        verified_rows(lacking, config)


def test_both_sides_follow_the_same_prompt(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    row = {
        "task_key": "k",
        "prompt": (("user", "2+3="),),
        "chosen": {"thinking": "2+3", "answer": "5"},
        "rejected": {"thinking": "", "answer": "6"},
    }
    (pair,) = rendered(FormatConfig(prefill_thinking=True), [row], instruction="", model_dir=str(tmp_path))
    assert tokenizer.decode(pair.prompt).endswith("2+3=<think>")
    assert tokenizer.decode(pair.chosen) == "2+3</think>5<eos>"
    assert tokenizer.decode(pair.rejected) == "</think>6<eos>"
