"""What is in a segment file besides its columns: their names, the table of runs, the entry in the footer. Pure.

docs/format/segment.md describes the file for its other readers.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from dsdbd.decoding import decode_json
from dsdbd.errors import CorruptData
from dsdbd.model.columns import Int64s
from dsdbd.model.scan import TagColumn
from dsdbd.model.texts import Texts

ROW_GROUP_ROWS = 32_768
"""A row group ends at the first series that starts behind this many rows; a longer series has groups of its own."""
ROW_GROUP_BYTES = 32 << 20
"""Decoded numbers, and text, of a row group of more than one row: wide rows make short groups, held many times."""

FORMAT = 2
METADATA_KEY = b"dsdb"
TIME = "time"
VERSION = "_version"
_LENGTH, _FIRST, _LAST, _TAG = "length", "first", "last", "t:"


def column_names(tags: Sequence[str], fields: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Column of each tag and of each field.

    A column is named like its key. Where the name is taken (``time``, ``_version``, a field named like a tag) the
    first free one of ``key_1``, ``key_2`` … is used; the column's metadata holds the key.
    """
    taken = {TIME, VERSION, *tags, *fields}
    used = {TIME, VERSION}
    result: list[dict[str, str]] = []
    for keys in (tags, fields):
        names = {}
        for key in keys:
            name, suffix = key, 0
            while name in used or (suffix and name in taken):
                suffix += 1
                name = f"{key}_{suffix}"
            used.add(name)
            names[key] = name
        result.append(names)
    return result[0], result[1]


def series_starts(series: Int64s) -> Int64s:
    """First row of each series in a sorted, not empty column of series."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(np.diff(series)) + 1])


def group_end(starts: Int64s, at: int, rows: int, *, final: bool) -> int | None:
    """Where the row group that begins at row ``at`` ends; None when that depends on rows that are still to come.

    ``starts``: first row of each run. ``rows``: how many rows there are so far, all of them when ``final``.
    """
    behind = int(np.searchsorted(starts, at + ROW_GROUP_ROWS))
    if behind < len(starts) and int(starts[behind]) <= at + 2 * ROW_GROUP_ROWS:
        return int(starts[behind])
    if rows > at + 2 * ROW_GROUP_ROWS:
        return at + ROW_GROUP_ROWS
    return rows if final else None


class RunsAt(msgspec.Struct, frozen=True):
    """Where in the file the table of runs is."""

    offset: int
    size_bytes: int
    crc32: int


class About(msgspec.Struct, frozen=True):
    """The footer's entry of the database.

    ``columns``: (name, role, key). ``row_groups``: (least time, greatest time, bytes when decoded).
    ``unique``: no two rows have the same series and time.
    """

    format: int
    measurement: str
    columns: list[tuple[str, str, str]]
    row_groups: list[tuple[int, int, int]]
    unique: bool
    runs: RunsAt


def encode_about(about: About) -> bytes:
    """JSON with a checksum: Parquet checks its pages, but not its footer."""
    content = msgspec.json.encode(about).decode()
    return json.dumps({"about": content, "crc32": zlib.crc32(content.encode())}).encode()


def decode_about(encoded: bytes) -> About:
    """The entry of ``encode_about``; raises CorruptData or ValueError for anything else."""
    wrapped = json.loads(encoded)
    content: str = wrapped["about"]
    if not isinstance(content, str):
        raise CorruptData(f"its format is not {FORMAT}, which this version reads")
    if zlib.crc32(content.encode()) != wrapped["crc32"]:
        raise CorruptData("its footer fails its check")
    about = decode_json(content, About)
    if about.format != FORMAT:
        raise CorruptData(f"it has format {about.format}; this version reads {FORMAT}")
    return about


@dataclass(frozen=True, slots=True)
class RunTable:
    """The runs of a file: int64[r] rows, least and greatest time of each, and the tags of its series."""

    lengths: Int64s
    first_ns: Int64s
    last_ns: Int64s
    tags: Mapping[str, TagColumn]


def encode_runs(lengths: Int64s, first_ns: Int64s, last_ns: Int64s, tags: Mapping[str, pa.DictionaryArray]) -> bytes:
    """Arrow IPC stream of the runs; ``tags``: dictionaries of large strings, null where a series lacks the tag."""
    arrays = [pa.array(lengths), pa.array(first_ns), pa.array(last_ns), *tags.values()]
    batch = pa.RecordBatch.from_arrays(arrays, names=[_LENGTH, _FIRST, _LAST, *(_TAG + key for key in tags)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def decode_runs(encoded: bytes) -> RunTable:
    """The table of ``encode_runs``; raises what Arrow raises for other bytes."""
    with pa.ipc.open_stream(encoded, options=pa.ipc.IpcReadOptions(use_threads=False)) as reader:
        batch = reader.read_next_batch()
    columns = {name: batch.column(at) for at, name in enumerate(batch.schema.names)}
    tags = {name.removeprefix(_TAG): _tag_column(column) for name, column in columns.items() if name.startswith(_TAG)}
    return RunTable(columns[_LENGTH].to_numpy(), columns[_FIRST].to_numpy(), columns[_LAST].to_numpy(), tags)


def _tag_column(array: pa.DictionaryArray) -> TagColumn:
    codes = array.indices
    return TagColumn((codes.fill_null(-1) if codes.null_count else codes).to_numpy(), Texts(array.dictionary))
