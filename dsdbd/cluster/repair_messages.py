"""What nodes say to each other to make the copies of a shard equal: MessagePack arrays, signed as every request is.

Fields may be added at the end, with a default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dsdbd.decoding import decode_msgpack
from dsdbd.errors import RequestError, ShardUnavailable
from dsdbd.model.digest import DIGEST_FORMAT
from dsdbd.storage.selection import MAX_NS, MIN_NS

if TYPE_CHECKING:
    from collections.abc import Collection

SUMMARIES_PATH = "/internal/repair/summaries"
DIGESTS_PATH = "/internal/repair/digests"
EXPORT_PATH = "/internal/repair/export"
COMPLETE_PATH = "/internal/repair/complete"
PROGRESS_PATH = "/internal/repair/progress"
LATELY_PATH = "/internal/repair/lately"

_Message = TypeVar("_Message")


class SummariesRequest(msgspec.Struct, frozen=True, array_like=True):
    """What do you hold of these shards? Each with the version below which values count, 0 for all.

    ``metadata_index``: of the metadata in which the asking node, ``data_id``, found the shards.
    """

    metadata_index: int
    data_id: int
    shards: list[tuple[int, int]]
    format: int = DIGEST_FORMAT


class Summary(msgspec.Struct, frozen=True, array_like=True):
    """One shard in two numbers: ``total`` of its values, ``tombstones`` of its deletions; 0 where there are none."""

    shard_id: int
    total: int = 0
    tombstones: int = 0


class SummariesAnswer(msgspec.Struct, frozen=True, array_like=True):
    """``kept_bytes``: of writes and deletions that this node keeps for the one that asks, and is about to deliver."""

    summaries: list[Summary]
    kept_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The part of a shard that is compared: measurements (None: all), inclusive times, versions ``below`` (0: all).

    ``since``: where it is not 0, versions from it on, and ``below`` is 0; with ``coordinator`` only those that the node
    of that number gave (0: any).
    """

    measurements: Collection[str] | None = None
    min_ns: int = MIN_NS
    max_ns: int = MAX_NS
    below: int = 0
    since: int = 0
    coordinator: int = 0

    @property
    def is_all(self) -> bool:
        """Whether nothing of the shard is left out but what is too new."""
        return self.measurements is None and self.min_ns == MIN_NS and self.max_ns == MAX_NS and not self.since


class DigestsRequest(msgspec.Struct, frozen=True, array_like=True):
    """Where do you hold something else than I do? ``totals``: what the asking node has, by measurement.

    ``measurements``: None for all. ``after``: only measurements behind this name, which an earlier answer ended with.
    ``tombstones``: the number of the deletions that the asking node has. ``since``: where it is not 0, the version from
    which on values count, and ``below`` means nothing; ``coordinator`` as in ``Range``.
    """

    metadata_index: int
    shard_id: int
    totals: dict[str, int]
    tombstones: int
    measurements: list[str] | None = None
    min_ns: int = MIN_NS
    max_ns: int = MAX_NS
    below: int = 0
    after: str = ""
    format: int = DIGEST_FORMAT
    since: int = 0
    coordinator: int = 0

    @property
    def part(self) -> Range:
        """What is asked for of the shard."""
        return Range(
            measurements=self.measurements,
            min_ns=self.min_ns,
            max_ns=self.max_ns,
            below=self.below,
            since=self.since,
            coordinator=self.coordinator,
        )


class WireGrid(msgspec.Struct, frozen=True, array_like=True):
    """A ``Grid``: ``places`` are u16, ``sums`` u64, little endian."""

    measurement: str
    places: bytes
    sums: bytes


class DigestsAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Grids of measurements whose totals differ, by name; ``more`` of them come behind the last one.

    Where only the asking node has measurements, an empty grid of one says that the copies differ.

    ``tombstones``: all deletions, as a shard's file has them; empty where they are the same.
    """

    grids: list[WireGrid]
    tombstones: bytes = b""
    more: bool = False


class ExportRequest(msgspec.Struct, frozen=True, array_like=True):
    """Give me the rows of these cells (u16, little endian) of a measurement.

    The answer is a stream of frames: ``FRAME_ROWS``, four bytes of length (little endian) and an encoded batch;
    ``FRAME_ALIVE`` while the next is made; ``FRAME_END`` last, or ``FRAME_ERROR``, length and an error body.
    """

    metadata_index: int
    shard_id: int
    measurement: str
    cells: bytes
    min_ns: int = MIN_NS
    max_ns: int = MAX_NS
    below: int = 0
    format: int = DIGEST_FORMAT
    since: int = 0
    coordinator: int = 0


FRAME_ALIVE, FRAME_ROWS, FRAME_END, FRAME_ERROR = 0, 1, 2, 3


class CompleteRequest(msgspec.Struct, frozen=True, array_like=True):
    """Make your copies of these shards hold what the other owners' do, and answer when they do.

    ``everyone``: all other owners are meant, not only enough for a majority.
    """

    metadata_index: int
    shards: list[int]
    measurements: list[str] | None = None
    min_ns: int = MIN_NS
    max_ns: int = MAX_NS
    everyone: bool = False


class LatelyRequest(msgspec.Struct, frozen=True, array_like=True):
    """Asks for the shards of ``data_id``, who asks, that took writes of clients in the last ``ago_s`` seconds."""

    data_id: int
    ago_s: float


class LatelyAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Those shards, the one that was written to last first; ``index``: of the metadata that names them."""

    index: int
    shards: list[int]


_encoder = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def decode_request(body: bytes, kind: type[_Message]) -> _Message:
    """The message of a request's body; raises RequestError."""
    try:
        found = decode_msgpack(body, kind)
    except msgspec.MsgspecError as error:
        raise RequestError(f"the request cannot be decoded: {error}; run equal versions on all nodes") from error
    theirs = getattr(found, "format", DIGEST_FORMAT)
    if theirs != DIGEST_FORMAT:
        raise RequestError(f"digests of format {theirs} cannot be compared with {DIGEST_FORMAT}; run equal versions")
    return found


def decode_answer(body: bytes, kind: type[_Message], peer: str) -> _Message:
    """The message of an answer's body; raises ShardUnavailable."""
    try:
        return decode_msgpack(body, kind)
    except msgspec.MsgspecError as error:
        raise ShardUnavailable(f"{peer} answers what cannot be decoded: {error}; run equal versions") from error
