"""What a run cannot outlive is watched: a loss ends the body in order and is named; a short silence does not."""

import asyncio
from typing import Any

import pytest

from launch import lifelines
from launch.lifelines import ClusterLostError, watched


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("EVERY_S", 0.05), ("REFUSED_S", 0.2), ("SILENT_S", 0.4)):
        monkeypatch.setattr(lifelines, name, seconds)


async def listening(port: int = 0) -> tuple[asyncio.Server, int]:
    async def leave(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(leave, "127.0.0.1", port)
    return server, server.sockets[0].getsockname()[1]


async def test_a_loss_ends_the_body_in_order_and_is_named() -> None:
    server, port = await listening()
    saved = []

    async def body() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.1)  # a checkpoint
            saved.append("step 3")

    async with asyncio.timeout(10):
        with pytest.raises(ClusterLostError, match=rf"^Ray's head, at 127\.0\.0\.1:{port}, is gone \(refused\)"):
            async with watched({"Ray's head": ("127.0.0.1", port)}):
                asyncio.get_running_loop().call_later(0.2, server.close)
                await body()
    assert saved == ["step 3"]
    task = asyncio.current_task()
    assert task is not None and not task.cancelling(), "what follows can wait again"


async def test_a_silence_has_more_time_than_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unanswered(host: str, port: int) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(asyncio, "open_connection", unanswered)
    began = asyncio.get_running_loop().time()
    with pytest.raises(ClusterLostError, match=r"is gone \(silent"):
        async with watched({"x": ("127.0.0.1", 9)}):
            await asyncio.sleep(10)
    assert 0.4 < asyncio.get_running_loop().time() - began < 5


async def test_one_that_comes_back_is_no_loss() -> None:
    server, port = await listening()
    async with asyncio.timeout(10), watched({"x": ("127.0.0.1", port)}):
        for _ in range(3):
            server.close()
            await asyncio.sleep(0.1)
            server, _ = await listening(port)
            await asyncio.sleep(0.2)
    server.close()


async def test_other_ends_stay_what_they_are() -> None:
    server, port = await listening()
    with pytest.raises(KeyError):
        async with watched({"x": ("127.0.0.1", port)}):
            raise KeyError

    async def body() -> None:
        async with watched({"x": ("127.0.0.1", port)}):
            await asyncio.sleep(30)

    task = asyncio.create_task(body())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.close()
