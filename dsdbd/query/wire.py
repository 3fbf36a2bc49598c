"""Tables and states as bytes: MessagePack around Arrow IPC streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from dsdbd.decoding import msgpack_decoder
from dsdbd.errors import CorruptData
from dsdbd.model.columns import Column
from dsdbd.model.types import FieldType
from dsdbd.query.groups import GroupSet
from dsdbd.query.states import States
from dsdbd.query.table import Table


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """``groups``: codes of measurement and tags; ``texts``: one stream for the measurements and one for each tag."""

    groups: bytes
    texts: list[bytes]
    members: bytes
    rows: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgpack_decoder(tuple[_Wire | None, list[_Wire | None]])


def encode_parts(states: States | None, tables: Sequence[Table | None]) -> bytes:
    """The bytes of some states and tables."""
    first = None if states is None else _wire(states, b"", {"group": states.group, "bucket": states.bucket})
    rest = [None if table is None else _table_wire(table) for table in tables]
    return _encoder.encode((first, rest))


def decode_parts(data: bytes) -> tuple[States | None, list[Table | None]]:
    """The states and tables of ``encode_parts``; raises CorruptData for anything else."""
    try:
        first, rest = _decoder.decode(data)
        states = None if first is None else _states(first)
        return states, [None if wire is None else _table(wire) for wire in rest]
    except (msgspec.MsgspecError, UnicodeDecodeError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise CorruptData(f"partial query result of {len(data)} bytes cannot be decoded: {error}") from error


def _table_wire(table: Table) -> _Wire:
    keys = {"group": table.group, "bucket": table.bucket, "time": table.time, "member": table.member}
    return _wire(table, _stream({"": table.members}), keys)


def _wire(part: Table | States, members: bytes, keys: Mapping[str, Any]) -> _Wire:
    groups = part.groups
    codes = {str(number): codes for number, codes in enumerate((groups.name_codes, *groups.codes))}
    texts = [_stream({"": texts}) for texts in (groups.names, *groups.texts)]
    rows: dict[str, Any] = dict(keys)
    for name, column in part.columns.items():
        coded = column.type is FieldType.STRING and pa.types.is_dictionary(column.values.type)
        rows["c:" + name] = column.values if coded else column.to_arrow()
    return _Wire(_stream(codes), texts, members, _stream(rows))


def _stream(columns: Mapping[str, Any]) -> bytes:
    arrays = [pa.array(column) if isinstance(column, np.ndarray) else column for column in columns.values()]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def _columns(data: bytes) -> dict[str, Any]:
    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all()
    table.validate(full=True)
    found = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        found[name] = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return found


def _groups(wire: _Wire) -> GroupSet:
    texts = [_columns(data)[""] for data in wire.texts]
    if any(not pa.types.is_string(one.type) or one.null_count for one in texts):
        raise CorruptData("a partial query result has groups that are not named by texts")
    codes = _columns(wire.groups)
    found = [_places(codes[str(number)], len(one)) for number, one in enumerate(texts)]
    return GroupSet(texts[0], found[0], tuple(texts[1:]), tuple(found[1:]))


def _places(array: Any, size: int) -> Any:
    """Positions in something of this size."""
    places = array.to_numpy()
    if places.dtype != np.int32 or (len(places) and (int(places.min()) < 0 or int(places.max()) >= size)):
        raise CorruptData("a partial query result names a group or series it does not hold")
    return places


def _numbers(array: Any) -> Any:
    numbers = array.to_numpy()
    if numbers.dtype != np.int64:
        raise CorruptData("a partial query result has times that are none")
    return numbers


def _row_columns(arrays: Mapping[str, Any]) -> dict[str, Column]:
    return {name.removeprefix("c:"): _column(array) for name, array in arrays.items() if name.startswith("c:")}


def _column(array: Any) -> Column:
    if not pa.types.is_dictionary(array.type):
        return Column.from_arrow(array)
    if array.type.index_type != pa.int32() or array.type.value_type != pa.string():
        raise CorruptData("a partial query result has strings that are none")
    return Column(FieldType.STRING, array, None if array.null_count == 0 else np.asarray(array.is_valid()))


def _states(wire: _Wire) -> States:
    groups, arrays = _groups(wire), _columns(wire.rows)
    group = _places(arrays["group"], len(groups))
    return States(groups, group, _numbers(arrays["bucket"]), _row_columns(arrays))


def _table(wire: _Wire) -> Table:
    groups, arrays = _groups(wire), _columns(wire.rows)
    members = _columns(wire.members)[""]
    if not pa.types.is_binary(members.type) or members.null_count:
        raise CorruptData("a partial query result has series without keys")
    group = _places(arrays["group"], len(groups))
    member = _places(arrays["member"], len(members))
    bucket, time = _numbers(arrays["bucket"]), _numbers(arrays["time"])
    return Table(groups, members, group, bucket, time, member, _row_columns(arrays))
