"""Work handed to the engine thread is complete when it is handed over, however fast the thread is."""

import asyncio
from typing import Any

import pytest

pytestmark = pytest.mark.stack  # imports vLLM


class EagerInbox:
    """The worst interleaving: the thread does the work before the caller's next instruction."""

    def put(self, item: tuple[Any, Any]) -> None:
        work, future = item
        work(future)


async def test_a_command_may_run_before_its_caller_continues() -> None:
    from rollout.vllm_engine import VllmEngine

    engine = VllmEngine(version=0)
    engine._inbox = EagerInbox()  # type: ignore[assignment]
    assert await asyncio.wait_for(engine._do(lambda: 7), timeout=5) == 7


async def test_a_request_may_be_added_before_its_caller_continues() -> None:
    from rollout.vllm_engine import VllmEngine

    class Refusing:
        def add_request(self, *_: Any, **__: Any) -> None:
            raise ValueError("no room")

    engine = VllmEngine(version=0)
    engine._inbox = EagerInbox()  # type: ignore[assignment]
    engine._engine = Refusing()
    with pytest.raises(RuntimeError, match="refused a request: ValueError: no room"):
        await asyncio.wait_for(engine.probe([[1, 2]]), timeout=5)
