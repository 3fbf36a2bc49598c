"""An owner's side of copying a shard: lists its segment files, keeps them while they are read, and sends them.

Every copy begins here: moving shards, restoring copies and backups. A listing holds its files against merging and
removing until it is closed or not used for a while; the daemon's end, however sudden, leaves nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from dsdbd import limits
from dsdbd.cluster.gentle import gentle_threads
from dsdbd.cluster.segment_messages import PIECE_BYTES, FileEntry, Listing, new_digest, wire_sums
from dsdbd.cluster.shard_places import key_of
from dsdbd.errors import NotFound, Overloaded, RequestError, ShardUnavailable, Unavailable
from dsdbd.meta import views
from dsdbd.storage import ShardKey
from dsdbd.storage.tombstones import encode_tombstones

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncGenerator, Collection
    from concurrent.futures import Executor
    from pathlib import Path

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.storage import Store

log = structlog.get_logger("transfer")
_READERS = 2
"""Threads that read files for others, a piece at a time."""
_LISTERS = 2
"""Threads that write out what is in memory of a shard before it is copied. Its rows stay readable meanwhile, and writes
go on into the next head, so that nobody waits for them but the copy."""
_MOST_SUMS_BYTES = 32 << 20
"""What a listing says of the rows of files; of further files a copy finds it out by reading them."""


@dataclass(slots=True)
class _Open:
    """A listing that is in use: its files in order, and what ends their hold."""

    held: contextlib.ExitStack
    paths: list[Path]
    entries: tuple[FileEntry, ...]
    tombstones: bytes
    timer: asyncio.TimerHandle | None = None
    readers: int = 0
    closed: bool = field(default=False)


class SegmentSource:
    """The listings of one node that others are reading. Use it on the event loop."""

    def __init__(self, node: Node, clock: VersionClock) -> None:
        self._node = node
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._opening = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._reading = gentle_threads(_READERS, "dsdb-copy")
        self._listing = gentle_threads(_LISTERS, "dsdb-copy")

    async def list_files(self, shard_id: int) -> Listing:
        """Write out what is in memory and list the shard's files, which stay until ``close``.

        A shard of which this node, an owner, holds nothing gives an empty listing. Raises ShardUnavailable where the
        node has no copy, Overloaded while too many listings are open, and OSError.
        """
        store, state = self._store(), self._node.metadata.state
        place = views.find_shard(state, shard_id)
        if place is None:
            raise ShardUnavailable(f"shard {shard_id} is not in the metadata of this node: it was dropped, or is new")
        if store.shard(shard_id) is None:
            if self._node.data_id not in place.shard.owners:
                raise ShardUnavailable(f"this node holds no copy of shard {shard_id}")
            return Listing("", (), encode_tombstones(()))
        if len(self._open) + self._opening >= limits.MAX_FILE_LISTINGS:
            raise Overloaded(f"{limits.MAX_FILE_LISTINGS} copies of shards are made from this node; try again later")
        key = key_of(place)
        self._opening += 1
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._listing, _hold_files, store, key, place.group.start_ns, place.group.end_ns
            )
        finally:
            self._opening -= 1
        token = secrets.token_hex(16)
        self._open[token] = found
        self._rest(token, found)
        return Listing(token, found.entries, found.tombstones, self._clock.last)

    async def read(self, token: str, index: int, offset: int) -> AsyncGenerator[bytes, None]:
        """One file's bytes from ``offset`` in pieces, then its digest. Raises NotFound, RequestError and OSError."""
        found = self._open.get(token)
        if found is None or found.closed or not 0 <= index < len(found.entries):
            raise NotFound("the list of files is not held any more; ask for it again")
        size = found.entries[index].size_bytes
        if not 0 <= offset <= size:
            raise RequestError(f"offset {offset} lies outside the file of {size} bytes")
        self._use(found)
        try:
            async for piece in file_pieces(found.paths[index], size, offset, self._reading):
                yield piece
        finally:
            found.readers -= 1
            self._rest(token, found)

    def size_of(self, token: str, index: int) -> int:
        """Bytes of a listed file. Raises NotFound."""
        found = self._open.get(token)
        if found is None or not 0 <= index < len(found.entries):
            raise NotFound("the list of files is not held any more; ask for it again")
        return found.entries[index].size_bytes

    async def close(self, token: str) -> None:
        """Let the files of a listing go; an unknown token is no error."""
        found = self._open.pop(token, None)
        if found is None:
            return
        found.closed = True
        if found.timer is not None:
            found.timer.cancel()
        await asyncio.to_thread(found.held.close)

    async def sizes(self, shard_ids: Collection[int]) -> dict[int, int]:
        """Bytes of each of these shards, or of all, that this node holds. Raises OSError."""
        store = self._store()
        wanted = [shard for shard in store.shards() if not shard_ids or shard.shard_id in shard_ids]
        return await asyncio.to_thread(
            lambda: {one.shard_id: _tree_bytes(one.directory) + one.head_bytes for one in wanted}
        )

    def _store(self) -> Store:
        if self._node.store is None:
            raise Unavailable(self._node.storage_wait or "this node stores no points")
        return self._node.store

    def _use(self, found: _Open) -> None:
        found.readers += 1
        if found.timer is not None:
            found.timer.cancel()
            found.timer = None

    def _rest(self, token: str, found: _Open) -> None:
        """Nobody reads now: who does not come back within the lease has gone."""
        if found.readers or found.closed:
            return
        loop = asyncio.get_running_loop()
        found.timer = loop.call_later(limits.FILE_LISTING_LEASE_S, self._expire, token)

    def _expire(self, token: str) -> None:
        log.info("files held for a copy are let go: nobody came for them")
        task = asyncio.get_running_loop().create_task(self.close(token))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _hold_files(store: Store, key: ShardKey, start_ns: int, end_ns: int) -> _Open:
    """Blocks: writes out the shard's rows in memory."""
    with contextlib.ExitStack() as stack:
        listing = stack.enter_context(store.make_replica(key, start_ns, end_ns).files())
        paths = [one.path for one in listing.files]
        entries, left_bytes = [], _MOST_SUMS_BYTES
        for one in listing.files:
            known = None if one.sums is None or left_bytes < 0 else wire_sums(one.sums)
            left_bytes -= 0 if known is None else len(known.places) + len(known.sums)
            written_ns = one.path.stat().st_mtime_ns
            entries.append(FileEntry(one.measurement, one.path.name, one.size_bytes, one.rows, written_ns, known))
        return _Open(stack.pop_all(), paths, tuple(entries), encode_tombstones(listing.tombstones))


