"""A reward model behind OpenRLHF's HTTP protocol, as an async reward function.

Request: POST of JSON {"query": [text], "prompts": [text], "labels": [text]}. Answer: JSON {"rewards": [number], ...}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx

_CONNECT_S = 5.0


def remote_reward(address: str) -> Callable[..., Awaitable[Any]]:
    """`reward_func(queries, prompts, labels)` that asks the service at `address`.

    The deadline is the caller's. Raises httpx.HTTPError when the service does not answer or answers with an error, and
    ValueError when the answer is no JSON.
    """
    client: list[httpx.AsyncClient] = []  # made inside the event loop that it belongs to

    async def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> Any:
        if not client:
            client.append(httpx.AsyncClient(timeout=httpx.Timeout(None, connect=_CONNECT_S), trust_env=False))
        body = {"query": list(queries), "prompts": list(prompts), "labels": list(labels)}
        answer = await client[0].post(address, json=body)
        answer.raise_for_status()
        return answer.json()

    return reward_func
