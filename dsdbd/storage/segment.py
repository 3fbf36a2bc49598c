"""One Parquet file of one measurement: writing it, opening it, reading rows of chosen series from it.

Rows are sorted by (series key, time, _version). docs/format/segment.md describes the file for its other readers.
Damage shows as CorruptData; what becomes of a damaged file is the shard's decision.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dsdbd import fsio
from dsdbd.errors import CorruptData
from dsdbd.model.columns import Column, Int64s
from dsdbd.model.series import Series
from dsdbd.model.types import FieldType
from dsdbd.storage.rows import Rows

ROW_GROUP_ROWS = 32_768
"""A row group ends at the first series that starts behind this many rows; a longer series has groups of its own."""

_FORMAT = 1
_METADATA_KEY = b"dsdb"
_WRITE_CHUNK_BYTES = 4 << 20
_TIME = "time"
_VERSION = "_version"
_ENCODINGS = {
    FieldType.FLOAT: "BYTE_STREAM_SPLIT",
    FieldType.INTEGER: "DELTA_BINARY_PACKED",
    FieldType.BOOLEAN: "PLAIN",
}
_T = TypeVar("_T")


def column_names(tags: Sequence[str], fields: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Column of each tag and of each field.

    A column is named like its key. Where the name is taken (``time``, ``_version``, a field named like a tag) the
    first free one of ``key_1``, ``key_2`` … is used; the column's metadata holds the key.
    """
    taken = {_TIME, _VERSION, *tags, *fields}
    used = {_TIME, _VERSION}
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


def row_group_bounds(series_starts: Int64s, rows: int) -> list[int]:
    """Boundaries of the row groups, from 0 to ``rows``."""
    bounds = [0]
    for start, end in zip(series_starts.tolist(), [*series_starts[1:].tolist(), rows], strict=True):
        if start - bounds[-1] >= ROW_GROUP_ROWS:
            bounds.append(start)
        while end - bounds[-1] > 2 * ROW_GROUP_ROWS:
            bounds.append(bounds[-1] + ROW_GROUP_ROWS)
    if rows > bounds[-1]:
        bounds.append(rows)
    return bounds


