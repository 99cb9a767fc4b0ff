"""What a step scorer reads: token ids, and the positions at which its head is read. No torch here.

Two ways: the policy's own tokens, with nothing tokenized again (`read_tokens`); or text through the scorer's own
tokenizer and chat template, each step followed by a separator token of its own (`read_chat`), as Qwen's process reward
models expect it. Text never becomes a separator or another special token, whatever it spells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prm.items import ScoreItem
from rollout.schema import Int32Array, Message


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """`positions` are those of the first steps; fewer than steps means that the rest did not fit."""

    token_ids: Int32Array  # [L]
    positions: tuple[int, ...]


def read_tokens(
    token_ids: Int32Array, spans: Sequence[tuple[int, int]], *, separator_id: int | None, max_tokens: int
) -> Reading:
    """The sequence as it is, read at the last token of each step; or with a separator put in after each step and read
    there."""
    if separator_id is None:
        positions = tuple(end - 1 for _, end in spans if end <= max_tokens)
        return Reading(token_ids=token_ids[:max_tokens], positions=positions)
    ends = [end for _, end in spans]
    longer = np.insert(token_ids, ends, separator_id).astype(np.int32)
    places = [end + index for index, end in enumerate(ends)]
    return Reading(token_ids=longer[:max_tokens], positions=tuple(p for p in places if p < max_tokens))


def read_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    steps: Sequence[str],
    *,
    separator_id: int,
    max_tokens: int,
    system: str = "",
) -> Reading:
    """Messages through the chat template, then each step and a separator. Whole steps only: the first that does not fit
    ends the sequence."""
    item = text_item(tokenizer, messages, steps, separator_id=separator_id, system=system)
    kept = [span for span in item.spans if span[1] <= max_tokens]
    end = kept[-1][1] if kept else min(max_tokens, item.spans[0][0] if item.spans else len(item.token_ids))
    return Reading(token_ids=item.token_ids[:end], positions=tuple(span[1] - 1 for span in kept))


def text_item(
    tokenizer: Any,
    messages: Sequence[Message],
    steps: Sequence[str],
    *,
    separator_id: int | None,
    joiner: str = "\n\n",
    system: str = "",
) -> ScoreItem:
    """A solution that is only known as text, as tokens: each step with what ends it, the separator token or the joiner.

    The last step has no joiner behind it.
    """
    ids = prompt_ids(tokenizer, messages, system=system)
    prompt_len = len(ids)
    spans = []
    for index, step in enumerate(steps):
        start = len(ids)
        if separator_id is not None:
            ids += [*plain_ids(tokenizer, step), separator_id]
        else:
            ids += plain_ids(tokenizer, step + (joiner if index < len(steps) - 1 else ""))
        if len(ids) == start:
            raise ValueError(f"step {index} has no token: {step!r}")
        spans.append((start, len(ids)))
    return ScoreItem(
        token_ids=np.asarray(ids, dtype=np.int32),
        sampled=np.arange(len(ids)) >= prompt_len,
        spans=tuple(spans),
        messages=tuple(messages),
        steps=tuple(steps),
    )


def prompt_ids(tokenizer: Any, messages: Sequence[Message], *, system: str = "") -> list[int]:
    """The conversation up to where the assistant begins. Without a chat template: the contents, joined by newlines."""
    turns = [{"role": m.role, "content": m.content} for m in messages]
    if system and not any(turn["role"] == "system" for turn in turns):
        turns.insert(0, {"role": "system", "content": system})
    if not tokenizer.chat_template:
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return [*begin, *plain_ids(tokenizer, "\n".join(turn["content"] for turn in turns) + "\n")]
    # The template is applied to placeholders, so that a special token inside of a text stays text.
    marks = [f"\ue000{index}\ue001" for index in range(len(turns))]
    shown = [turn | {"content": mark} for turn, mark in zip(turns, marks, strict=True)]
    rendered: str = tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
    ids: list[int] = []
    for turn, mark in zip(turns, marks, strict=True):
        before, found, rendered = rendered.partition(mark)
        if not found:
            raise ValueError("the chat template changes or drops a message; use input = 'tokens'")
        ids += tokenizer.encode(before, add_special_tokens=False)
        ids += plain_ids(tokenizer, turn["content"])
    return ids + list(tokenizer.encode(rendered, add_special_tokens=False))


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text in which special tokens are only letters."""
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
