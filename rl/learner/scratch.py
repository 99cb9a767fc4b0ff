"""A small Llama with random weights and a tokenizer of one token per character, as a Hugging Face model directory."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rl.learner.config import STRUCTURAL_TOKENS, ScratchModel

BOS, EOS, PAD = STRUCTURAL_TOKENS[:3]


def build_model(spec: ScratchModel, out_dir: str, *, seed: int) -> None:
    """Write model, tokenizer and generation settings into `out_dir`, which `transformers` and the engine can load.

    The same `spec` and `seed` give the same bytes. The process's own random state is left as it was.
    """
    tokenizer = build_tokenizer(spec)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        num_key_value_heads=spec.num_heads,
        max_position_embeddings=spec.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        initializer_range=spec.initializer_range,
        tie_word_embeddings=spec.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def build_tokenizer(spec: ScratchModel) -> PreTrainedTokenizerFast:
    """One id per structural mark, special mark and character, in this order. Text outside the alphabet is refused.

    A word-level model over single characters, without an unknown token: encoding a foreign character raises instead of
    losing it. Decoding concatenates, so it gives back the exact text.
    """
    marks = [*STRUCTURAL_TOKENS, *spec.special_tokens]
    vocab = {token: index for index, token in enumerate([*marks, *spec.characters])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocab))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=marks[3:],
        clean_up_tokenization_spaces=False,
        model_max_length=spec.max_positions,
    )
