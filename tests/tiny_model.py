"""A two-layer Llama with random weights and a small byte-level tokenizer, as a Hugging Face directory.

Head size 32 is the smallest that the CPU engine accepts. The vocabulary is one token per byte, so any text can be
written and a character such as an umlaut takes several tokens, plus the marks and a few merged words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = ("<bos>", "<eos>", "<pad>", "<think>", "</think>")
WORDS = (" the", " sum", " is", "ing")


def build_tokenizer(*, special: tuple[str, ...] = SPECIAL, chat_template: str | None = None) -> Any:
    """Byte-level tokenizer; a mark left out of `special` is spelled with several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        left = "\u0120" if word[0] == " " else word[0]
        for character in word[1:]:
            merges.append((left, character))
            left += character
            vocab.setdefault(left, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(dict.fromkeys(merges))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat_template
    return fast


def build_tiny_model(out_dir: Path, *, tied: bool, seed: int = 0, **tokenizer_options: Any) -> Path:
    """Write model and tokenizer to `out_dir` and return it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(**tokenizer_options)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        initializer_range=0.1,  # wide enough that distributions are far from uniform
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    return out_dir