def series_starts(ranks: Int64s) -> Int64s:
    """First row of each series in a sorted column of series ranks."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(np.diff(ranks)) + 1])


def write_segment(path: Path, measurement: str, series: Sequence[Series], rows: Rows) -> None:
    """Write sorted rows (at least one); ``rows.series`` are positions in ``series``.

    Durable on return; raises OSError, and then no file is left.
    """
    starts = series_starts(rows.series)
    used = rows.series[starts]
    lengths = np.diff(np.append(starts, len(rows)))
    tag_keys = sorted({key for position in used.tolist() for key, _ in series[position].tags})
    tag_columns, field_columns = column_names(tag_keys, sorted(rows.fields))
    arrays: list[Any] = []
    schema: list[Any] = []
    for key, name in tag_columns.items():
        arrays.append(_tag_array(key, [series[position] for position in used.tolist()], lengths))
        schema.append(_column_schema(name, arrays[-1].type, "tag", key))
    arrays.append(pa.array(rows.time_ns).cast(pa.timestamp("ns", tz="UTC")))
    schema.append(_column_schema(_TIME, arrays[-1].type, "time", ""))
    for key, name in field_columns.items():
        arrays.append(rows.fields[key].to_arrow())
        schema.append(_column_schema(name, arrays[-1].type, "field", key))
    arrays.append(pa.array(rows.version))
    schema.append(_column_schema(_VERSION, arrays[-1].type, "version", ""))
    bounds = row_group_bounds(starts, len(rows))
    ranges = [(int(rows.time_ns[a:b].min()), int(rows.time_ns[a:b].max())) for a, b in itertools.pairwise(bounds)]
    columns = [
        [column.name, *(column.metadata[key].decode() for key in (b"dsdb.role", b"dsdb.key"))] for column in schema
    ]
    about = _encode_about(measurement, columns, ranges)
    table = pa.Table.from_arrays(arrays, schema=pa.schema(schema, metadata={_METADATA_KEY: about}))
    texts = [field_columns[key] for key, column in rows.fields.items() if column.type is FieldType.STRING]
    encodings = {_TIME: "DELTA_BINARY_PACKED", _VERSION: "DELTA_BINARY_PACKED"}
    for key, column in rows.fields.items():
        if column.type is not FieldType.STRING:
            encodings[field_columns[key]] = _ENCODINGS[column.type]
    fsio.write_atomic(path, _encode(table, bounds, [*tag_columns.values(), *texts], encodings))


def _encode_about(measurement: str, columns: list[list[str]], row_group_times: list[tuple[int, int]]) -> bytes:
    """What the reader relies on, with a checksum: Parquet checks its pages, but not its footer."""
    content = {"format": _FORMAT, "measurement": measurement, "columns": columns, "row_group_times": row_group_times}
    return json.dumps({"about": content, "crc32": zlib.crc32(json.dumps(content).encode())}).encode()


def _decode_about(path: Path, encoded: bytes) -> dict[str, Any]:
    wrapped = json.loads(encoded)
    content: dict[str, Any] = wrapped["about"]
    if zlib.crc32(json.dumps(content).encode()) != wrapped["crc32"]:
        raise CorruptData(f"segment {path} cannot be read: its footer fails its check")
    if content["format"] != _FORMAT:
        raise CorruptData(f"segment {path} has format {content['format']}; this version reads {_FORMAT}")
    return content


def _column_schema(name: str, arrow_type: Any, role: str, key: str) -> Any:
    return pa.field(name, arrow_type, metadata={"dsdb.role": role, "dsdb.key": key})


def _tag_array(key: str, series: Sequence[Series], lengths: Int64s) -> Any:
    values: dict[str, int] = {}
    codes = np.empty(len(series), dtype=np.int32)
    for position, one in enumerate(series):
        value = one.tag(key)
        codes[position] = values.setdefault(value, len(values)) if value else -1
    spread = np.repeat(codes, lengths)
    absent = spread < 0
    indices = pa.array(spread, mask=absent if absent.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(values), pa.string()))


def _encode(table: Any, bounds: list[int], dictionary: list[str], encodings: dict[str, str]) -> Iterator[bytes]:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        version="2.6",
        compression="zstd",
        use_dictionary=dictionary or False,
        column_encoding=encodings,
        write_page_checksum=True,
    ) as writer:
        for start, end in itertools.pairwise(bounds):
            writer.write_table(table.slice(start, end - start), row_group_size=end - start)
    buffer = sink.getvalue()
    for at in range(0, buffer.size, _WRITE_CHUNK_BYTES):
        yield buffer.slice(at, min(_WRITE_CHUNK_BYTES, buffer.size - at)).to_pybytes()


def _reading(path: Path, work: Callable[[], _T]) -> _T:
    """Run a read; whatever Arrow says about malformed bytes becomes CorruptData, real I/O errors stay OSError."""
    try:
        return work()
    except (pa.ArrowException, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise CorruptData(f"segment {path} cannot be read: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise CorruptData(f"segment {path} cannot be read: {error}") from error


class Segment:
    """An open segment: its footer in memory, its file opened for every read.

    ``low`` and ``high``: the range of file numbers it stands for. ``fields``: field key to type.
    ``run_series``: series number of each run of rows, None until ``read_series`` was turned into numbers.
    ``pins``: readers that may still open the file; guarded by the shard's lock.
    """

    def __init__(self, path: Path, low: int, high: int) -> None:
        self.path = path
        self.low = low
        self.high = high
        self.pins = 0
        self.obsolete = False
        self.run_series: Int64s | None = None
        self.run_starts: Int64s = np.empty(0, dtype=np.int64)
        _reading(path, self._open)

    def _open(self) -> None:
        with pq.ParquetFile(self.path) as file:
            self._metadata = file.metadata
            schema = file.schema_arrow
        self.size_bytes = self.path.stat().st_size
        about = _decode_about(self.path, schema.metadata[_METADATA_KEY])
        self.measurement = str(about["measurement"])
        self._group_times = np.array(about["row_group_times"], dtype=np.int64).reshape(-1, 2)
        sizes = [self._metadata.row_group(at).num_rows for at in range(self._metadata.num_row_groups)]
        self._group_starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)])
        if len(self._group_times) != len(sizes) or not sizes:
            raise CorruptData(f"segment {self.path} contradicts itself: row groups and their times differ in number")
        self.rows = int(self._group_starts[-1])
        self.min_ns, self.max_ns = int(self._group_times[:, 0].min()), int(self._group_times[:, 1].max())
        self.tags: dict[str, str] = {}
        self._field_columns: dict[str, str] = {}
        self.fields: dict[str, FieldType] = {}
        for name, role, key in about["columns"]:
            if role == "tag":
                self.tags[key] = name
            elif role == "field":
                self._field_columns[key] = name
                self.fields[key] = Column.from_arrow(pa.array([], schema.field(name).type)).type

    @property
    def memory_bytes(self) -> int:
        """About the memory of all rows as columns."""
        return self.rows * 8 * (len(self.fields) + 3)

    def read_series(self) -> tuple[list[Series], Int64s]:
        """The series of the file in row order, and the first row of each. Raises CorruptData, OSError."""
        return _reading(self.path, self._read_series)

    def _read_series(self) -> tuple[list[Series], Int64s]:
        if not self.tags:
            return [Series(self.measurement, ())], np.zeros(1, dtype=np.int64)
        keys = sorted(self.tags)
        with self._file() as file:
            table = file.read(columns=[self.tags[key] for key in keys], use_threads=False)
        changes: npt.NDArray[np.bool_] = np.zeros(max(self.rows - 1, 0), dtype=np.bool_)
        codes: list[npt.NDArray[np.int64]] = []
        values: list[list[str]] = []
        for key in keys:
            column = table.column(self.tags[key]).unify_dictionaries()
            chunk = column.combine_chunks()
            chunk = chunk.chunk(0) if isinstance(chunk, pa.ChunkedArray) else chunk
            indices = np.asarray(chunk.indices.cast(pa.int64()).fill_null(-1))
            changes |= np.diff(indices) != 0
            codes.append(indices)
            values.append(chunk.dictionary.to_pylist())
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(changes) + 1])
        texts = [
            [vocabulary[code] if code >= 0 else "" for code in column[starts].tolist()]
            for column, vocabulary in zip(codes, values, strict=True)
        ]
        series = [
            Series(self.measurement, tuple((key, text) for key, text in zip(keys, row, strict=True) if text))
            for row in zip(*texts, strict=True)
        ]
        return series, starts

    def _file(self) -> Any:
        return pq.ParquetFile(self.path, metadata=self._metadata, page_checksum_verification=True)

    def read(self, wanted: npt.NDArray[np.bool_] | None, min_ns: int, max_ns: int, fields: Sequence[str]) -> Rows:
        """Rows of the wanted series (a mask over series numbers, None for all) within inclusive times.

        Fields the file lacks are left out. Needs ``run_series``. Raises CorruptData, OSError.
        """
        return _reading(self.path, lambda: self._read(wanted, min_ns, max_ns, fields))

    def _read(self, wanted: npt.NDArray[np.bool_] | None, min_ns: int, max_ns: int, fields: Sequence[str]) -> Rows:
        assert self.run_series is not None, "the shard numbers the series first"
        present = [key for key in fields if key in self.fields]
        run_wanted = np.ones(len(self.run_series), dtype=np.bool_) if wanted is None else wanted[self.run_series]
        groups = self._groups(run_wanted, min_ns, max_ns)
        columns = [_TIME, _VERSION, *(self._field_columns[key] for key in present)]
        with self._file() as file:
            table = file.read_row_groups(groups, columns=columns, use_threads=False)
        series, chosen = self._rows_of(groups, run_wanted)
        if len(series) != table.num_rows:
            raise CorruptData(f"segment {self.path} contradicts itself: a row group is shorter than its footer says")
        time_ns = table.column(_TIME).cast(pa.int64()).to_numpy()
        version = table.column(_VERSION).to_numpy()
        columns_read = {key: Column.from_arrow(table.column(self._field_columns[key])) for key in present}
        rows = Rows(series, time_ns, version, columns_read)
        chosen &= (time_ns >= min_ns) & (time_ns <= max_ns)
        return rows if chosen.all() else rows.take(np.flatnonzero(chosen))

    def _groups(self, run_wanted: npt.NDArray[np.bool_], min_ns: int, max_ns: int) -> list[int]:
        """Row groups that hold a wanted series and overlap the times."""
        ends = np.append(self.run_starts[1:], self.rows)
        first = np.searchsorted(self._group_starts, self.run_starts[run_wanted], side="right") - 1
        last = np.searchsorted(self._group_starts, ends[run_wanted] - 1, side="right") - 1
        edges = np.zeros(len(self._group_starts), dtype=np.int64)
        np.add.at(edges, first, 1)
        np.add.at(edges, last + 1, -1)
        touched = np.cumsum(edges)[:-1] > 0
        touched &= (self._group_times[:, 1] >= min_ns) & (self._group_times[:, 0] <= max_ns)
        groups: list[int] = np.flatnonzero(touched).tolist()
        return groups

    def _rows_of(self, groups: list[int], run_wanted: npt.NDArray[np.bool_]) -> tuple[Int64s, npt.NDArray[np.bool_]]:
        """Series number of every row of the groups, and whether it is wanted."""
        assert self.run_series is not None, "the shard numbers the series first"
        runs: list[Int64s] = [np.empty(0, dtype=np.int64)]
        ends = np.append(self.run_starts[1:], self.rows)
        for group in groups:
            low, high = int(self._group_starts[group]), int(self._group_starts[group + 1])
            first = int(np.searchsorted(self.run_starts, low, side="right")) - 1
            last = int(np.searchsorted(self.run_starts, high, side="left"))
            lengths = np.minimum(ends[first:last], high) - np.maximum(self.run_starts[first:last], low)
            runs.append(np.repeat(np.arange(first, last, dtype=np.int64), lengths))
        row_runs = np.concatenate(runs)
        return self.run_series[row_runs], run_wanted[row_runs]


def schema_of(segments: Sequence[Segment]) -> Mapping[str, FieldType]:
    """Fields of several segments; where types differ that of the earlier one."""
    types: dict[str, FieldType] = {}
    for segment in segments:
        for key, field_type in segment.fields.items():
            types.setdefault(key, field_type)
    return types
