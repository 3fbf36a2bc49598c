"""The answering side of repair: digests of this node's copies of shards, and rows of the cells in which they differ."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

import msgspec
import numpy as np
import structlog

from dsdbd.cluster.freshness import reach_index
from dsdbd.cluster.peers import ErrorBody
from dsdbd.cluster.repair_messages import (
    FRAME_ALIVE,
    FRAME_END,
    FRAME_ERROR,
    FRAME_ROWS,
    DigestsAnswer,
    DigestsRequest,
    ExportRequest,
    Range,
    SummariesAnswer,
    SummariesRequest,
    Summary,
    WireGrid,
    decode_request,
    encode,
)
from dsdbd.cluster.repair_plan import identity, summary_of, tombstone_sum
from dsdbd.cluster.shard_places import ShardPlaces, key_of
from dsdbd.errors import CorruptData, DSDBError, ShardUnavailable
from dsdbd.model.columns import Batch, encode_batch
from dsdbd.storage.tombstones import encode_tombstones

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping

    from dsdbd.cluster.node import Node
    from dsdbd.meta.views import ShardPlace
    from dsdbd.model.columns import Points
    from dsdbd.model.digest import Grid
    from dsdbd.storage import Shard
    from dsdbd.storage.replica import Replica
    from dsdbd.storage.tombstones import Tombstone

log = structlog.get_logger("repair")
_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
_GRIDS_AT_ONCE = 64
"""Measurements in one answer; a grid has eight kilobytes at most."""
_ALIVE_S = 1.0
_METADATA_TIMEOUT_S = 5.0


class Content(NamedTuple):
    """What a copy of a shard holds, and the processor time that it took to find out."""

    grids: Mapping[str, Grid]
    tombstones: tuple[Tombstone, ...]
    took_s: float = 0.0


class Glance(NamedTuple):
    """A copy of a shard in two numbers, as ``Summary``; ``held``: identities of its deletions. ``took_s`` as above."""

    total: int
    tombstones: int
    held: frozenset[int]
    took_s: float = 0.0


class _Known(NamedTuple):
    """What a copy was when nothing of it has changed since: neither its values nor how many deletions it keeps."""

    shard: Shard
    changes: int
    tombstones: int
    glance: Glance


class RepairSource:
    """Looks at the shards of one node, for this node and for others; use it on the event loop.

    One thread makes the digests that nobody waits for, two what a client or another node waits for.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._background = ThreadPoolExecutor(1, thread_name_prefix="dsdb-repair")
        self._asked = ThreadPoolExecutor(2, thread_name_prefix="dsdb-repair")
        self._known: dict[int, _Known] = {}
        self.places = ShardPlaces(node)

    def work(self, function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> Future[_Result]:
        """Run what somebody waits for in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._asked, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Begin nothing more; what is under way ends by itself."""
        self._background.shutdown(wait=False, cancel_futures=True)
        self._asked.shutdown(wait=False, cancel_futures=True)

    def replica(self, place: ShardPlace) -> Replica | None:
        """The copy of this node; None where it holds nothing of the shard. Raises ShardUnavailable."""
        store = self._node.store
        if store is None:
            raise ShardUnavailable(self._node.storage_wait or "this node stores no points")
        if store.shard(place.shard.id) is None:
            return None
        return store.make_replica(key_of(place), place.group.start_ns, place.group.end_ns)

    async def content(self, place: ShardPlace, part: Range, *, background: bool = False) -> Content:
        """What this node's copy holds of a part of a shard. Raises ShardUnavailable."""
        replica = self.replica(place)
        if replica is None:
            return Content({}, ())
        threads = self._background if background else self._asked
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, _content, replica, part)
        except (OSError, CorruptData) as error:
            raise ShardUnavailable(f"shard {place.shard.id} of this node cannot be read: {error}") from error

    async def glance(self, place: ShardPlace, below: int) -> Glance:
        """The copy of this node in numbers, at once where it has not changed. Raises ShardUnavailable."""
        store, shard_id = self._node.store, place.shard.id
        shard = None if store is None else store.shard(shard_id)
        if shard is None:
            self._known.pop(shard_id, None)
        elif not below:
            known = self._known.get(shard_id)
            changes, tombstones = shard.changes, shard.tombstones
            if known is not None and known[:3] == (shard, changes, tombstones):
                return known.glance
        content = await self.content(place, Range(below=below), background=True)
        held = frozenset(map(identity, content.tombstones))
        found = Glance(summary_of(content.grids), tombstone_sum(content.tombstones), held, content.took_s)
        if shard is not None and not below:
            self._known[shard_id] = _Known(shard, changes, tombstones, found._replace(took_s=0.0))
        return found

    def forget_others(self, shards: Collection[int]) -> None:
        """Let go of what is known of all but these shards."""
        self._known = {shard_id: known for shard_id, known in self._known.items() if shard_id in shards}

    async def summaries(self, body: bytes) -> bytes:
        """Answer a SummariesRequest; a shard that this node does not know, or cannot read, is left out."""
        request = decode_request(body, SummariesRequest)
        await reach_index(self._node, request.metadata_index, _METADATA_TIMEOUT_S)
        found = []
        for shard_id, below in request.shards:
            place = self.places.get(shard_id)
            if place is None:
                continue
            try:
                glance = await self.glance(place, below)
            except DSDBError as error:
                log.info("a copy cannot be compared", shard=shard_id, node=request.data_id, reason=error.message)
                continue
            found.append(Summary(shard_id, glance.total, glance.tombstones))
        handoff = self._node.handoff
        return encode(SummariesAnswer(found, 0 if handoff is None else handoff.kept_bytes(request.data_id)))

    async def digests(self, body: bytes) -> bytes:
        """Answer a DigestsRequest. Raises ShardUnavailable."""
        request = decode_request(body, DigestsRequest)
        place = await self._place(request.shard_id, request.metadata_index)
        content = await self.content(place, request.part)
        names = sorted(
            name
            for name, grid in content.grids.items()
            if name > request.after and len(grid.places) and grid.total != request.totals.get(name)
        )
        grids = [_wire(name, content.grids[name]) for name in names[:_GRIDS_AT_ONCE]]
        if not names and not request.after:
            # What only the asking node has is nothing to pull; but it may be there for want of one of our deletions.
            only_there = [name for name in request.totals if not _has_values(content, name)]
            grids = [WireGrid(min(only_there), b"", b"")] if only_there else []
        same = tombstone_sum(content.tombstones) == request.tombstones
        tombstones = b"" if same else encode_tombstones(content.tombstones)
        return encode(DigestsAnswer(grids, tombstones, more=len(names) > len(grids)))

    async def export(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """The frames that answer an ExportRequest. Raises ShardUnavailable before the first."""
        request = decode_request(body, ExportRequest)
        place = await self._place(request.shard_id, request.metadata_index)
        replica = self.replica(place)
        cells = np.frombuffer(request.cells, "<u2").tolist()
        rows: Iterator[Points] = iter(())
        if replica is not None:
            rows = replica.export(
                request.measurement,
                cells,
                min_ns=request.min_ns,
                max_ns=request.max_ns,
                below=request.below or None,
                since=request.since or None,
                coordinator=request.coordinator,
            )
        making: Future[bytes | None] | None = None
        try:
            while True:
                making = self.work(_next_frame, rows)
                while not making.done():
                    await asyncio.wait({making}, timeout=_ALIVE_S)
                    if not making.done():
                        yield bytes([FRAME_ALIVE])
                frame = making.result()
                if frame is None:
                    break
                yield frame
        except (DSDBError, OSError) as error:
            code = error.code if isinstance(error, DSDBError) else ShardUnavailable.code
            yield _frame(FRAME_ERROR, msgspec.json.encode(ErrorBody(str(error), code)))
            return
        finally:
            # Whoever stops reading lets the files go: not before the thread is done with them.
            if making is not None:
                await asyncio.wait({making})
            await self.work(_close, rows)
        yield bytes([FRAME_END])

    async def _place(self, shard_id: int, metadata_index: int) -> ShardPlace:
        await reach_index(self._node, metadata_index, _METADATA_TIMEOUT_S)
        place = self.places.get(shard_id)
        if place is None:
            raise ShardUnavailable(f"shard {shard_id} is not in the metadata of this node: it was dropped, or is new")
        if self._node.transfer is not None:
            # Who asks may count this node for a majority.
            await self._node.transfer.switching.over([place], _METADATA_TIMEOUT_S)
        return place


def _content(replica: Replica, part: Range) -> Content:
    begun_s = time.thread_time()
    grids = replica.digests(
        part.measurements,
        min_ns=part.min_ns,
        max_ns=part.max_ns,
        below=part.below or None,
        since=part.since or None,
        coordinator=part.coordinator,
    )
    return Content(grids, replica.tombstones(), time.thread_time() - begun_s)


def _has_values(content: Content, name: str) -> bool:
    grid = content.grids.get(name)
    return grid is not None and len(grid.places) > 0


def _wire(name: str, grid: Grid) -> WireGrid:
    return WireGrid(name, grid.places.astype("<u2").tobytes(), grid.sums.astype("<u8").tobytes())


def _next_frame(rows: Iterator[Points]) -> bytes | None:
    points = next(rows, None)
    if points is None:
        return None
    version = int(points.versions.max()) if points.versions is not None and len(points) else 0
    return _frame(FRAME_ROWS, encode_batch(Batch(version, (points,))))


def _close(rows: Iterator[Points]) -> None:
    close = getattr(rows, "close", None)
    if close is not None:
        close()


def _frame(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(4, "little") + body
