"""Snapshots of the state machine: their bytes (pure) and the store that writes, sends and receives them.

::

    file = "DSDBSNAP" | u32 CRC-32 of the rest | u32 header size | MessagePack header | zlib(state)
    header = [entry at the snapshot's index, entry before it, voters at that index, size of the state]
"""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from dsdbd import fsio, limits
from dsdbd.errors import CorruptData
from dsdbd.meta.raft import codec
from dsdbd.meta.raft.library import SERIALIZER_STATE, Node, TCPNode, monotonic_s
from dsdbd.meta.raft.records import LogEntry

log = logging.getLogger(__name__)

MAGIC: Final = b"DSDBSNAP"
_PREFIX: Final = struct.Struct("<8sII")
RETRY_AFTER_FAILURE_S: Final = 30.0
"""Pause after a snapshot that could not be written, so that a full disk does not cost the node its time."""


class SnapshotHeader(NamedTuple):
    """Where in the log a snapshot stands."""

    entry: LogEntry
    previous: LogEntry
    voters: tuple[str, ...]


def encode_snapshot(header: SnapshotHeader, state: bytes) -> bytes:
    """Return the bytes of a snapshot file."""
    head = codec.encode((header.entry, header.previous, list(header.voters), len(state)))
    body = head + zlib.compress(state, 1)
    return _PREFIX.pack(MAGIC, zlib.crc32(body, len(head)), len(head)) + body


def decode_snapshot(data: bytes) -> tuple[SnapshotHeader, bytes]:
    """Return header and state; raises CorruptData unless every bit is as written and the size is within bounds."""
    if len(data) < _PREFIX.size:
        raise CorruptData("it is shorter than its own header")
    magic, crc, head_bytes = _PREFIX.unpack_from(data)
    body = memoryview(data)[_PREFIX.size :]
    if magic != MAGIC or zlib.crc32(body, head_bytes) != crc:
        raise CorruptData("its checksum does not match")
    try:
        entry, previous, voters, size_bytes = codec.decode(body[:head_bytes])
        header = SnapshotHeader(LogEntry(*entry), LogEntry(*previous), tuple(voters))
        if size_bytes > limits.MAX_RAFT_SNAPSHOT_BYTES:
            raise CorruptData(f"it would unpack to {size_bytes} bytes")
        # One byte more than announced would show a file that lies about its size.
        state = zlib.decompressobj().decompress(body[head_bytes:], size_bytes + 1)
    except (ValueError, TypeError, zlib.error) as error:
        raise CorruptData(f"it is not a snapshot: {error}") from None
    if len(state) != size_bytes:
        raise CorruptData("its state has another size than announced")
    return header, state


class Snapshotted(Protocol):
    """What the store needs from the node it belongs to."""

    def dump_state(self) -> bytes: ...  # noqa: D102  a Protocol of one caller
    def load_state(self, state: bytes) -> None: ...  # noqa: D102
    def voters_at(self, index: int) -> tuple[str, ...]: ...  # noqa: D102
    def wants_snapshot(self, header: SnapshotHeader) -> bool: ...  # noqa: D102


