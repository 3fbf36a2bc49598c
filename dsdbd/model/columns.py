"""Points as columns: the one shape in which points travel between parser, log, head, segment, peer and query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dsdbd.decoding import msgpack_decoder
from dsdbd.errors import CorruptData
from dsdbd.model.stream_layout import layout_of
from dsdbd.model.types import FieldType

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

_DTYPES: dict[FieldType, Any] = {FieldType.FLOAT: np.float64, FieldType.INTEGER: np.int64, FieldType.BOOLEAN: np.bool_}
_ARROW_TYPES: dict[FieldType, Any] = {
    FieldType.FLOAT: pa.float64(),
    FieldType.INTEGER: pa.int64(),
    FieldType.STRING: pa.string(),
    FieldType.BOOLEAN: pa.bool_(),
}
_FIELD_TYPES = {arrow_type: field_type for field_type, arrow_type in _ARROW_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Column:
    """One field of n rows.

    ``values``: float64[n], int64[n] or bool[n] (NumPy), or for strings an Arrow ``string`` array of n entries; the
    query engine also keeps strings as an Arrow dictionary of them (int32 positions), null where invalid.
    ``valid``: bool[n], False where the row has no value for the field; None when every row has one. Values at
    invalid rows are unspecified (for strings: null or any text).
    """

    type: FieldType
    values: Any
    valid: Bools | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Int64s) -> Column:
        """The given rows in the given order; ``rows`` is an integer index array."""
        values = self.values.take(pa.array(rows)) if self.type is FieldType.STRING else self.values[rows]
        return Column(self.type, values, None if self.valid is None else self.valid[rows])

    def to_arrow(self) -> Any:
        """An Arrow array of the same length, null where invalid."""
        if self.type is FieldType.STRING:
            values = self.values.cast(pa.string()) if pa.types.is_dictionary(self.values.type) else self.values
            if self.valid is None:
                return values
            import pyarrow.compute as pc

            return pc.if_else(pa.array(self.valid), values, pa.scalar(None, pa.string()))
        mask = None if self.valid is None else ~self.valid
        return pa.array(self.values, type=_ARROW_TYPES[self.type], mask=mask)

    @staticmethod
    def from_arrow(array: Any) -> Column:
        """The column of an Arrow array of one of the four types (int64, float64, bool, string; chunked or not)."""
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
        field_type = _FIELD_TYPES[array.type]
        valid = None if array.null_count == 0 else np.asarray(array.is_valid())
        if field_type is FieldType.STRING:
            return Column(field_type, array, valid)
        if valid is not None:
            array = array.fill_null(pa.scalar(False if field_type is FieldType.BOOLEAN else 0, array.type))
        values = array.to_numpy(zero_copy_only=False)
        return Column(field_type, values.astype(_DTYPES[field_type], copy=False), valid)

    @staticmethod
    def missing(field_type: FieldType, rows: int) -> Column:
        """A column without any value."""
        if field_type is FieldType.STRING:
            values: Any = pa.nulls(rows, pa.string())
        else:
            values = np.zeros(rows, dtype=_DTYPES[field_type])
        return Column(field_type, values, np.zeros(rows, dtype=np.bool_))


def concat_columns(parts: list[Column]) -> Column:
    """Columns of one type, one after another; needs at least one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if first.type is FieldType.STRING:
        values = pa.concat_arrays([part.values for part in parts])
    else:
        values = np.concatenate([part.values for part in parts])
    if all(part.valid is None for part in parts):
        return Column(first.type, values)
    valid = [np.ones(len(part), dtype=np.bool_) if part.valid is None else part.valid for part in parts]
    return Column(first.type, values, np.concatenate(valid))


