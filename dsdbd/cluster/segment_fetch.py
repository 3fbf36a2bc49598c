"""The other side of copying a shard: asks an owner for its files and brings one to this node's disk, checked.

A file that was broken off is taken up where it ended, and its digest covers all of it, so what a crash left of it
cannot become part of a shard unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from dsdbd.cluster.segment_messages import (
    DIGEST_BYTES,
    PIECE_BYTES,
    FileEntry,
    Listing,
    ListRequest,
    SizesAnswer,
    SizesRequest,
    decode,
    encode,
    new_digest,
)
from dsdbd.errors import CorruptData, DSDBError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from dsdbd.cluster.peers import PeerClient

_LIST_TIMEOUT_S = 120.0
"""The owner writes out what it has in memory first."""
_SILENCE_S = 30.0
"""How long the stream of a file may stand still; an owner reads again what the receiver has, to make the digest."""
_SIZES_TIMEOUT_S = 10.0
_SYNC_BYTES = 16 << 20
"""Bytes after which a copy is written through, so that the log's own syncs never wait for much of it."""


@contextlib.asynccontextmanager
async def listing(peers: PeerClient, address: str, shard_id: int) -> AsyncIterator[Listing]:
    """The files of a shard at an owner, held there until the block ends. Raises the owner's error, PeerUnreachable."""
    body = encode(ListRequest(shard_id))
    found = decode(await peers.call(address, "POST", "/internal/files", body, timeout_s=_LIST_TIMEOUT_S), Listing)
    try:
        yield found
    finally:
        if found.token:
            # Where that fails the owner lets them go by itself.
            with contextlib.suppress(DSDBError):
                await peers.call(address, "DELETE", f"/internal/files/{found.token}", timeout_s=_SIZES_TIMEOUT_S)


async def fetch(
    peers: PeerClient,
    address: str,
    token: str,
    index: int,
    entry: FileEntry,
    target: Path,
    pace: Callable[[int], Awaitable[None]],
) -> bytes:
    """Bring one listed file to ``target``, going on with what is there; not yet synced in its last bytes.

    Returns the digest of its bytes. ``pace`` is told of bytes that came, and may wait. Raises CorruptData where the
    digest differs (the target is removed, the next try begins anew), PeerUnreachable, the owner's error, and OSError.
    """
    copy = await asyncio.to_thread(_Copy, target, entry.size_bytes)
    try:
        waiting: list[bytes] = []
        held = 0
        # The last bytes are the digest. Not in a generator: when the owner goes down what is awaited here is cancelled,
        # and only from within this block does the stream see that, and say which node it is.
        path = f"/internal/files/{token}/{index}?offset={copy.size_bytes}"
        async with peers.stream(address, "GET", path, timeout_s=_SILENCE_S, piece_bytes=PIECE_BYTES) as stream:
            async for piece in stream:
                waiting.append(piece)
                held += len(piece)
                if held >= PIECE_BYTES:
                    await asyncio.to_thread(copy.take, waiting)
                    await pace(held)
                    waiting, held = [], 0
        await asyncio.to_thread(copy.take, waiting)
        await pace(held)
        whole = await asyncio.to_thread(copy.is_whole)
    finally:
        # In a thread: when this was cancelled, one may still be writing.
        _ = asyncio.get_running_loop().run_in_executor(None, copy.close)
    if not whole:
        await asyncio.to_thread(target.unlink, missing_ok=True)
        raise CorruptData(f"{entry.name} of measurement {entry.measurement!r} did not arrive as {address} has it")
    return copy.digest()


async def sizes_at(peers: PeerClient, address: str, shard_ids: Iterable[int] = ()) -> SizesAnswer:
    """Bytes of shards at a node. Raises PeerUnreachable or the node's error."""
    body = encode(SizesRequest(tuple(shard_ids)))
    return decode(await peers.call(address, "POST", "/internal/sizes", body, timeout_s=_SIZES_TIMEOUT_S), SizesAnswer)


class _Copy:
    """A file that grows to ``wanted_bytes``; every method blocks.

    The lock keeps a writer that nobody waits for any more from a descriptor that is closed, and is another file's then.
    """

    def __init__(self, path: Path, wanted_bytes: int) -> None:
        self._file = path.open("ab+", buffering=0)
        self._lock = threading.Lock()
        self._wanted_bytes = wanted_bytes
        self._digest = new_digest()
        self._rest = b""
        self._unsynced_bytes = 0
        self.size_bytes = 0
        if self._file.seek(0, os.SEEK_END) > wanted_bytes:
            self._file.truncate(0)
        while data := os.pread(self._file.fileno(), PIECE_BYTES, self.size_bytes):
            self._digest.update(data)
            self.size_bytes += len(data)

    def take(self, pieces: Iterable[bytes]) -> None:
        """Append bytes of the stream: first the file's, then its digest."""
        with self._lock:
            for piece in pieces:
                own = piece[: self._wanted_bytes - self.size_bytes]
                self._rest += piece[len(own) :]
                self._digest.update(own)
                self._write(own)
            if self._unsynced_bytes >= _SYNC_BYTES:
                os.fdatasync(self._file.fileno())
                self._unsynced_bytes = 0

    def _write(self, data: bytes) -> None:
        """At the end, where the file is open to be added to; a closed one raises ValueError, which nobody sees."""
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            self.size_bytes += written
            self._unsynced_bytes += written
            view = view[written:]

    def is_whole(self) -> bool:
        """Whether the digest that came is that of the bytes that came."""
        return self.size_bytes == self._wanted_bytes and self._rest[:DIGEST_BYTES] == self.digest()

    def digest(self) -> bytes:
        """Of the bytes that came."""
        return self._digest.digest()

    def close(self) -> None:
        with self._lock:
            self._file.close()
