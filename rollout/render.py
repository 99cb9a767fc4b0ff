"""Prompts and demonstrations as token ids, and token ids as text.

A `Renderer` is light and picklable: it holds a path and the format, and loads the tokenizer at its first use, which
belongs in an actor and not in the driver.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rollout.config import FormatConfig
from rollout.schema import Int32Array, Message
from rollout.token_text import TokenText


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A text that opens or closes the thinking. `token_id` is None where the tokenizer needs several tokens for it."""

    text: str
    ids: tuple[int, ...]

    @property
    def token_id(self) -> int | None:
        return self.ids[0] if len(self.ids) == 1 else None


class Renderer:
    """Between messages and token ids, for one model and one format."""

    def __init__(self, model_dir: str, format: FormatConfig) -> None:
        self.model_dir = model_dir
        self.format = format

    @classmethod
    def load(cls, model_dir: str, format: FormatConfig) -> Renderer:
        """Return a renderer that has passed `check`. Raises ValueError otherwise."""
        renderer = cls(model_dir, format)
        renderer.check()
        return renderer

    def __reduce__(self) -> tuple[type[Renderer], tuple[str, FormatConfig]]:
        return Renderer, (self.model_dir, self.format)

    # -------------------------------------------------------------------------------------------- messages to ids

    def prompt_ids(self, messages: tuple[Message, ...], instruction: str) -> list[int]:
        """Token ids of the prompt, ending where the response begins (after the opening mark, if that is prefilled).

        With a chat template the instruction joins the system message; without one, instruction and contents are
        concatenated as they are. Raises ValueError where the tokenizer cannot spell the prompt or the template
        refuses it.
        """
        if self._has_template:
            text = self._chat_text(with_instruction(messages, instruction))
        else:
            text = instruction + "".join(m.content for m in messages)
        if self.is_prefilled and not text.rstrip().endswith(self.format.thinking_open):
            text += self.format.thinking_open
        return self._encode(text, add_special_tokens=not self._has_template)

    def response_ids(self, thinking: str, answer: str, *, preface: str = "") -> list[int]:
        """Token ids of a whole worked response: preface, marks, thinking, answer and the end of the sequence.

        A prefilled opening mark belongs to the prompt and is left out. Raises ValueError when decoding the ids does not
        give the text back, because the model would then be taught another text.
        """
        if self.format.has_thinking:
            opening = "" if self.is_prefilled else self.format.thinking_open
            text = f"{preface}{opening}{thinking}{self.format.thinking_close}{answer}"
        else:
            text = preface + answer
        ids = self._encode(text)
        if self.text_of(ids)[0] != text:
            raise ValueError(
                f"the tokenizer of {self.model_dir} does not give back the response {text[:80]!r} but "
                f"{self.text_of(ids)[0][:80]!r}; write the demonstration in text that it keeps"
            )
        return [*ids, self.eos_ids[0]]

    @property
    def is_prefilled(self) -> bool:
        """Whether every response starts inside the thinking."""
        return self.format.has_thinking and self.format.prefill_thinking

    def forced_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that is put into a response. Raises ValueError when the tokenizer does not keep it."""
        known = self._forced.get(text)
        if known is not None:
            return known
        ids = self._encode(text)
        if self.text_of(ids)[0] != text:
            raise ValueError(
                f"a text that is put in must survive the tokenizer of {self.model_dir}: {text!r} comes back as "
                f"{self.text_of(ids)[0]!r}; choose one that it can spell"
            )
        self._forced[text] = tuple(ids)
        return self._forced[text]

    @cached_property
    def _forced(self) -> dict[str, tuple[int, ...]]:
        return {}

    @property
    def close_ids(self) -> tuple[int, ...]:
        """What is put in when the thinking cap is reached, unless the budget says otherwise."""
        return self.forced_ids(self.format.close_text)

    @cached_property
    def opening(self) -> Mark:
        return Mark(text=self.format.thinking_open, ids=tuple(self._encode(self.format.thinking_open)))

    @cached_property
    def closing(self) -> Mark:
        return Mark(text=self.format.thinking_close, ids=tuple(self._encode(self.format.thinking_close)))

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a response: the tokenizer's own first, then what the generation settings add."""
        own = self._tokenizer.eos_token_id
        settings = Path(self.model_dir) / "generation_config.json"
        listed = json.loads(settings.read_text()).get("eos_token_id") if settings.is_file() else None
        more = listed if isinstance(listed, list) else [listed]
        return tuple(dict.fromkeys(int(i) for i in (own, *more) if i is not None))

    # -------------------------------------------------------------------------------------------- ids to text

    def text_of(self, ids: Sequence[int]) -> tuple[str, Int32Array]:
        """Text of `ids`, special tokens kept, and char_ends [N], the end of each token in it."""
        return self._token_text(ids)

    # -------------------------------------------------------------------------------------------- checks

    def check(self) -> None:
        """Raise ValueError when tokenizer, chat template and format do not fit together."""
        if not self.eos_ids:
            raise ValueError(
                f"the tokenizer of {self.model_dir} must have an end-of-sequence token, got none; set eos_token in its "
                "tokenizer_config.json"
            )
        if self._encode("", add_special_tokens=True)[-1:] == [self.eos_ids[0]]:
            raise ValueError(
                f"the tokenizer of {self.model_dir} ends every text with its end-of-sequence token, so a prompt would "
                "already be finished; turn that off (add_eos_token = false) in its tokenizer_config.json"
            )
        if self.format.has_thinking:
            self._check_marks()
        if self._has_template:
            self._check_template()

    def _check_marks(self) -> None:
        for name, text in (("thinking_open", self.opening.text), ("close_text", self.format.close_text)):
            spelled = self.text_of(self._encode(text))[0]
            if spelled != text:
                raise ValueError(
                    f"format.{name} must survive the tokenizer of {self.model_dir}: {text!r} comes back as "
                    f"{spelled!r}; choose marks that it can spell"
                )

    def _check_template(self) -> None:
        question = Message(role="user", content="question")
        opened = self._chat_text((question,)).rstrip().endswith(self.format.thinking_open)
        if opened and self.format.has_thinking and not self.format.prefill_thinking:
            raise ValueError(
                f"the chat template of {self.model_dir} opens the thinking in the prompt, but format.prefill_thinking "
                "is false; set it to true"
            )
        if not self.format.has_thinking:
            return
        content = f"{self.format.thinking_open}a thought{self.format.thinking_close}an answer"
        text = self._chat_text((question, Message(role="assistant", content=content)), add_generation_prompt=False)
        if "a thought" not in text:
            raise ValueError(
                f"the chat template of {self.model_dir} drops the thinking of assistant messages; give the model a "
                "template that keeps it, or set format.use_chat_template = false"
            )

    # -------------------------------------------------------------------------------------------- the tokenizer

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        if not Path(self.model_dir).is_dir():
            raise ValueError(f"a model directory must exist, got {self.model_dir}; check the path")
        try:
            return AutoTokenizer.from_pretrained(self.model_dir)
        except (OSError, ValueError) as error:
            raise ValueError(f"no tokenizer can be read from {self.model_dir}: {error}") from error

    @cached_property
    def _token_text(self) -> TokenText:
        tokenizer = self._tokenizer
        if tokenizer.is_fast:  # straight to the library behind it: transformers' own part takes several times as long
            decode = partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=False)
        else:
            decode = partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return TokenText(decode, anchor=self.eos_ids[0])

    @property
    def _has_template(self) -> bool:
        return self.format.use_chat_template and bool(self._tokenizer.chat_template)

    def _chat_text(self, messages: tuple[Message, ...], *, add_generation_prompt: bool = True) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:
            raise ValueError(
                f"the chat template of {self.model_dir} refuses the roles {[m.role for m in messages]}: {error}; "
                "change the messages, or set format.use_chat_template = false"
            ) from error
        return str(text)

    def _encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        try:
            ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        except Exception as error:  # the tokenizers library raises bare exceptions
            raise ValueError(f"the tokenizer of {self.model_dir} cannot encode {text[:80]!r}: {error}") from error
        unknown = self._tokenizer.unk_token_id
        if unknown is not None and unknown in ids and self._tokenizer.unk_token not in text:
            raise ValueError(
                f"the tokenizer of {self.model_dir} has no token for some of the characters in {text[:80]!r}; "
                "use text inside its alphabet"
            )
        return [int(i) for i in ids]


def with_instruction(messages: tuple[Message, ...], instruction: str) -> tuple[Message, ...]:
    """The instruction as system message, after the text of one that is already there."""
    if not instruction:
        return messages
    if messages[0].role == "system":
        system = Message(role="system", content=f"{messages[0].content}\n\n{instruction}")
        return (system, *messages[1:])
    return (Message(role="system", content=instruction), *messages)
