"""The model from scratch: exact text, exact bytes, loadable by its own files alone."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl.learner.config import STRUCTURAL_TOKENS, ScratchModel
from rl.learner.scratch import build_model, build_tokenizer

SPEC = ScratchModel(hidden_size=64, num_layers=1, intermediate_size=64, num_heads=2, characters="0123456789+=; \nab.")
MARKS = (*STRUCTURAL_TOKENS, *SPEC.special_tokens)
TOKENIZER = build_tokenizer(SPEC)


def files(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in sorted(os.listdir(directory))}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*MARKS, *SPEC.characters]), max_size=30))
def test_decoding_gives_back_the_exact_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert [TOKENIZER.convert_ids_to_tokens(i) for i in ids] == pieces
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_a_character_outside_the_alphabet_is_refused() -> None:
    with pytest.raises(Exception, match="WordLevel error"):
        TOKENIZER.encode("3*4")


@pytest.mark.parametrize("tied", [False, True])
def test_the_directory_loads_and_depends_on_the_seed_alone(tmp_path: Path, tied: bool) -> None:
    spec = SPEC.model_copy(update={"tied": tied})
    state = torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_model(spec, str(tmp_path / name), seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["model.safetensors"] != files(tmp_path / "c")["model.safetensors"]

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert len(tokenizer) == spec.vocab_size == model.config.vocab_size
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == MARKS.index("<eos>")
    assert model.dtype == torch.float32
