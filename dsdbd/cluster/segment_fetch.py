"""The other side of copying a shard: asks an owner for its files and brings one to this node's disk, checked.

A file that was broken off is taken up where it ended, and its digest covers all of it, so what a crash left of it
cannot become part of a shard unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

from dsdbd.cluster.peers import PeerUnreachable
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
    from concurrent.futures import Executor
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
    threads: Executor | None = None,
) -> bytes:
    """Bring one listed file to ``target``, going on with what is there; not yet synced in its last bytes.

    Returns the digest of its bytes. ``pace`` is told of bytes that came, and may wait. ``threads``: where they are
    received. Raises CorruptData where the digest differs (the target is removed, the next try begins anew),
    PeerUnreachable, the owner's error, and OSError.
    """
    loop = asyncio.get_running_loop()
    copy = await asyncio.to_thread(_Copy, target, entry.size_bytes)
    try:
        left = copy.left_bytes
        path = f"/internal/files/{token}/{index}?offset={copy.size_bytes}"
        # When the owner goes down what is awaited here is cancelled, and only from within this block does the stream
        # see that, and say which node it is.
        async with peers.stream(address, "GET", path, timeout_s=_SILENCE_S, piece_bytes=PIECE_BYTES) as stream:
            came, connection = stream.take_over()
            copy.receives_from(address, connection)
            await asyncio.to_thread(copy.take, came)
            left -= len(came)
            while left > 0:
                size_bytes = await loop.run_in_executor(threads, copy.receive, min(left, PIECE_BYTES))
                left -= size_bytes
                await pace(size_bytes)
        await pace(len(came))
        whole = await asyncio.to_thread(copy.is_whole)
    finally:
        copy.hang_up()
        # In a thread: when this was cancelled, one may still be writing.
        _ = loop.run_in_executor(None, copy.close)
    if not whole:
        await asyncio.to_thread(target.unlink, missing_ok=True)
        raise CorruptData(f"{entry.name} of measurement {entry.measurement!r} did not arrive as {address} has it")
    return copy.digest()


async def sizes_at(peers: PeerClient, address: str, shard_ids: Iterable[int] = ()) -> SizesAnswer:
    """Bytes of shards at a node. Raises PeerUnreachable or the node's error."""
    body = encode(SizesRequest(tuple(shard_ids)))
    return decode(await peers.call(address, "POST", "/internal/sizes", body, timeout_s=_SIZES_TIMEOUT_S), SizesAnswer)


class _Copy:
    """A file that grows to ``wanted_bytes``; every method but ``hang_up`` and ``receives_from`` blocks.

    The lock keeps a writer that nobody waits for any more from a descriptor that is closed, and is another file's then.
    """

    def __init__(self, path: Path, wanted_bytes: int) -> None:
        self._file = path.open("ab+", buffering=0)
        self._lock = threading.Lock()
        self._wanted_bytes = wanted_bytes
        self._digest = new_digest()
        self._rest = b""
        self._unsynced_bytes = 0
        self._address = ""
        self._connection: socket.socket | None = None
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self.size_bytes = 0
        if self._file.seek(0, os.SEEK_END) > wanted_bytes:
            self._file.truncate(0)
        while data := os.pread(self._file.fileno(), PIECE_BYTES, self.size_bytes):
            self._digest.update(data)
            self.size_bytes += len(data)

    @property
    def left_bytes(self) -> int:
        """What is still to come, the digest included."""
        return self._wanted_bytes - self.size_bytes + DIGEST_BYTES - len(self._rest)

    def receives_from(self, address: str, connection: socket.socket | None) -> None:
        """Take the connection from which ``receive`` shall read; it is closed with the copy."""
        self._address, self._connection = address, connection
        if connection is not None:
            connection.settimeout(_SILENCE_S)

    def receive(self, size_bytes: int) -> int:
        """Append so many bytes of the stream; returns how many. Raises PeerUnreachable, OSError."""
        with self._lock:
            came = 0
            while came < size_bytes:
                came += self._receive_some(self._buffer[came:size_bytes])
            self._take(self._buffer[:came])
            return came

    def _receive_some(self, space: memoryview) -> int:
        try:
            came = 0 if self._connection is None else self._connection.recv_into(space)
        except OSError as error:
            raise PeerUnreachable(f"no answer from {self._address}: {error.strerror or error}", sent=True) from error
        if not came:
            raise PeerUnreachable(f"no answer from {self._address}: the file ends in the middle", sent=True)
        return came

    def take(self, data: bytes) -> None:
        """Append bytes of the stream: first the file's, then its digest."""
        with self._lock:
            self._take(memoryview(data))

    def _take(self, data: memoryview) -> None:
        own = data[: self._wanted_bytes - self.size_bytes]
        self._rest += data[len(own) :]
        self._digest.update(own)
        self._write(own)
        if self._unsynced_bytes >= _SYNC_BYTES:
            os.fdatasync(self._file.fileno())
            self._unsynced_bytes = 0

    def _write(self, view: memoryview) -> None:
        """At the end, where the file is open to be added to; a closed one raises ValueError, which nobody sees."""
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

    def hang_up(self) -> None:
        """End a ``receive`` that waits."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._file.close()