class _Reading:
    """A file that is read from its beginning for its digest, and given out from an offset; every method blocks.

    The lock keeps a reader that nobody waits for any more from a descriptor that is closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: io.FileIO | None = None
        self._digest = new_digest()
        self._at = 0
        self._closed = False

    def next(self, end: int) -> bytes:
        """The next piece, at most up to ``end``. Raises OSError."""
        with self._lock:
            if self._closed:
                raise OSError(f"{self._path} is closed")
            if self._file is None:
                self._file = self._path.open("rb", buffering=0)
            data = self._file.read(min(PIECE_BYTES, end - self._at))
            if not data:
                raise OSError(f"{self._path} is shorter than it was")
            self._at += len(data)
            self._digest.update(data)
            return data

    def skip(self, offset: int) -> None:
        """Read what is not asked for. Raises OSError."""
        while self._at < offset:
            self.next(offset)

    def digest(self) -> bytes:
        """Of all that was read."""
        return self._digest.digest()

    def close(self) -> None:
        """Close the file; whoever still reads ends with an error."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


async def file_pieces(
    path: Path, size_bytes: int, offset: int, threads: Executor | None = None
) -> AsyncGenerator[bytes, None]:
    """The file from ``offset``, then its digest; the next piece is read while one is being sent, by ``threads``."""
    loop, file = asyncio.get_running_loop(), _Reading(path)
    reading: asyncio.Future[bytes] | None = None
    try:
        await loop.run_in_executor(threads, file.skip, offset)
        at = offset
        while at < size_bytes:
            data = await (reading or loop.run_in_executor(threads, file.next, size_bytes))
            at += len(data)
            reading = loop.run_in_executor(threads, file.next, size_bytes) if at < size_bytes else None
            yield data
        yield file.digest()
    finally:
        if reading is not None:
            # Nobody may be left to look at its error.
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        _ = loop.run_in_executor(None, file.close)


def _tree_bytes(directory: Path) -> int:
    """Bytes of the files below a directory; what vanishes meanwhile does not count."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(parent, name)).st_size  # noqa: PTH116,PTH118 - thousands of files
    return total
