"""What shards contribute to a SHOW statement, as Arrow columns: united near the data, and again where it arrived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.decoding import decode_msgpack
from dsdbd.errors import CorruptData
from dsdbd.model.scan import SeriesSet, TagColumn
from dsdbd.model.texts import Texts
from dsdbd.storage.index import SeriesIndex

_LISTED = 256
"""Up to this many texts travel as a list, more as a compressed Arrow stream."""
_BATCH = 1 << 16
_Packed: TypeAlias = list[str] | bytes


class FoundTexts:
    """Texts by measurement and group, each once; a measurement may be known without any group.

    Groups are tag keys (of values), field keys (of types), or one empty name for keys of series or tags.
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[str, list[Any]]] = {}

    def add(self, name: str, groups: Mapping[str, Any]) -> None:
        """Add distinct texts, Arrow ``large_string`` arrays, to the groups of a measurement."""
        found = self._found.setdefault(name, {})
        for group, texts in groups.items():
            found.setdefault(group, []).append(texts)

    def names(self) -> list[str]:
        """Measurements, sorted."""
        return sorted(self._found)

    def groups(self, name: str) -> list[str]:
        """Groups of a measurement, sorted."""
        return sorted(self._found[name])

    def listed(self, name: str) -> dict[str, list[str]]:
        """All groups of a measurement with their texts, for few of them."""
        return {group: self.texts(name, group).to_pylist() for group in self.groups(name)}

    def texts(self, name: str, group: str) -> Any:
        """Distinct texts of a group in no particular order."""
        parts = self._found[name][group]
        if len(parts) > 1:
            self._found[name][group] = parts = [pc.unique(pa.concat_arrays(parts))]
        return parts[0]

    def encode(self, keep: int = 0) -> bytes:
        """The bytes (MessagePack); of each measurement only the first ``keep`` by group and text, 0 for all."""
        content: dict[str, dict[str, _Packed]] = {}
        for name in self.names():
            content[name] = {}
            left = keep
            for group in self.groups(name):
                texts = self.texts(name, group)
                if keep:
                    texts = sorted_texts(texts)[:left] if len(texts) > left else texts
                    left -= len(texts)
                if len(texts):
                    content[name][group] = _pack(texts)
        return msgspec.msgpack.encode(content)

    @staticmethod
    def decode(parts: Iterable[bytes]) -> FoundTexts:
        """What several parts hold together; raises CorruptData for bytes of another kind."""
        found = FoundTexts()
        for part in parts:
            content = _decoded(part, dict[str, dict[str, _Packed]])
            for name, groups in content.items():
                found.add(name, {group: _unpack(packed, pa.large_string()) for group, packed in groups.items()})
        return found


class FoundSeries:
    """Series by measurement, counted by their tags: their keys are neither built nor sent."""

    def __init__(self) -> None:
        self._sets: dict[str, SeriesSet] = {}
        self._united: dict[str, SeriesIndex] = {}

    def add(self, name: str, series: SeriesSet) -> None:
        """Add distinct series of a measurement."""
        first = self._sets.get(name)
        if first is None:
            self._sets[name] = series
            return
        index = self._united.get(name)
        if index is None:
            index = self._united[name] = SeriesIndex()
            _unite(index, first)
        _unite(index, series)
        self._sets[name] = index.subset(name, np.arange(len(index), dtype=np.int64))

    def counts(self) -> dict[str, int]:
        """Series of each measurement."""
        return {name: len(series) for name, series in sorted(self._sets.items())}

    def sets(self) -> dict[str, SeriesSet]:
        """The series of each measurement."""
        return dict(sorted(self._sets.items()))

    def encode(self) -> bytes:
        """The bytes (MessagePack around Arrow streams)."""
        content: dict[str, tuple[int, dict[str, tuple[_Packed, bytes]]]] = {}
        for name, series in self._sets.items():
            tags = {}
            for key, column in series.tags.items():
                if bool((column.codes >= 0).any()):
                    tags[key] = (_pack(Texts.of(column.values).array), _stream(pa.array(column.codes)))
            content[name] = (len(series), tags)
        return msgspec.msgpack.encode(content)

    @staticmethod
    def decode(parts: Iterable[bytes]) -> FoundSeries:
        """What several parts hold together; raises CorruptData for bytes of another kind."""
        found = FoundSeries()
        for part in parts:
            content = _decoded(part, dict[str, tuple[int, dict[str, tuple[_Packed, bytes]]]])
            for name, (count, packed) in content.items():
                tags = {}
                for key, (values, codes) in packed.items():
                    texts = Texts(_unpack(values, pa.large_string()))
                    tags[key] = TagColumn(_unpack(codes, pa.int32()).to_numpy(), texts)
                    _check_codes(tags[key], count)
                if not tags and count > 1:
                    raise CorruptData(f"partial answer has {count} series without any tag; there can be one")
                found.add(name, SeriesSet(name, (), np.arange(count, dtype=np.int64), tags))
        return found


def sorted_texts(texts: Any) -> Any:
    """The same texts in ascending order of their bytes."""
    return texts.take(pc.sort_indices(texts))


def _unite(index: SeriesIndex, series: SeriesSet) -> None:
    if len(series):
        index.numbers_of_columns(series.measurement, series.tags)


def _check_codes(column: TagColumn, count: int) -> None:
    codes = column.codes
    if len(codes) != count or (count and not -1 <= int(codes.min()) <= int(codes.max()) < len(column.values)):
        raise CorruptData("partial answer contradicts itself: codes of tags and their values do not belong together")


def _pack(texts: Any) -> _Packed:
    if len(texts) <= _LISTED:
        listed: list[str] = texts.to_pylist()
        return listed
    return _stream(texts)


def _stream(array: Any) -> bytes:
    sink = pa.BufferOutputStream()
    schema = pa.schema([("v", array.type)])
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)) as out:
        for start in range(0, len(array), _BATCH):
            out.write_batch(pa.RecordBatch.from_arrays([array[start : start + _BATCH]], schema=schema))
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def _unpack(packed: _Packed, expected: Any) -> Any:
    if isinstance(packed, list):
        return pa.array(packed, expected)
    try:
        with pa.ipc.open_stream(packed) as reader:
            column = reader.read_all().column("v")
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], expected)
        array.validate(full=True)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise CorruptData(f"partial answer of {len(packed)} bytes cannot be decoded: {error}") from error
    if array.type != expected or array.null_count:
        raise CorruptData(f"partial answer holds {array.type} where {expected} belongs")
    return array


def _decoded(part: bytes, kind: Any) -> Any:
    try:
        return decode_msgpack(part, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"partial answer of {len(part)} bytes cannot be decoded: {error}") from error
