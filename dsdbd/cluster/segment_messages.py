"""What nodes say to each other when files of a shard are copied: MessagePack bodies, and the form of a file's stream.

A file is sent as its bytes from the offset asked for, followed by the digest of the whole file (32 bytes), so a copy
that was broken off and taken up again is checked from its first byte to its last.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np

from dsdbd.decoding import decode_msgpack
from dsdbd.errors import Unavailable
from dsdbd.model.digest import CELLS, DIGEST_FORMAT, Grid, TimeRanges, UInt64s
from dsdbd.storage.file_sums import DIGEST_BYTES as DIGEST_BYTES
from dsdbd.storage.file_sums import PIECE_BYTES as PIECE_BYTES
from dsdbd.storage.file_sums import FileDigest, FileSums

T = TypeVar("T")


class WireSums(msgspec.Struct, frozen=True, array_like=True):
    """What an owner knows of a file: the digest of its bytes, and of its rows by ranges of ``start_ns`` to ``end_ns``.

    ``places``, ``sums``: of a ``Grid``, as little-endian uint16 and uint64. ``format``: ``model.digest.DIGEST_FORMAT``.
    """

    format: int
    file_digest: bytes
    start_ns: int
    end_ns: int
    places: bytes
    sums: bytes


class FileEntry(msgspec.Struct, frozen=True, array_like=True):
    """One segment file; a name is used for one content only as long as the owner's directory lives.

    ``modified_ns``: Unix time of its writing at the owner. ``known``: where the owner knows it.
    """

    measurement: str
    name: str
    size_bytes: int
    rows: int
    modified_ns: int = 0
    known: WireSums | None = None


class ListRequest(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``POST /internal/files``: the shard whose files are wanted."""

    shard_id: int


class Listing(msgspec.Struct, frozen=True, array_like=True):
    """Its answer: the files hold every row the owner had when it was asked, and stay while ``token`` is in use.

    ``tombstones``: the shard's deletions, as ``storage.tombstones`` encodes them; the files may hold rows they hide.
    ``version``: no row in the files has a newer one.
    """

    token: str
    files: tuple[FileEntry, ...]
    tombstones: bytes
    version: int = 0


class SizesRequest(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``POST /internal/sizes``: shards whose size is wanted; none: all of the node."""

    shard_ids: tuple[int, ...] = ()


class SizesAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of each shard the node holds, those in memory included."""

    sizes: dict[int, int]
    rate_bytes_per_s: int
    """What the node takes when it copies shards; 0: as much as it gets."""
    kept_bytes: int = 0
    """Writes the node keeps for other owners."""


def encode(message: msgspec.Struct) -> bytes:
    """MessagePack of a message."""
    return msgspec.msgpack.encode(message)


def decode(body: bytes, kind: type[T]) -> T:
    """The message in a body. Raises Unavailable: the nodes run different versions."""
    try:
        return decode_msgpack(body, kind)
    except msgspec.MsgspecError as error:
        raise Unavailable(
            f"a message between nodes cannot be read: {error}. Run equal versions on all nodes."
        ) from error


def wire_sums(found: FileSums) -> WireSums:
    """What is said of them to another node."""
    ranges, grid = found.ranges, found.grid
    places, sums = grid.places.astype("<u2").tobytes(), grid.sums.astype("<u8").tobytes()
    return WireSums(DIGEST_FORMAT, found.file_digest, ranges.start_ns, ranges.end_ns, places, sums)


def sums_of(entry: FileEntry, file_digest: bytes) -> FileSums | None:
    """What the owner knows of a file whose bytes have this digest; None where it knows nothing of these bytes."""
    known = entry.known
    if known is None or known.format != DIGEST_FORMAT or known.file_digest != file_digest:
        return None
    if 4 * len(known.places) != len(known.sums) or len(known.sums) % 8:
        return None
    places, sums = np.frombuffer(known.places, "<u2"), np.frombuffer(known.sums, "<u8")
    if (places >= CELLS).any():
        return None
    cells: UInt64s = np.zeros(CELLS, dtype=np.uint64)
    cells[places] = sums
    return FileSums(file_digest, TimeRanges(known.start_ns, known.end_ns), Grid.of(entry.measurement, cells))


def new_digest() -> FileDigest:
    """The digest of a file, to be fed with its bytes."""
    return FileDigest()
