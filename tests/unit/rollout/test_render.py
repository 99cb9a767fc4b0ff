"""Prompts, demonstrations and the checks of a format against a tokenizer."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rollout.config import FormatConfig
from rollout.render import Renderer
from rollout.schema import Message
from tests.tiny_model import build_tokenizer

MakeRenderer = Callable[..., Renderer]
ASK = (Message(role="user", content="1+1="),)
CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def text_of(renderer: Renderer, ids: list[int]) -> str:
    return renderer.text_of(ids)[0]


@pytest.fixture
def with_template(tmp_path: Path) -> Callable[..., Renderer]:
    def make(template: str, **format_settings: Any) -> Renderer:
        build_tokenizer(chat_template=template).save_pretrained(tmp_path)
        return Renderer.load(str(tmp_path), FormatConfig.model_validate(format_settings))

    return make


def test_a_base_model_gets_instruction_and_contents_as_they_are(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    assert text_of(renderer, renderer.prompt_ids(ASK, "high ")) == "high 1+1="
    prefilled = make_renderer(prefill_thinking=True)
    assert text_of(prefilled, prefilled.prompt_ids(ASK, "")) == "1+1=<think>"


def test_a_chat_template_gets_the_instruction_as_system_message(with_template: Callable[..., Renderer]) -> None:
    renderer = with_template(CHAT)
    assert text_of(renderer, renderer.prompt_ids(ASK, "Think.")) == "<system>Think.\n<user>1+1=\n<assistant>"
    own = (Message(role="system", content="Be kind."), *ASK)
    assert text_of(renderer, renderer.prompt_ids(own, "Think.")).startswith("<system>Be kind.\n\nThink.\n<user>")
    ignoring = with_template(CHAT, use_chat_template=False)
    assert text_of(ignoring, ignoring.prompt_ids(ASK, "")) == "1+1="


def test_a_prefilled_mark_is_not_written_twice(with_template: Callable[..., Renderer]) -> None:
    opening = CHAT.replace("<assistant>", "<assistant><think>\n")
    renderer = with_template(opening, prefill_thinking=True)
    assert text_of(renderer, renderer.prompt_ids(ASK, "")) == "<user>1+1=\n<assistant><think>\n"
    with pytest.raises(ValueError, match=r"opens the thinking in the prompt, but format.prefill_thinking is false"):
        with_template(opening)


def test_a_template_that_drops_the_thinking_is_refused(with_template: Callable[..., Renderer]) -> None:
    dropping = CHAT.replace("m.content", "m.content.split('</think>')[-1]")
    with pytest.raises(ValueError, match="drops the thinking of assistant messages"):
        with_template(dropping)
    with_template(dropping, use_chat_template=False)
    with_template(dropping, has_thinking=False)


def test_a_template_that_refuses_the_messages_is_explained(with_template: Callable[..., Renderer]) -> None:
    renderer = with_template(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    )
    renderer.prompt_ids(ASK, "")
    with pytest.raises(ValueError, match=r"refuses the roles \['system', 'user'\]: no system"):
        renderer.prompt_ids(ASK, "Think.")


def test_a_demonstration_reads_back_and_ends(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    ids = renderer.response_ids("1+1", "2")
    assert text_of(renderer, ids) == "<think>1+1</think>2<eos>"
    prefilled = make_renderer(prefill_thinking=True)
    assert text_of(prefilled, prefilled.response_ids("1+1", "2")) == "1+1</think>2<eos>"
    plain = make_renderer(has_thinking=False)
    assert text_of(plain, plain.response_ids("", "2")) == "2<eos>"
    bare = make_renderer("bare")
    assert text_of(bare, bare.response_ids("1+1", "2")) == "<think>1+1</think>2<eos>"


def test_marks_are_one_token_or_several(make_renderer: MakeRenderer) -> None:
    assert make_renderer().closing.token_id is not None
    assert make_renderer("bare").closing.token_id is None
    renderer = make_renderer(forced_close="enough</think>\n")
    assert text_of(renderer, list(renderer.close_ids)) == "enough</think>\n"


def test_a_renderer_travels_as_a_path_and_a_format(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    renderer.prompt_ids(ASK, "")
    data = pickle.dumps(renderer)
    assert len(data) < 2000
    assert pickle.loads(data).prompt_ids(ASK, "") == renderer.prompt_ids(ASK, "")


def test_ends_of_sequence_come_from_tokenizer_and_generation_settings(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [tokenizer.eos_token_id, 7]}))
    assert Renderer.load(str(tmp_path), FormatConfig()).eos_ids == (tokenizer.eos_token_id, 7)


def test_text_that_the_tokenizer_loses_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(["<unk>", "<eos>", "a", "b", "<think>", "</think>"])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<think>", "</think>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")
    fast.save_pretrained(tmp_path)
    renderer = Renderer.load(str(tmp_path), FormatConfig())
    assert text_of(renderer, renderer.response_ids("ab", "b")) == "<think>ab</think>b<eos>"
    with pytest.raises(ValueError, match="has no token for some of the characters in 'abc'"):
        renderer.prompt_ids((Message(role="user", content="abc"),), "")


def test_a_tokenizer_that_finishes_every_prompt_is_refused(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = build_tokenizer()
    eos = ("<eos>", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[eos])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="ends every text with its end-of-sequence token"):
        Renderer.load(str(tmp_path), FormatConfig())


def test_missing_tokenizers_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a model directory must exist, got"):
        Renderer.load(str(tmp_path / "absent"), FormatConfig())
    with pytest.raises(ValueError, match="no tokenizer can be read from"):
        Renderer.load(str(tmp_path), FormatConfig())


def test_impossible_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="must not contain each other"):
        FormatConfig(thinking_open="<t>", thinking_close="<t>")
    with pytest.raises(ValueError, match="forced_close must contain thinking_close '</think>' exactly once"):
        FormatConfig(forced_close="stop now")
