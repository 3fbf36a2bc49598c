"""The asking side of repair: bring this node's copy of a shard all that another node's holds.

Deletions first, because they decide which rows count; then the rows of the cells that differ. What has arrived stays
when the rest does not come: the next comparison finds less.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dsdbd.cluster.peers import error_from_body
from dsdbd.cluster.repair_messages import (
    DIGESTS_PATH,
    EXPORT_PATH,
    FRAME_ALIVE,
    FRAME_END,
    FRAME_ERROR,
    FRAME_ROWS,
    DigestsAnswer,
    DigestsRequest,
    ExportRequest,
    Range,
    decode_answer,
    encode,
)
from dsdbd.cluster.repair_plan import identity, lacking, tombstone_sum, totals_of
from dsdbd.cluster.shard_places import key_of
from dsdbd.errors import CorruptData, DSDBError, Overloaded, ShardUnavailable
from dsdbd.meta import views
from dsdbd.model.columns import Batch, decode_batch
from dsdbd.model.digest import Grid
from dsdbd.storage.tombstones import decode_tombstones

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.repair_plan import KnownCells
    from dsdbd.cluster.repair_progress import RepairProgress
    from dsdbd.cluster.repair_source import Content, RepairSource
    from dsdbd.cluster.transfer_plan import Rate
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.meta.views import ShardPlace
    from dsdbd.storage.replica import Replica
    from dsdbd.storage.tombstones import Tombstone

_TIMEOUT_S = 10.0
"""Silence of the other side; it shows signs of life while it works."""
_PIECE_BYTES = 1 << 20
_MAX_FRAME_BYTES = 64 << 20
_ROUNDS = 4
"""Looks at what differs: deletions that arrive change what the rows are."""
_FULL_TURNS = 20
_FULL_PAUSE_S = 0.5


class Pulled(NamedTuple):
    """How a pull ended: ``equal`` when nothing differed in the end; ``held``: own deletions that the other one has.

    ``took_s``: processor time of this node's own digests.
    """

    equal: bool
    held: frozenset[int]
    took_s: float


class Puller:
    """Pulls for one node; use it on the event loop. ``rate`` bounds the bytes of all pulls."""

    def __init__(self, node: Node, source: RepairSource, clock: VersionClock, rate: Rate, known: KnownCells) -> None:
        self._node = node
        self._source = source
        self._clock = clock
        self._rate = rate
        self._known = known

    async def pull(
        self, place: ShardPlace, from_node: int, part: Range, progress: RepairProgress, horizon: int
    ) -> Pulled:
        """Bring this node's copy all that ``from_node`` holds of a part of a shard.

        ``horizon``: a version below which no row is still on its way. Raises ShardUnavailable, PeerUnreachable or what
        the other node answered; a row that this node refuses raises RequestError.
        """
        took_s = 0.0
        for _ in range(_ROUNDS):
            own = await self._source.content(place, part)
            took_s += own.took_s
            answer = await self._ask(place, from_node, part, own, "")
            theirs = own.tombstones
            if answer.tombstones:
                theirs = decode_tombstones(answer.tombstones)
                missing = lacking(own.tombstones, theirs, horizon, rows_differ=bool(answer.grids))
                if missing:
                    await self._delete(place, missing, progress)
                    continue
            if not answer.grids:
                held = _held(own.tombstones, theirs, horizon if part.is_all else 0)
                return Pulled(equal=True, held=held, took_s=took_s)
            await self._pull_grids(place, from_node, part, own, answer, progress)
            return Pulled(equal=False, held=_held(own.tombstones, theirs, 0), took_s=took_s)
        raise ShardUnavailable(f"the deletions of shard {place.shard.id} change faster than they are taken over")

    async def _ask(self, place: ShardPlace, from_node: int, part: Range, own: Content, after: str) -> DigestsAnswer:
        peer = self._address(from_node)
        request = DigestsRequest(
            self._node.metadata.state.index,
            place.shard.id,
            totals_of(own.grids),
            tombstone_sum(own.tombstones),
            None if part.measurements is None else sorted(part.measurements),
            part.min_ns,
            part.max_ns,
            part.below,
            after,
            since=part.since,
            coordinator=part.coordinator,
        )
        raw = await self._node.peers.call(peer, "POST", DIGESTS_PATH, encode(request), timeout_s=_TIMEOUT_S)
        return decode_answer(raw, DigestsAnswer, peer)

    async def _delete(self, place: ShardPlace, missing: Sequence[Tombstone], progress: RepairProgress) -> None:
        self._clock.observe(max(one.version for one in missing))
        store = self._node.store
        assert store is not None, "its content was looked at"
        await self._source.work(store.delete, key_of(place), missing)
        progress.tombstones += len(missing)

    async def _pull_grids(
        self,
        place: ShardPlace,
        from_node: int,
        part: Range,
        own: Content,
        answer: DigestsAnswer,
        progress: RepairProgress,
    ) -> None:
        store = self._node.store
        assert store is not None, "its content was looked at"
        replica = store.make_replica(key_of(place), place.group.start_ns, place.group.end_ns)
        pair = place.shard.id, from_node
        while True:
            for wire in answer.grids:
                theirs = _grid(wire.places, wire.sums)
                mine = own.grids.get(wire.measurement)
                cells = self._known.fresh(pair, wire.measurement, mine, theirs)
                if len(cells):
                    await self._pull_cells(place, from_node, wire.measurement, cells.astype("<u2").tobytes(), part,
                                           replica, progress)  # fmt: skip
                if part.is_all and not part.below and len(cells):
                    one = Range(measurements=[wire.measurement])
                    after = (await self._source.content(place, one)).grids.get(wire.measurement)
                    self._known.pulled(pair, wire.measurement, after, theirs)
            if not answer.more:
                return
            answer = await self._ask(place, from_node, part, own, answer.grids[-1].measurement)

    async def _pull_cells(
        self,
        place: ShardPlace,
        from_node: int,
        measurement: str,
        cells: bytes,
        part: Range,
        replica: Replica,
        progress: RepairProgress,
    ) -> None:
        peer = self._address(from_node)
        request = ExportRequest(
            self._node.metadata.state.index,
            place.shard.id,
            measurement,
            cells,
            part.min_ns,
            part.max_ns,
            part.below,
            since=part.since,
            coordinator=part.coordinator,
        )
        stream = self._node.peers.stream(
            peer, "POST", EXPORT_PATH, encode(request), timeout_s=_TIMEOUT_S, piece_bytes=_PIECE_BYTES
        )
        async with stream as pieces:
            async for body in frames(pieces, peer):
                await self._absorb(place, replica, body, progress)

    async def _absorb(self, place: ShardPlace, replica: Replica, body: bytes, progress: RepairProgress) -> None:
        """Store the rows of a frame that are not here; durable on return."""
        progress.bytes += len(body)
        batch = await self._source.work(_lacking, replica, body)
        if batch is not None:
            self._clock.observe(batch.version)
            await self._submit(place, batch)
            progress.rows += len(batch)
        await asyncio.sleep(self._rate.wait_s(len(body), asyncio.get_running_loop().time()))

    async def _submit(self, place: ShardPlace, batch: Batch) -> None:
        store = self._node.store
        assert store is not None, "its content was looked at"
        for turn in range(_FULL_TURNS):
            try:
                stored = await self._source.work(store.submit, key_of(place), batch)
            except Overloaded:
                # Writes of clients come first.
                if turn + 1 == _FULL_TURNS:
                    raise
                await asyncio.sleep(_FULL_PAUSE_S)
            else:
                await asyncio.wrap_future(stored)
                return

    def _address(self, node_id: int) -> str:
        peer = views.data_node(self._node.metadata.state, node_id)
        if peer is None:
            raise ShardUnavailable(f"data node {node_id} is not registered")
        return peer.tcp_addr


def _held(own: Sequence[Tombstone], theirs: Sequence[Tombstone], horizon: int) -> frozenset[int]:
    """Own deletions that the other copy has, or has no need of any more: it holds the same rows, and no older come."""
    return frozenset(
        identity(one) for one in own if one.version < horizon or any(other.covers(one) for other in theirs)
    )


def _grid(places: bytes, sums: bytes) -> Grid:
    """A grid that came from another node; its total is not looked at."""
    return Grid(np.frombuffer(places, "<u2").astype(np.uint16), np.frombuffer(sums, "<u8").astype(np.uint64), 0)


def _lacking(replica: Replica, body: bytes) -> Batch | None:
    """The rows of an encoded batch that this copy lacks. Raises ShardUnavailable."""
    try:
        found = [missing for points in decode_batch(body).points if (missing := replica.lacking(points)) is not None]
    except (OSError, CorruptData) as error:
        raise ShardUnavailable(f"shard {replica.shard.shard_id} of this node cannot be read: {error}") from error
    found = [points for points in found if len(points)]
    if not found:
        return None
    versions: list[Any] = [points.versions.max() for points in found if points.versions is not None]
    return Batch(int(max(versions)), tuple(found))


async def frames(pieces: AsyncIterator[bytes], peer: str) -> AsyncGenerator[bytes, None]:
    """The batches of a stream of frames, one after another. Raises what the other side says, or ShardUnavailable."""
    buffer = bytearray()
    async for piece in pieces:
        buffer += piece
        at = 0
        while at < len(buffer):
            kind = buffer[at]
            if kind == FRAME_ALIVE:
                at += 1
                continue
            if kind == FRAME_END:
                return
            if at + 5 > len(buffer):
                break
            size = int.from_bytes(buffer[at + 1 : at + 5], "little")
            if kind not in (FRAME_ROWS, FRAME_ERROR) or size > _MAX_FRAME_BYTES:
                raise ShardUnavailable(f"{peer} sends rows that cannot be understood; run equal versions")
            if at + 5 + size > len(buffer):
                break
            body = bytes(buffer[at + 5 : at + 5 + size])
            at += 5 + size
            if kind == FRAME_ERROR:
                raise _remote_error(body, peer)
            yield body
        del buffer[:at]
    raise ShardUnavailable(f"{peer} ended in the middle of its rows")


def _remote_error(body: bytes, peer: str) -> DSDBError:
    return error_from_body(500, body, peer)