@dataclass(frozen=True, slots=True)
class Points:
    """Points of one measurement.

    ``series``: the canonical keys of the distinct series (``dsdbd.model.series``), in any order.
    ``series_index``: int32[n], row to position in ``series``.
    ``time_ns``: int64[n], nanoseconds since 1970-01-01 UTC.
    ``fields``: field key to a Column of n rows.
    ``versions``: int64[n], the version of each row; None where that of the batch counts for all.
    """

    measurement: str
    series: Sequence[bytes]
    series_index: Int32s
    time_ns: Int64s
    fields: Mapping[str, Column]
    versions: Int64s | None = None

    def __len__(self) -> int:
        return len(self.time_ns)

    def take(self, rows: Int64s) -> Points:
        """The given rows in the given order; ``series`` keeps its entries, used or not."""
        fields = {key: column.take(rows) for key, column in self.fields.items()}
        return Points(
            self.measurement,
            self.series,
            self.series_index[rows],
            self.time_ns[rows],
            fields,
            None if self.versions is None else self.versions[rows],
        )

    def select(self, rows: Int64s) -> Points:
        """The given rows in the given order, and of ``series`` only those that have one of them."""
        used, index = np.unique(self.series_index[rows], return_inverse=True)
        series = [self.series[place] for place in used.tolist()]
        fields = {key: column.take(rows) for key, column in self.fields.items()}
        versions = None if self.versions is None else self.versions[rows]
        return Points(self.measurement, series, index.astype(np.int32), self.time_ns[rows], fields, versions)

    def newest_version(self, otherwise: int) -> int:
        """Greatest version of a row; ``otherwise`` where rows have none of their own, or there is no row."""
        return otherwise if self.versions is None or not len(self.versions) else int(self.versions.max())


@dataclass(frozen=True, slots=True)
class Batch:
    """Points of one write that go to one shard: what the log stores and what a replica receives.

    ``version``: hybrid logical timestamp given by the coordinator; where series and time are equal, the field value
    of the highest version wins, and inside one batch that of the later row. Where rows have versions of their own,
    as those have that one replica gives to another, it is the greatest of them.
    """

    version: int
    points: tuple[Points, ...] = field(default=())

    def __len__(self) -> int:
        return sum(len(points) for points in self.points)


