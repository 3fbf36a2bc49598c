"""Writing one segment file from sorted rows, row group by row group."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dsdbd import fsio
from dsdbd.model.columns import Column, Int32s, Int64s
from dsdbd.model.scan import SeriesSet, TagColumn
from dsdbd.model.texts import Texts
from dsdbd.model.types import FieldType
from dsdbd.storage.ranges import gather_column
from dsdbd.storage.rows import Rows, concat_rows
from dsdbd.storage.segment_format import (
    FORMAT,
    METADATA_KEY,
    ROW_GROUP_BYTES,
    TIME,
    VERSION,
    About,
    RunsAt,
    column_names,
    encode_about,
    encode_runs,
    group_end,
    series_starts,
)

_ARROW_TYPES = {
    FieldType.FLOAT: pa.float64(),
    FieldType.INTEGER: pa.int64(),
    FieldType.STRING: pa.string(),
    FieldType.BOOLEAN: pa.bool_(),
}
_TIME_TYPE = pa.timestamp("ns", tz="UTC")
_TAG_TYPE = pa.dictionary(pa.int32(), pa.string())
_DICTIONARY = "dictionary"
_ENCODINGS = {
    FieldType.FLOAT: ("BYTE_STREAM_SPLIT", "PLAIN", _DICTIONARY),
    FieldType.INTEGER: ("DELTA_BINARY_PACKED", _DICTIONARY),
    FieldType.BOOLEAN: ("PLAIN",),
    FieldType.STRING: (_DICTIONARY,),
}
"""The first is right for most columns and quick to write; which is smallest depends on the values."""
_TRIAL_ROWS = 16_384
COMPRESSION: dict[str, Any] = {"version": "2.6", "compression": "zstd", "write_page_checksum": True}


def write_segment(path: Path, series: SeriesSet, rows: Rows) -> Int64s:
    """Write sorted rows (at least one); ``rows.series`` are positions in ``series``, which is in key order.

    Returns the position of each run. Durable on return; raises OSError, and then no file is left.
    """
    nullable = {key for key, column in rows.fields.items() if column.valid is not None}
    types = {key: column.type for key, column in rows.fields.items()}
    with fsio.replacing(path) as temporary, SegmentWriter(temporary, series, types, nullable) as writer:
        writer.append(rows)
        return writer.finish()


def no_pace(size_bytes: int) -> None:
    """Writes as fast as the disk takes it."""


class SegmentWriter:
    """Writes the rows of one segment as they come; holds those of the row group that is not yet full.

    ``series``: the series of the file in key order. ``types``, ``nullable``: its fields, and those that some row may
    lack. ``thorough``: try on the first rows which encodings are smallest. ``pace`` is told the decoded bytes of each
    row group and may wait. Every method may raise OSError; leaving the ``with`` block closes the file, ``finish``
    completes it. ``rows``: those taken so far.
    """

    def __init__(
        self,
        path: Path,
        series: SeriesSet,
        types: Mapping[str, FieldType],
        nullable: set[str],
        *,
        thorough: bool = False,
        pace: Callable[[int], None] = no_pace,
    ) -> None:
        self.rows = 0
        self._measurement = series.measurement
        self._types = {key: types[key] for key in sorted(types)}
        self._thorough = thorough
        self._pace = pace
        self._tags = {key: _Texts(tag) for key, tag in sorted(series.tags.items()) if (tag.codes >= 0).any()}
        self._tag_columns, self._field_columns = column_names(list(self._tags), list(self._types))
        self._schema = self._make_schema(nullable)
        self._sink = pa.OSFile(str(path), "wb")
        self._writer: Any = None
        self._pending: Rows | None = None
        self._runs: list[tuple[Int64s, Int64s, Int64s, Int64s]] = []
        self._groups: list[tuple[int, int, int]] = []
        self._unique = True
        self._last: tuple[int, int] | None = None

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        self._sink.close()

    def _make_schema(self, nullable: set[str]) -> Any:
        def column(name: str, arrow_type: Any, role: str, key: str, *, missing: bool) -> Any:
            return pa.field(name, arrow_type, nullable=missing, metadata={"dsdb.role": role, "dsdb.key": key})

        return pa.schema(
            [
                *(column(name, _TAG_TYPE, "tag", key, missing=True) for key, name in self._tag_columns.items()),
                column(TIME, _TIME_TYPE, "time", "", missing=False),
                *(
                    column(name, _ARROW_TYPES[self._types[key]], "field", key, missing=key in nullable)
                    for key, name in self._field_columns.items()
                ),
                column(VERSION, pa.int64(), "version", "", missing=False),
            ]
        )

    # --- taking rows

    def append(self, rows: Rows) -> None:
        """Take rows that sort behind all before them; fields may be missing. Writes the row groups that are full."""
        if not len(rows):
            return
        self.rows += len(rows)
        self._note_runs(rows)
        self._pending = rows if self._pending is None else concat_rows([self._pending, rows], self._types)
        self._write_groups(final=False)

    def finish(self) -> Int64s:
        """Write what is left, the table of runs and the footer; there must have been a row.

        Returns the series of each run, as positions in the set.
        """
        self._write_groups(final=True)
        assert self._writer is not None, "a segment has rows"
        series, runs = self._encode_runs()
        # Readers of Parquet follow the offsets in the footer and never see what lies between pages and footer.
        at = RunsAt(self._sink.tell(), len(runs), zlib.crc32(runs))
        self._sink.write(runs)
        columns = [
            (column.name, column.metadata[b"dsdb.role"].decode(), column.metadata[b"dsdb.key"].decode())
            for column in self._schema
        ]
        about = About(FORMAT, self._measurement, columns, self._groups, self._unique, at)
        self._writer.add_key_value_metadata({METADATA_KEY: encode_about(about)})
        self._writer.close()
        return series

    def _note_runs(self, rows: Rows) -> None:
        starts = series_starts(rows.series)
        ends = np.append(starts[1:], len(rows)) - 1
        self._runs.append((rows.series[starts], ends - starts + 1, rows.time_ns[starts], rows.time_ns[ends]))
        first = int(rows.series[0]), int(rows.time_ns[0])
        same = (rows.time_ns[1:] == rows.time_ns[:-1]) & (rows.series[1:] == rows.series[:-1])
        self._unique = self._unique and self._last != first and not bool(same.any())
        self._last = int(rows.series[-1]), int(rows.time_ns[-1])

    def _encode_runs(self) -> tuple[Int64s, bytes]:
        series, lengths, first_ns, last_ns = (np.concatenate(parts) for parts in zip(*self._runs, strict=True))
        # A series that was appended in pieces is one run.
        starts = series_starts(series)
        ends = np.append(starts[1:], len(series)) - 1
        tags = {key: texts.array(series[starts], large=True) for key, texts in self._tags.items()}
        return series[starts], encode_runs(np.add.reduceat(lengths, starts), first_ns[starts], last_ns[ends], tags)

    # --- row groups

    def _write_groups(self, *, final: bool) -> None:
        rows = self._pending
        if rows is None:
            return
        starts = series_starts(rows.series)
        at = 0
        while at < len(rows) and (end := group_end(starts, at, len(rows), final=final)) is not None:
            end = self._bounded_by_bytes(rows, at, end)
            self._write_group(_part(rows, at, end))
            at = end
        self._pending = _part(rows, at, len(rows)) if at < len(rows) else None

    def _bounded_by_bytes(self, rows: Rows, at: int, end: int) -> int:
        """An earlier end where rows are so wide that the row group would be hard to hold many times."""
        end = min(end, at + max(1, ROW_GROUP_BYTES // (8 * (len(self._types) + 2))))
        texts = [column.values for column in rows.fields.values() if column.type is FieldType.STRING]
        while end - at > 1 and sum(values.slice(at, end - at).nbytes for values in texts) > ROW_GROUP_BYTES:
            end = at + (end - at) // 2
        return end

    def _write_group(self, rows: Rows) -> None:
        starts = series_starts(rows.series)
        lengths = np.diff(np.append(starts, len(rows)))
        arrays = [texts.array(rows.series[starts], lengths) for texts in self._tags.values()]
        arrays.append(pa.Array.from_buffers(_TIME_TYPE, len(rows), [None, pa.py_buffer(_flat(rows.time_ns))]))
        for key, field_type in self._types.items():
            column = rows.fields.get(key)
            arrays.append((Column.missing(field_type, len(rows)) if column is None else column).to_arrow())
        arrays.append(pa.array(rows.version))
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._sink, self._schema, **self._choose_encodings(table), **COMPRESSION)
        self._writer.write_table(table, row_group_size=len(rows))
        size_bytes = sum(array.nbytes for array in arrays[len(self._tags) :])
        self._groups.append((int(rows.time_ns.min()), int(rows.time_ns.max()), size_bytes))
        self._pace(size_bytes)

    def _choose_encodings(self, table: Any) -> dict[str, Any]:
        chosen = {self._field_columns[key]: _ENCODINGS[field_type][0] for key, field_type in self._types.items()}
        if self._thorough:
            chosen.update(_smallest_encodings(table, self._types, self._field_columns))
        dictionary = [*self._tag_columns.values(), *(name for name, one in chosen.items() if one == _DICTIONARY)]
        encodings = {name: one for name, one in chosen.items() if one != _DICTIONARY}
        encodings |= {TIME: "DELTA_BINARY_PACKED", VERSION: "DELTA_BINARY_PACKED"}
        return {"use_dictionary": dictionary or False, "column_encoding": encodings}


def _smallest_encodings(table: Any, types: Mapping[str, FieldType], names: Mapping[str, str]) -> dict[str, str]:
    """For each column with a choice the encoding that makes its first rows smallest; found by writing them."""
    best: dict[str, tuple[int, str]] = {}
    for turn in range(max(map(len, _ENCODINGS.values()))):
        tried = {names[key]: _ENCODINGS[one][turn] for key, one in types.items() if turn < len(_ENCODINGS[one]) > 1}
        if not tried:
            continue
        dictionary = [name for name, one in tried.items() if one == _DICTIONARY]
        encodings = {name: one for name, one in tried.items() if one != _DICTIONARY}
        sink = pa.BufferOutputStream()
        pq.write_table(
            table.select(list(tried)).slice(0, _TRIAL_ROWS),
            sink,
            use_dictionary=dictionary or False,
            column_encoding=encodings or None,
            **COMPRESSION,
        )
        group = pq.read_metadata(pa.BufferReader(sink.getvalue())).row_group(0)
        for at, name in enumerate(tried):
            size = group.column(at).total_compressed_size
            best[name] = min(best.get(name, (size, tried[name])), (size, tried[name]), key=lambda pair: pair[0])
    return {name: encoding for name, (_, encoding) in best.items()}


class _Texts:
    """One tag of the file's series: a code per series, and the texts as an Arrow array that holds only used ones."""

    def __init__(self, tag: TagColumn) -> None:
        used: npt.NDArray[np.bool_] = np.zeros(len(tag.values) + 1, dtype=np.bool_)
        used[tag.codes] = True
        used[-1] = False
        kept = np.flatnonzero(used)
        place = np.full(len(used), -1, dtype=np.int32)
        place[kept] = np.arange(len(kept), dtype=np.int32)
        self._codes: Int32s = place[tag.codes]
        self._texts = Texts.of(tag.values).take(kept)

    def array(self, series: Int64s, lengths: Int64s | None = None, *, large: bool = False) -> Any:
        """The tag of some series, each repeated; the dictionary holds the texts of these series only."""
        codes, places = np.unique(self._codes[series], return_inverse=True)
        places = places.astype(np.int32)
        if len(codes) and codes[0] < 0:
            places -= 1
            codes = codes[1:]
        if lengths is not None:
            places = np.repeat(places, lengths)
        absent = places < 0
        indices = pa.array(places, mask=absent if absent.any() else None)
        texts = self._texts.take(pa.array(codes))
        return pa.DictionaryArray.from_arrays(indices, texts if large else texts.cast(pa.string()))


def _flat(values: Int64s) -> Int64s:
    return np.ascontiguousarray(values, dtype=np.int64)


def _part(rows: Rows, start: int, stop: int) -> Rows:
    """Some neighbouring rows, as views."""
    if start == 0 and stop == len(rows):
        return rows
    ends = np.array([start], dtype=np.int64), np.array([stop], dtype=np.int64)
    fields = {key: gather_column(column, *ends) for key, column in rows.fields.items()}
    return Rows(rows.series[start:stop], rows.time_ns[start:stop], rows.version[start:stop], fields)
