"""The daemon's part of a backup: what there is, and one good copy of each shard from whichever owner is up.

The node that is asked passes everything on from the owners, so a backup needs the address of one node only, which need
not own anything. docs/format/backup.md describes what is made of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from dsdbd.cluster import repair_messages
from dsdbd.cluster import segment_messages as files
from dsdbd.cluster.archive import ListedFile, OpenedShard, grid_digests
from dsdbd.cluster.freshness import reach_index
from dsdbd.cluster.shard_places import key_of
from dsdbd.errors import DSDBError, NotFound, ShardUnavailable, Unavailable
from dsdbd.meta import views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dsdbd.cluster.node import Node
    from dsdbd.meta.state import DataNode
    from dsdbd.meta.views import ShardPlace

_TIMEOUT_S = 600.0
"""Silence of an owner that writes out a shard or works out its digests; both show no sign of life meanwhile."""
_TRIES = 3
"""How often the files are listed anew because points came between the listing and the digests."""


class DigestsRequest(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``POST /internal/backup/digests``. ``index``: state of the metadata in which the caller saw the shard."""

    shard_id: int
    index: int


class DigestsAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What an owner's copy of a shard holds."""

    digests: dict[str, str]


class BackupSource:
    """Opens shards for a backup and passes their files on; one per node, used on the event loop."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # --- for the client

    async def open_shard(self, shard_id: int, prefer: int) -> OpenedShard:
        """List one owner's files of a shard, and what exactly they hold.

        The owner first takes what it lacks from the others, until it has what a majority of them had: all that was
        acknowledged at that level. Where no majority answers, a copy is taken as it is. ``prefer`` (0: none) is asked
        first. Raises NotFound, ShardUnavailable where no owner answers.
        """
        place = views.find_shard(self._node.metadata.state, shard_id)
        if place is None:
            raise NotFound(f"shard not found: {shard_id}")
        owners = self._in_order(place, prefer)
        reason = "it has no owner"
        for clean in (True, False):
            for owner in owners:
                try:
                    if clean and len(owners) > 1:
                        await self._complete(owner, shard_id)
                    return await self._open_at(owner, shard_id, clean=clean)
                except Unavailable as error:
                    reason = error.message
        raise ShardUnavailable(f"shard {shard_id} of {place.database.name} cannot be backed up: {reason}")

    async def close_shard(self, owner: int, token: str) -> None:
        """Let the files of an opened shard go; an owner that is away lets them go by itself."""
        if token:
            with contextlib.suppress(DSDBError):
                address = self._peer(owner).tcp_addr
                await self._node.peers.call(address, "DELETE", f"/internal/files/{token}", timeout_s=_TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def file(self, owner: int, token: str, index: int, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of an opened shard's file from ``offset``, then the digest of the whole file, in pieces."""
        async with self._node.peers.stream(
            self._peer(owner).tcp_addr,
            "GET",
            f"/internal/files/{token}/{index}?offset={offset}",
            timeout_s=_TIMEOUT_S,
            piece_bytes=files.PIECE_BYTES,
        ) as pieces:
            yield pieces

    # --- at the owners

    async def digests_at(self, owner: int, shard_id: int) -> DigestsAnswer:
        """What an owner's copy of a shard holds. Raises Unavailable."""
        body = files.encode(DigestsRequest(shard_id, self._node.metadata.state.index))
        if owner == self._node.data_id:
            return files.decode(await self.serve_digests(body), DigestsAnswer)
        address = self._peer(owner).tcp_addr
        raw = await self._node.peers.call(address, "POST", "/internal/backup/digests", body, timeout_s=_TIMEOUT_S)
        return files.decode(raw, DigestsAnswer)

    async def serve_digests(self, body: bytes) -> bytes:
        """Answer ``POST /internal/backup/digests``. Raises ShardUnavailable where this node is no owner, OSError."""
        node = self._node
        wanted = files.decode(body, DigestsRequest)
        await reach_index(node, wanted.index, node.config.cluster.shard_mapper_timeout_s / 2)
        place = views.find_shard(node.metadata.state, wanted.shard_id)
        if place is None or node.data_id not in place.shard.owners:
            raise ShardUnavailable(f"this node is no owner of shard {wanted.shard_id}")
        if node.store is None:
            raise Unavailable(node.storage_wait or "this node stores no points")
        try:
            digests = await asyncio.to_thread(_digests, node, place)
        except OSError as error:
            raise ShardUnavailable(f"shard {wanted.shard_id} cannot be read: {error.strerror}") from error
        return files.encode(DigestsAnswer(digests))

    # --- in between

    async def _complete(self, owner: int, shard_id: int) -> None:
        """Have an owner take what a majority of the owners has. Raises Unavailable."""
        body = repair_messages.encode(repair_messages.CompleteRequest(self._node.metadata.state.index, [shard_id]))
        address = self._peer(owner).tcp_addr
        await self._node.peers.call(address, "POST", repair_messages.COMPLETE_PATH, body, timeout_s=_TIMEOUT_S)

    async def _open_at(self, owner: int, shard_id: int, *, clean: bool) -> OpenedShard:
        """The shard at one owner, which is ``clean`` or not. Raises Unavailable.

        Digests that are the same before and after the listing are those of the listed files.
        """
        before = await self.digests_at(owner, shard_id)
        peer = self._peer(owner)
        for turn in range(_TRIES):
            body = files.encode(files.ListRequest(shard_id))
            raw = await self._node.peers.call(peer.tcp_addr, "POST", "/internal/files", body, timeout_s=_TIMEOUT_S)
            listing = files.decode(raw, files.Listing)
            after = await self.digests_at(owner, shard_id)
            if after.digests == before.digests or turn == _TRIES - 1:
                break
            await self.close_shard(owner, listing.token)
            before = after
        return OpenedShard(
            owner,
            peer.uuid,
            listing.token,
            clean,
            [ListedFile(one.measurement, one.name, one.size_bytes, one.rows, one.modified_ns) for one in listing.files],
            msgspec.Raw(listing.tombstones),
            after.digests if after.digests == before.digests else None,
        )

    def _in_order(self, place: ShardPlace, prefer: int) -> list[int]:
        """The owners of a shard: those that do not answer last, ``prefer`` and this node first."""
        node = self._node

        def rank(owner: int) -> tuple[bool, bool, bool]:
            peer = views.data_node(node.metadata.state, owner)
            away = peer is None or (owner != node.data_id and node.peers.lately_away(peer.tcp_addr))
            return away, owner != prefer, owner != node.data_id

        return sorted(place.shard.owners, key=rank)

    def _peer(self, owner: int) -> DataNode:
        found = views.data_node(self._node.metadata.state, owner)
        if found is None:
            raise ShardUnavailable(f"data node {owner} is not registered")
        return found


def _digests(node: Node, place: ShardPlace) -> dict[str, str]:
    """Digest of each measurement of a shard of this node; blocks while files are read."""
    store = node.store
    if store is None or store.shard(place.shard.id) is None:
        return {}
    key = key_of(place)
    return grid_digests(store.make_replica(key, place.group.start_ns, place.group.end_ns).digests())