class _WirePoints(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    measurement: str
    series: list[bytes]
    table: bytes


class _EncodedPoints(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    measurement: str
    series: msgspec.Raw
    table: bytes


class _EncodedBatch(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    version: int
    points: list[_EncodedPoints]


class _WireBatch(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    version: int
    points: list[_WirePoints]


_FORMAT = 2
_FORMAT_VERSIONS = 3
"""The same with a column of versions in some table."""
_encoder = msgspec.msgpack.Encoder()
_decoder = msgpack_decoder(_EncodedBatch)
_keys_decoder = msgpack_decoder(list[bytes])


_FIELD = "f:"
"""In front of a field's key in the name of its column."""
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_MAX_LAYOUTS = 1_000
_MAX_LAYOUT_BYTES = 16 << 10
_Layout: TypeAlias = tuple[int, tuple[tuple[str, FieldType], ...]]
_heads: dict[_Layout, bytes | None] = {}
"""What stands before the values of so many points of some fields: batches of a measurement mostly have the same. None
where the values are not just one column after the other."""
_WORDS = (FieldType.FLOAT, FieldType.INTEGER)


def encode_points(points: Points) -> bytes:
    """Arrow IPC stream of the columns ``series``, ``time``, ``f:<field key>`` for each field, ``version`` if any."""
    if points.versions is not None:
        return _encoded(points, [pa.array(points.versions, pa.int64())], ["version"])
    count = len(points)
    layout = count, tuple((name, column.type) for name, column in points.fields.items())
    head = _heads.get(layout, b"")
    values = [] if head is None else _plain_values(points)
    if head and values:
        return b"".join((head, *values, _END_OF_STREAM))
    encoded = _encoded(points)
    if values:
        _remember(layout, encoded, b"".join((*values, _END_OF_STREAM)))
    return encoded


def _encoded(points: Points, more: Sequence[Any] = (), names: Sequence[str] = ()) -> bytes:
    """What a stream writer would write, without making one for each batch; ``more``: arrays behind the others."""
    arrays = [pa.array(points.series_index, pa.int32()), pa.array(points.time_ns, pa.int64())]
    arrays += [column.to_arrow() for column in points.fields.values()]
    known = ["series", "time", *(_FIELD + name for name in points.fields)]
    batch = pa.RecordBatch.from_arrays([*arrays, *more], names=[*known, *names])
    return b"".join((batch.schema.serialize(), batch.serialize(), _END_OF_STREAM))


def _plain_values(points: Points) -> list[Any]:
    """The columns as bytes, as a record batch has them; empty where some are strings, booleans or not everywhere."""
    columns = points.fields.values()
    if any(column.valid is not None or column.type not in _WORDS for column in columns):
        return []
    gap = b"\0\0\0\0" if len(points) & 1 else b""
    return [
        np.ascontiguousarray(points.series_index, np.int32),
        gap,
        *(np.ascontiguousarray(values) for values in (points.time_ns, *(column.values for column in columns))),
    ]


def _remember(layout: _Layout, encoded: bytes, values: bytes) -> None:
    """Keep what stands before the values, where they are as Arrow wrote them."""
    head = encoded[: len(encoded) - len(values)] if encoded.endswith(values) else None
    if head is None or len(head) <= _MAX_LAYOUT_BYTES:
        if len(_heads) >= _MAX_LAYOUTS:
            _heads.clear()
        _heads[layout] = head


def encode_batch(batch: Batch) -> bytes:
    """The bytes of a batch: MessagePack around one Arrow IPC stream per measurement."""
    items = [_WirePoints(p.measurement, list(p.series), encode_points(p)) for p in batch.points]
    own = any(points.versions is not None for points in batch.points)
    return _encoder.encode(_WireBatch(_FORMAT_VERSIONS if own else _FORMAT, batch.version, items))


def decode_batch(data: bytes) -> Batch:
    """The batch of ``encode_batch``; raises CorruptData for anything else."""
    return _decode(data, lambda _, encoded: tuple(decode_keys(encoded)))


def decode_lazily(data: bytes | memoryview, keys: Callable[[str, bytes | memoryview, int], Sequence[bytes]]) -> Batch:
    """The same for bytes whose check was right; ``keys`` makes ``Points.series``.

    It is called with measurement, encoded keys and their number; ``decode_keys`` decodes them. The batch holds no
    reference to ``data``, unless ``keys`` keeps what it was given.
    """
    return _decode(data, lambda measurement, encoded: keys(measurement, encoded, _array_length(encoded)))


def decode_keys(encoded: bytes | memoryview) -> list[bytes]:
    """The series keys of an encoded batch; raises CorruptData for anything else."""
    try:
        return _keys_decoder.decode(encoded)
    except msgspec.MsgspecError as error:
        raise CorruptData(f"series keys of {len(encoded)} bytes cannot be decoded: {error}") from error


def _array_length(encoded: bytes | memoryview) -> int:
    """Entries of a MessagePack array, which is whole."""
    first = encoded[0]
    if first >> 4 == 0x9:
        return first & 0xF
    width = {0xDC: 2, 0xDD: 4}.get(first)
    if width is None:
        raise CorruptData("series keys of a batch are no list")
    return int.from_bytes(encoded[1 : 1 + width], "big")


def _decode(data: bytes | memoryview, keys: Callable[[str, memoryview], Sequence[bytes]]) -> Batch:
    try:
        wire = _decoder.decode(data)
        if wire.format not in (_FORMAT, _FORMAT_VERSIONS):
            raise CorruptData(
                f"batch has format {wire.format}; this version reads formats {_FORMAT} and {_FORMAT_VERSIONS}"
            )
        points = [_decode_points(item, keys(item.measurement, memoryview(item.series))) for item in wire.points]
        return Batch(wire.version, tuple(points))
    except (msgspec.MsgspecError, pa.ArrowException, OSError, KeyError, ValueError) as error:  # OSError: a cut stream
        raise CorruptData(f"batch of {len(data)} bytes cannot be decoded: {error}") from error


def _decode_points(item: _EncodedPoints, series: Sequence[bytes]) -> Points:
    columns, fields = _columns_of(item.table)
    index = columns["series"].astype(np.int32, copy=False)
    time_ns = columns["time"].astype(np.int64, copy=False)
    if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(series)):
        raise CorruptData(f"batch of measurement {item.measurement!r} names a series it does not hold")
    own = columns.get("version")
    versions = None if own is None else own.astype(np.int64, copy=False)
    return Points(item.measurement, series, index, time_ns, fields, versions)


def _columns_of(stream: bytes) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Column]]:
    """The columns that every batch has, and those of its fields."""
    layout = layout_of(stream)
    if layout is not None:
        rows = layout.rows
        columns = {one.name: one.values(stream, rows) for one in layout.places if not one.name.startswith(_FIELD)}
        fields = {
            one.name.removeprefix(_FIELD): Column(one.field_type(), one.values(stream, rows), one.valid(stream, rows))
            for one in layout.places
            if one.name.startswith(_FIELD)
        }
        return columns, fields
    with pa.ipc.open_stream(stream) as reader:
        table = reader.read_all()
    arrays = dict(zip(table.column_names, table.columns, strict=True))
    fields = {
        name.removeprefix(_FIELD): Column.from_arrow(array) for name, array in arrays.items() if name.startswith(_FIELD)
    }
    return {name: array.to_numpy() for name, array in arrays.items() if not name.startswith(_FIELD)}, fields