class SnapshotStore:
    """Stands in for the library's serializer: same method names, no fork, no pickle, nothing unchecked.

    The state is dumped on the Raft thread (a consistent cut) and compressed, written and synced by a worker thread.
    A received snapshot is checked before it replaces anything. With ``in_background=False`` the worker is awaited.
    """

    def __init__(self, path: Path, owner: Snapshotted, *, chunk_bytes: int, in_background: bool = True) -> None:
        self.path = path
        self._owner = owner
        self._chunk_bytes = chunk_bytes
        self._in_background = in_background
        self._worker: threading.Thread | None = None
        self._written: SnapshotHeader | None = None
        self._log_id = 0
        self._not_before_s = -1e9
        self._sending: dict[Node, tuple[bytes, int]] = {}
        self._receiving: list[bytes] | None = None
        self._receiving_bytes = 0
        self.index = 0
        self.voters: tuple[str, ...] = ()

    def read(self) -> tuple[SnapshotHeader, bytes] | None:
        """Return the stored snapshot, None when there is none; raises CorruptData or OSError."""
        if not self.path.exists():
            return None
        try:
            header, state = decode_snapshot(self.path.read_bytes())
        except CorruptData as error:
            raise CorruptData(f"the Raft snapshot {self.path} is damaged: {error.message}") from None
        self.index = header.entry.log_index
        return header, state

    def wait(self) -> None:
        """Wait for the worker, if one runs."""
        if self._worker is not None:
            self._worker.join()

    # --- what the library calls

    def checkSerializing(self) -> tuple[int, int | None]:  # noqa: N802  the library's name
        """Report the worker's state; success and failure are reported once."""
        if self._worker is None:
            return SERIALIZER_STATE.NOT_SERIALIZING, None
        if self._worker.is_alive():
            return SERIALIZER_STATE.SERIALIZING, self._log_id
        self._worker = None
        self._sending.clear()
        if self._written is None:
            self._not_before_s = monotonic_s() + RETRY_AFTER_FAILURE_S
            return SERIALIZER_STATE.FAILED, self._log_id
        self.index = self._written.entry.log_index
        return SERIALIZER_STATE.SUCCESS, self._log_id

    def serialize(self, data: tuple[Any, Any, Any, Any], log_id: int) -> None:
        """Start a snapshot at the entry ``data[1]``; ``log_id`` names the log position to truncate to afterwards."""
        if self._worker is not None or monotonic_s() < self._not_before_s:
            return
        entry, previous = LogEntry(*data[1]), LogEntry(*data[2])
        # The configuration as of that entry: a later, uncommitted change may still be rolled back.
        header = SnapshotHeader(entry, previous, self._owner.voters_at(entry.log_index))
        try:
            state = self._owner.dump_state()
        except Exception:
            self._not_before_s = monotonic_s() + RETRY_AFTER_FAILURE_S
            log.exception("the state machine could not be dumped; the log stays as long as it is")
            return
        self._log_id, self._written = log_id, None
        self._worker = threading.Thread(target=self._write, args=(header, state), name="raft-snapshot")
        self._worker.start()
        if not self._in_background:
            self._worker.join()

    def _write(self, header: SnapshotHeader, state: bytes) -> None:
        try:
            if len(state) > limits.MAX_RAFT_SNAPSHOT_BYTES:
                raise CorruptData(f"a state of {len(state)} bytes is over the limit of a snapshot")
            fsio.write_atomic(self.path, encode_snapshot(header, state))
            self._written = header
        except (OSError, CorruptData) as error:
            log.error("the Raft snapshot %s was not written: %s; trying again later", self.path, error)

    def deserialize(self) -> tuple[None, LogEntry, LogEntry, set[Node]]:
        """Load the stored snapshot into the state machine."""
        stored = self.read()
        if stored is None:
            raise CorruptData(f"the Raft snapshot {self.path} has vanished")
        header, state = stored
        self._owner.load_state(state)
        self.voters = header.voters
        return None, header.entry, header.previous, {TCPNode(voter) for voter in header.voters}

    def getTransmissionData(self, node: Node) -> tuple[bytes, bool, bool] | None:  # noqa: N802  the library's name
        """Return the next chunk for ``node`` as (bytes, first, last); the last one is empty.

        None only when no snapshot exists: while a newer one is being written the older one still fits the log, and the
        library would flood the follower with empty messages if it got None.
        """
        sending = self._sending.get(node)
        if sending is None:
            try:
                sending = self.path.read_bytes(), 0
            except OSError:
                return None
        blob, position = sending
        chunk = blob[position : position + self._chunk_bytes]
        if chunk:
            self._sending[node] = blob, position + len(chunk)
        else:
            self._sending.pop(node, None)
        return chunk, position == 0, not chunk

    def setTransmissionData(self, serialized: tuple[bytes, bool, bool] | None) -> bool:  # noqa: N802  the library's name
        """Take a chunk from the leader; True when the snapshot is whole, checked and, if wanted, stored.

        Raises CorruptData when the leader sent something that is no snapshot: the connection is then made anew.
        """
        if serialized is None:
            return False
        chunk, first, last = serialized
        if first:
            self._receiving, self._receiving_bytes = [], 0
        if self._receiving is None:
            return False
        self._receiving_bytes += len(chunk)
        if self._receiving_bytes > limits.MAX_RAFT_SNAPSHOT_BYTES:
            self._receiving = None
            raise CorruptData("the leader sends a snapshot over the size limit")
        self._receiving.append(chunk)
        if not last:
            return False
        blob, self._receiving = b"".join(self._receiving), None
        header, _ = decode_snapshot(blob)
        if self._owner.wants_snapshot(header):
            # A snapshot of this node's own, still being written, must not land on top of the newer one.
            self.wait()
            self._written = None
            fsio.write_atomic(self.path, blob)
        return True

    def cancelTransmisstion(self, node: Node) -> None:  # noqa: N802  the library's name
        """Forget how far ``node`` got."""
        self._sending.pop(node, None)
