"""What a store does at its start so that the first questions find what later ones find.

Libraries load and look up things at their first use. And the columns that were decoded in memory when the store was
closed are decoded again: their list is kept in a file beside the databases. The list is a hint and nothing else; what
it names may be gone, and without it everything is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsdbd import fsio
from dsdbd.decoding import decode_json
from dsdbd.storage.cache import ColumnCache
from dsdbd.storage.segment import Segment
from dsdbd.storage.segment_write import COMPRESSION

LIST_FILE = ".read-cache.json"
"""No database has a directory of this name: a dot in front is written otherwise there."""
_FORMAT = 1
_TRIAL_ROWS = 16
_MAX_EXTENTS = 10_000
"""So many are listed, the newest: some hundred kilobytes of text."""

Extents = Mapping[Path, Sequence[tuple[str, int, int]]]
"""By file: column, first row group, and the one behind the last."""


class _Listed(msgspec.Struct):
    """Content of the file; paths are relative to it, with ``/``."""

    format: int
    files: dict[str, list[tuple[str, int, int]]]


def warm_up() -> None:
    """Have libraries load what they load at their first use, which takes longer than a small query."""
    pa.array(np.zeros(1), mask=np.zeros(1, dtype=np.bool_))
    values = np.arange(_TRIAL_ROWS)
    table = pa.table(
        {
            "time": pa.array(values, pa.timestamp("ns", tz="UTC")),
            "float": pa.array(np.sqrt(values)),
            "text": pa.array(["text", *[None] * (_TRIAL_ROWS - 1)], pa.dictionary(pa.int32(), pa.string())),
        }
    )
    encodings = {"time": "DELTA_BINARY_PACKED", "float": "BYTE_STREAM_SPLIT"}
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, use_dictionary=["text"], column_encoding=encodings, **COMPRESSION)
    with pq.ParquetFile(pa.BufferReader(sink.getvalue()), page_checksum_verification=True) as reader:
        for use_threads in (False, True):
            read = reader.read_row_groups([0], columns=table.column_names, use_threads=use_threads)
            read.column("time").cast(pa.int64()).to_numpy()


def remember(data_dir: Path, segments: Sequence[Segment], cache: ColumnCache) -> None:
    """List the columns in memory. A crash leaves the list of an earlier close. Raises OSError."""
    paths = {segment.file_id: segment.path.relative_to(data_dir).as_posix() for segment in segments}
    files: dict[str, list[tuple[str, int, int]]] = {}
    for extent in cache.newest(_MAX_EXTENTS):
        if extent.file_id in paths:
            files.setdefault(paths[extent.file_id], []).append((extent.name, extent.first, extent.stop))
    fsio.write_atomic(data_dir / LIST_FILE, msgspec.json.encode(_Listed(_FORMAT, files)))


def recall(data_dir: Path) -> Extents:
    """What ``remember`` listed; nothing where there is no list, or one that cannot be read."""
    try:
        listed = decode_json((data_dir / LIST_FILE).read_bytes(), _Listed)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return {data_dir / name: extents for name, extents in listed.files.items()} if listed.format == _FORMAT else {}
