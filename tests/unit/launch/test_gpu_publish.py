"""How learner and engines work together on a publish over GPUs, with fakes at both ends."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from launch.gpu_publish import by_ipc, by_nccl
from rollout.weight_sides import merge_ipc

CHUNKS = [{"names": ["a"], "dtype_names": ["bfloat16"], "shapes": [[2, 3]]}, {"names": ["b"]}]


@dataclass
class Wire:
    """A broadcast needs both sides: each waits for the other."""

    met: asyncio.Event = field(default_factory=asyncio.Event)
    group: int = 0
    arrived: int = 0

    async def arrive(self, size: int) -> None:
        self.arrived += 1
        if self.arrived == size:
            self.arrived = 0
            self.met.set()
            self.met = asyncio.Event()
        else:
            async with asyncio.timeout(5):
                await self.met.wait()


@dataclass
class Info:
    num_chunks: int = len(CHUNKS)


class Learner:
    def __init__(self, wire: Wire) -> None:
        self.wire, self.calls = wire, []  # type: ignore[var-annotated]

    async def ready(self) -> Info:
        return Info()

    async def version(self) -> int:
        return 7

    async def meeting_place(self) -> tuple[str, int]:
        return "host", 1234

    async def open_channel(self, make: Any, host: str, port: int, size: int) -> None:
        self.calls.append(make(host, port, size))
        await self.wire.arrive(size)

    async def announce_chunk(self, index: int) -> Any:
        return CHUNKS[index]

    async def send_chunk(self, index: int) -> None:
        self.calls.append(f"send {index}")
        await self.wire.arrive(self.wire.group)

    async def share_chunk(self, index: int, share: Any) -> list[Any]:
        self.calls.append(f"share {index}")
        return [share(f"{index} of rank {rank}") for rank in range(2)]

    async def drop_chunk(self) -> None:
        self.calls.append("drop")


class Engines:
    def __init__(self, wire: Wire, width: int, members: tuple[int, ...]) -> None:
        self.wire, self.width, self.member_ids, self.calls = wire, width, members, []  # type: ignore[var-annotated]

    async def begin_update(self, version: int) -> None:
        self.calls.append(f"begin {version}")

    async def join(self, meetings: list[dict[str, Any]]) -> None:
        self.calls.append(meetings)
        if "world_size" in meetings[0]:
            self.wire.group = meetings[0]["world_size"]
            await asyncio.gather(*(self.wire.arrive(self.wire.group) for _ in range(self.wire.group - 1)))

    async def receive(self, chunk: Any, *more: Any) -> None:
        self.calls.append((chunk, *more))
        if not more:
            await asyncio.gather(*(self.wire.arrive(self.wire.group) for _ in range(self.wire.group - 1)))

    async def finish_update(self, version: int) -> None:
        self.calls.append(f"finish {version}")


async def publish(ends: Any, version: int) -> None:
    """As `rl.sync.PublishAndProve` does."""
    await ends.sink.begin_update(version)
    async for chunk in ends.source.export():
        await ends.sink.receive(chunk)
    await ends.sink.finish_update(version)


async def test_a_broadcast_meets_every_worker_once_and_again_when_engines_change() -> None:
    wire = Wire()
    learner, engines = Learner(wire), Engines(wire, 2, (0, 1))
    ends = by_nccl(learner, engines, make_sender=lambda *place: place, width=2)
    await publish(ends, 1)
    meeting = {"master_address": "host", "master_port": 1234, "world_size": 5}
    joined = [{**meeting, "rank_offset": 1}, {**meeting, "rank_offset": 3}]
    assert engines.calls == ["begin 1", joined, (CHUNKS[0],), (CHUNKS[1],), "finish 1"]
    assert learner.calls == [("host", 1234, 5), "send 0", "send 1"]
    engines.calls.clear()
    await publish(ends, 2)
    assert engines.calls == ["begin 2", (CHUNKS[0],), (CHUNKS[1],), "finish 2"], "they have met already"
    engines.member_ids = (0, 2)  # one died and came back as another process
    await publish(ends, 3)
    assert joined in engines.calls
    assert await ends.source.version() == 7, "the rest is the learner's own"


async def test_what_the_engines_refuse_ends_the_broadcast() -> None:
    wire = Wire()
    learner, engines = Learner(wire), Engines(wire, 1, (0,))
    ends = by_nccl(learner, engines, make_sender=lambda *place: place, width=1)

    async def refuse(chunk: Any, *more: Any) -> None:
        raise RuntimeError("no room")

    engines.receive = refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no room"):
        await publish(ends, 1)


async def test_shared_tensors_are_kept_until_the_engines_have_them() -> None:
    wire = Wire()
    learner, engines = Learner(wire), Engines(wire, 1, (0, 1))
    ends = by_ipc(learner, engines, share=str.upper, merge=merge_ipc)
    await publish(ends, 1)
    assert learner.calls == ["share 0", "drop", "share 1", "drop"]
    assert engines.calls == [
        "begin 1",
        [{"packed": False}, {"packed": False}],
        (CHUNKS[0], merge_ipc, "0 OF RANK 0", "0 OF RANK 1"),
        (CHUNKS[1], merge_ipc, "1 OF RANK 0", "1 OF RANK 1"),
        "finish 1",
    ]


def test_handles_of_all_ranks_are_merged_tensor_by_tensor() -> None:
    assert merge_ipc([[{"g0": "a0"}, {"g0": "b0"}], [{"g1": "a1"}, {"g1": "b1"}]]) == [
        {"g0": "a0", "g1": "a1"},
        {"g0": "b0", "g1": "b1"},
    ]
