"""What is known of a segment file since it was written or read whole: the digest of its bytes, and that of its rows.

Both together let another replica take the file without reading a row: bytes of that digest are the file whose rows were
added up. The digest of the bytes is therefore made of a file as it was written, or before its checked pages are read
for the rows, and never of bytes that are only being sent.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dsdbd.model.digest import CELLS, Grid, TimeRanges, UInt64s
from dsdbd.storage.block import Block
from dsdbd.storage.segment import Segment

if TYPE_CHECKING:
    from dsdbd.storage.measurement import Measurement

DIGEST_BYTES = 32
PIECE_BYTES = 1 << 20
"""A file is read, sent, received and written in pieces of this size."""


class FileDigest:
    """The digest of a file, to be fed with its bytes: a BLAKE2b of the CRC-32s of its pieces of ``PIECE_BYTES``.

    Against what discs and networks do to bytes; it takes half the time of a BLAKE2b of all of them, and a fifth of a
    SHA-256. What a file says besides is checked when it is read.
    """

    def __init__(self) -> None:
        self._whole = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._crc = 0
        self._left_bytes = PIECE_BYTES

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes, however they are cut."""
        view = memoryview(data)
        while len(view) >= self._left_bytes:
            crc = zlib.crc32(view[: self._left_bytes], self._crc)
            self._whole.update(crc.to_bytes(4, "little"))
            view = view[self._left_bytes :]
            self._crc, self._left_bytes = 0, PIECE_BYTES
        self._crc = zlib.crc32(view, self._crc)
        self._left_bytes -= len(view)

    def digest(self) -> bytes:
        """Of all bytes so far, their number included."""
        last = self._whole.copy()
        last.update(self._crc.to_bytes(4, "little") + self._left_bytes.to_bytes(4, "little"))
        return last.digest()


class BlockSums(NamedTuple):
    """The digest of the rows of a block by itself, and what it was ``made_of``: ranges, and deletions that hide rows.

    ``file_digest``: of the bytes of a file all rows and fields of which are in it; empty where that is not known.
    """

    made_of: tuple[TimeRanges, tuple[object, ...]]
    grid: Grid
    file_digest: bytes = b""


class FileSums(NamedTuple):
    """The digest of a file's bytes and, by the ranges of digests, that of all its rows."""

    file_digest: bytes
    ranges: TimeRanges
    grid: Grid


def digest_of_file(path: Path) -> bytes:
    """The digest of a file as it lies there; empty where it cannot be read. Blocks."""
    digest = FileDigest()
    piece = memoryview(bytearray(PIECE_BYTES))
    try:
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(piece):
                digest.update(piece[:size])
    except OSError:
        return b""
    return digest.digest()


def known_sums(known: Measurement, segment: Segment) -> FileSums | None:
    """What another replica may take over of a file."""
    sums = known.sums.get(segment)
    if sums is None or not sums.file_digest or sums.made_of[1] or not known.all_of_it_counts(segment, ()):
        return None
    return FileSums(sums.file_digest, sums.made_of[0], sums.grid)


def sums_of_parts(known: Measurement, parts: Sequence[Block], whole: Segment) -> BlockSums | None:
    """Those of a file that was made of other blocks, from theirs; None where they do not add up.

    They do where each row of the others is there as it was: as many rows, no two of them of one series and time. The
    digest of the file's bytes is still to be made.
    """
    if known.ranges is None or not whole.unique or sum(part.rows for part in parts) != whole.rows:
        return None
    if not known.all_of_it_counts(whole, ()):
        return None
    made_of = known.ranges, ()
    cells: UInt64s = np.zeros(CELLS, dtype=np.uint64)
    for part in parts:
        sums = known.sums.get(part)
        if sums is None or sums.made_of != made_of:
            return None
        if any(whole.fields.get(key) is not kind for key, kind in part.fields.items()):
            return None
        if isinstance(part, Segment) and not sums.file_digest:
            # A field of it may have been left out.
            return None
        cells += sums.grid.cells
    return BlockSums(made_of, Grid.of(whole.measurement, cells))
