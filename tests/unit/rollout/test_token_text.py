"""Ends of tokens in the decoded text, for tokens that hold part of a character."""

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.render import Renderer
from rollout.token_text import TokenText
from tests.tiny_model import build_tokenizer

TOKENIZER = build_tokenizer()


def decode(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def ends_of(text: str) -> list[int]:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    got, ends = TokenText(decode, anchor=TOKENIZER.eos_token_id)(ids)
    assert got == text
    return [int(end) for end in ends]


def test_ends_by_hand() -> None:
    assert ends_of("") == []
    assert ends_of("ab") == [1, 2]
    assert ends_of(" the sum") == [4, 8]
    assert ends_of("a\u00fc b") == [1, 1, 2, 3, 4]  # two bytes: the second token takes the character
    assert ends_of("\U0001f600!") == [0, 0, 0, 1, 2]
    assert ends_of("<think>\u20ac</think>") == [7, 7, 7, 8, 16]


def test_the_replacement_character_itself_is_a_character() -> None:
    assert ends_of("a\ufffdb") == [1, 2, 2, 2, 3]  # its first byte already decodes to it


@settings(deadline=None)
@given(st.text(max_size=30))
def test_every_character_ends_where_its_last_byte_does(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    got, ends = TokenText(decode, anchor=TOKENIZER.eos_token_id)(ids)
    assert got == text
    assert len(ends) == len(ids)
    sizes = [len(decode([i]).encode()) if "\ufffd" not in decode([i]) else 1 for i in ids]
    if sum(sizes) != len(text.encode()):  # a token that spells U+FFFD itself: sizes cannot be told apart
        return
    bytes_so_far = np.cumsum(sizes, dtype=int)
    last_bytes = np.cumsum([len(c.encode()) for c in text], dtype=int)
    if "\ufffd" not in text:
        assert ends.tolist() == [int((last_bytes <= b).sum()) for b in bytes_so_far]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
def test_any_tokens_have_ordered_ends_inside_the_text(ids: list[int]) -> None:
    text, ends = TokenText(decode, anchor=TOKENIZER.eos_token_id)(ids)
    assert text == decode(ids)
    assert ends.dtype == np.int32
    assert len(ends) == len(ids)
    assert (np.diff(ends) >= 0).all()
    assert not ids or ends[-1] == len(text)


def test_a_decoder_that_drops_the_first_space() -> None:
    words = ["\u2581one", "\u2581two", "s"]

    def sentencepiece_like(ids: list[int]) -> str:
        return "".join(words[i] for i in ids).replace("\u2581", " ").removeprefix(" ")

    text, ends = TokenText(sentencepiece_like, anchor=2)([0, 2, 1])
    assert (text, ends.tolist()) == ("ones two", [3, 4, 8])


def test_a_decoder_that_looks_far_back_still_gets_ends() -> None:
    def counting(ids: list[int]) -> str:
        return "".join(f"{n}" for n, _ in enumerate(ids))

    text, ends = TokenText(counting, anchor=0)([5, 6, 7])
    assert (text, ends.tolist()) == ("012", [1, 2, 3])


def test_the_renderer_uses_it(make_renderer: Callable[..., Renderer]) -> None:
    renderer = make_renderer()
    text, ends = renderer.text_of(renderer.response_ids("\u00fc", "2"))
    assert (text, ends.tolist()) == ("<think>\u00fc</think>2<eos>", [7, 7, 8, 16, 17, 22])
