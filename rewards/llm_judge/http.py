"""A chat model behind an OpenAI-compatible HTTP service. The only file of this room that imports httpx."""

from __future__ import annotations

import email.utils
import json
import os
import time
from typing import Any

import httpx

from rewards.llm_judge.port import ChatError, ChatRequest
from rewards.llm_judge.settings import ModelJudgeSettings

_MAX_RESPONSE_BYTES = 4 << 20
_CONNECT_SECONDS = 10.0
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_ABOUT_THE_KEY = frozenset({401, 403})


class HttpChatModel:
    """Implements `ChatModel`. Follows no redirect and no proxy setting: the key goes to the named host only."""

    def __init__(self, settings: ModelJudgeSettings) -> None:
        """Raises ChatError when the key's variable is not set."""
        self._model = settings.model
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._key = _key(settings.api_key_variable)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(
            max_connections=settings.max_concurrent, max_keepalive_connections=settings.max_concurrent
        )
        self._client = httpx.AsyncClient(headers=headers, limits=limits, trust_env=False, follow_redirects=False)

    async def complete(self, request: ChatRequest, *, within_s: float) -> str:
        """The first choice's text. Raises ChatError."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
        }
        if request.schema is not None:
            named = {"name": "verdict", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        timeout = httpx.Timeout(within_s, connect=min(within_s, _CONNECT_SECONDS))
        try:
            async with self._client.stream("POST", self._url, json=body, timeout=timeout) as response:
                content = await _read(response)
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise ChatError(f"{type(error).__name__}: {self._without_key(str(error))}", is_passing=True) from None
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response, content)
        return _text_of(content)

    async def close(self) -> None:
        await self._client.aclose()

    def _refusal(self, response: httpx.Response, content: bytes) -> ChatError:
        status = response.status_code
        said = "" if status in _ABOUT_THE_KEY else f": {self._without_key(content[:200].decode(errors='replace'))}"
        return ChatError(
            f"HTTP {status}{said}",
            is_passing=status in _PASSING,
            retry_after_s=_retry_after(response.headers.get("Retry-After")),
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _key(variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ChatError(f"the environment variable {variable}, which should hold the key, is not set", is_passing=False)
    return key


async def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > _MAX_RESPONSE_BYTES:
            raise ChatError(f"a response of more than {_MAX_RESPONSE_BYTES} bytes", is_passing=False)
    return bytes(content)


def _text_of(content: bytes) -> str:
    """Raises ChatError for what is no completion, or one that was cut: its verdict would be missing or half."""
    try:
        choice: Any = json.loads(content)["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise ChatError("the response is no chat completion", is_passing=True) from None
    if choice.get("finish_reason") == "length":
        raise ChatError("the grading was cut off: raise max_tokens", is_passing=True)
    if not isinstance(text, str):
        raise ChatError("the response holds no text", is_passing=True)
    return text


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait; the header holds seconds or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
