"""Weights from learner to engines without leaving the GPUs, behind the ports of `rl/sync.py`.

    NCCL   learner rank 0 and every worker of every engine form a group; a chunk is announced to the engines and
           broadcast at the same time. The group is formed anew when engines come or go.
    IPC    engines on the learner's own GPUs open the tensors where they are, by CUDA IPC handles.

Each has a source and a sink that work together on every chunk; the proof is that of any publish. ZeRO-3 weights are
gathered chunk by chunk either way. What is announced is names, dtypes and shapes, plain data; IPC handles pass through
the driver as references that it never opens. An engine that dies in the middle of a broadcast holds up the others: the
publish then ends at its deadline, and the run with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

Announcement = dict[str, list[Any]]  # names, dtype_names, shapes, as vLLM's update takes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Source and sink for `rl.sync.PublishAndProve`."""

    source: Any
    sink: Any


class _Delegate:
    """Everything but what a subclass does itself is the part's own."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


def by_nccl(learner: Any, engines: Any, *, make_sender: Callable[[str, int, int], Any], width: int) -> Ends:
    """`make_sender(address, port, group size)` is called in learner rank 0; `width` is the number of an engine's
    workers."""
    source = _Broadcast(learner, make_sender)
    return Ends(source=source, sink=_Listeners(engines, source, width))


class _Broadcast(_Delegate):
    def __init__(self, learner: Any, make_sender: Callable[[str, int, int], Any]) -> None:
        super().__init__(learner)
        self._make_sender = make_sender

    async def open(self, group_size: int) -> tuple[tuple[str, int], asyncio.Future[None]]:
        """Where to meet, and rank 0 waiting there."""
        place = await self._part.meeting_place()
        waiting = asyncio.ensure_future(self._part.open_channel(self._make_sender, *place, group_size))
        return place, waiting

    async def export(self) -> AsyncIterator[Announcement]:
        """Announce each chunk while it is sent. A chunk counts as sent when the sink has received it."""
        for index in range((await self._part.ready()).num_chunks):
            announcement = await self._part.announce_chunk(index)
            sending = asyncio.ensure_future(self._part.send_chunk(index))
            try:
                yield announcement
                await sending
            finally:
                sending.cancel()


class _Listeners(_Delegate):
    def __init__(self, engines: Any, source: _Broadcast, width: int) -> None:
        super().__init__(engines)
        self._source = source
        self._width = width
        self._joined: tuple[int, ...] = ()

    async def begin_update(self, version: int) -> None:
        await self._part.begin_update(version)  # engines that came back are among those that serve from here on
        members = self._part.member_ids
        if members != self._joined:
            group_size = 1 + self._width * len(members)
            (address, port), waiting = await self._source.open(group_size)
            meeting = {"master_address": address, "master_port": port, "world_size": group_size}
            await self._part.join([{**meeting, "rank_offset": 1 + self._width * i} for i in range(len(members))])
            await waiting
            self._joined = members


def by_ipc(
    learner: Any, engines: Any, *, share: Callable[[Any], Any], merge: Callable[[Any], list[dict[str, Any]]]
) -> Ends:
    """`share` makes handles in each learner rank, `merge` puts those of all ranks together in an engine."""
    return Ends(source=_Shared(learner, share), sink=_Openers(engines, merge))


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedChunk:
    announcement: Announcement
    handles: list[Any]  # references, one a rank


class _Shared(_Delegate):
    def __init__(self, learner: Any, share: Callable[[Any], Any]) -> None:
        super().__init__(learner)
        self._share = share

    async def export(self) -> AsyncIterator[SharedChunk]:
        """Each chunk is kept by the ranks until the sink has received it, and no longer."""
        for index in range((await self._part.ready()).num_chunks):
            announcement = await self._part.announce_chunk(index)
            yield SharedChunk(announcement=announcement, handles=await self._part.share_chunk(index, self._share))
            await self._part.drop_chunk()


class _Openers(_Delegate):
    def __init__(self, engines: Any, merge: Callable[[Any], list[dict[str, Any]]]) -> None:
        super().__init__(engines)
        self._merge = merge
        self._joined: tuple[int, ...] = ()

    async def begin_update(self, version: int) -> None:
        await self._part.begin_update(version)
        if self._part.member_ids != self._joined:
            await self._part.join([{"packed": False} for _ in self._part.member_ids])
            self._joined = self._part.member_ids

    async def receive(self, chunk: SharedChunk) -> None:
        await self._part.receive(chunk.announcement, self._merge, *chunk.handles)
