"""Digests of sets of values, by which two replicas find out whether and where they differ. Pure, vectorised.

A value is (series, time, field, version, value). Its hash is 64 bits, and that of a set the sum of its values' hashes
modulo 2**64: it depends neither on the order of rows nor on how they are spread over files, and sums of parts add up.
All is built from the finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
2014). It tells differences that happen from equality; it is no defence against values made to collide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dsdbd.model.columns import Column, Int64s
from dsdbd.model.types import FieldType

UInt64s: TypeAlias = npt.NDArray[np.uint64]

DIGEST_FORMAT = 1
"""Nodes compare digests of one format only."""
TIME_RANGES = 32
"""Equal parts of the times of a shard group; times outside belong to the first or last one."""
SERIES_BUCKETS = 32
"""Parts of the series of a measurement, by the upper five bits of their hashes."""
CELLS = TIME_RANGES * SERIES_BUCKETS
"""A cell is time range * SERIES_BUCKETS + series bucket."""

_BUCKET_SHIFT = np.uint64(59)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BY_VERSION = np.uint64(0xD1B54A32D192ED03)
_STEP_ROWS = 65_536
"""Rows hashed at once: they stay in the processor's cache, and nothing takes longer than a millisecond.

Fewer are no quicker, and a thread asks for the interpreter after each step on a column, which takes long while others
are busy.
"""
_STEP_BYTES = 256 << 10
"""The same for text."""
_TYPES = {
    FieldType.FLOAT: np.uint64(0x1000),
    FieldType.INTEGER: np.uint64(0x2000),
    FieldType.STRING: np.uint64(0x3000),
    FieldType.BOOLEAN: np.uint64(0x4000),
}
_LAST_BYTES = np.array([(1 << (8 * count)) - 1 for count in range(9)], dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Grid:
    """The values of one measurement in one shard, by cell.

    ``places``: uint16[k], the cells in which there is something, ascending. ``sums``: uint64[k], of each of them.
    ``total``: all of them, folded in with the measurement's name.
    """

    places: npt.NDArray[np.uint16]
    sums: UInt64s
    total: int

    @staticmethod
    def of(measurement: str, cells: UInt64s) -> Grid:
        """The grid of uint64[CELLS]."""
        places = np.flatnonzero(cells).astype(np.uint16)
        return Grid(places, cells[places], total_of(measurement, cells))

    @property
    def cells(self) -> UInt64s:
        """uint64[CELLS], made anew."""
        found: UInt64s = np.zeros(CELLS, dtype=np.uint64)
        found[self.places] = self.sums
        return found


def total_of(measurement: str, cells: UInt64s) -> int:
    """One number for all cells of a measurement; such numbers of several measurements may be added up."""
    whole = np.add.reduce(cells, keepdims=True) + text_hashes(pa.array([measurement.encode()], pa.binary()))
    return int(_mix(whole)[0])


def _mix(values: UInt64s) -> UInt64s:
    """Scramble, in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


# --- texts


def series_hashes(keys: Sequence[bytes] | Any) -> UInt64s:
    """uint64[n] of canonical series keys, given as bytes or as an Arrow array of strings or binaries."""
    return text_hashes(keys if isinstance(keys, pa.Array) else pa.array(keys, pa.large_binary()))


def text_hashes(texts: Any) -> UInt64s:
    """uint64[n] of an Arrow array of (large) strings or binaries; of entries that are null it means nothing."""
    large = pa.types.is_large_string(texts.type) or pa.types.is_large_binary(texts.type)
    _, offsets, data = texts.buffers()
    count = len(texts)
    found: UInt64s = np.zeros(count, dtype=np.uint64)
    if not count:
        return found
    every = np.frombuffer(offsets, np.int64 if large else np.int32)
    bounds = every[texts.offset : texts.offset + count + 1].astype(np.int64)
    letters = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    for start, stop in _text_steps(bounds):
        found[start:stop] = _hash_texts(bounds[start : stop + 1], letters)
    return found


def _text_steps(bounds: Int64s) -> Iterator[tuple[int, int]]:
    start, count = 0, len(bounds) - 1
    while start < count:
        fitting = int(np.searchsorted(bounds, bounds[start] + _STEP_BYTES, side="right")) - 1
        stop = min(max(fitting, start + 1), start + _STEP_ROWS, count)
        yield start, stop
        start = stop


def _hash_texts(bounds: Int64s, letters: npt.NDArray[np.uint8]) -> UInt64s:
    """Texts one after another in ``letters``: eight bytes at a time, each with its place in the text."""
    low, high = int(bounds[0]), int(bounds[-1])
    padded = np.zeros(high - low + 8, dtype=np.uint8)
    padded[: high - low] = letters[low:high]
    # A word may begin at any byte.
    words_at: UInt64s = np.ndarray((high - low + 1,), "<u8", padded, strides=(1,))
    lengths = np.diff(bounds)
    counts = (lengths + 7) >> 3
    ends = np.cumsum(counts)
    place = np.arange(int(ends[-1]), dtype=np.int64) - np.repeat(ends - counts, counts)
    text = np.repeat(np.arange(len(lengths)), counts)
    words = words_at[(bounds[:-1] - low)[text] + 8 * place]
    words &= _LAST_BYTES[np.minimum(lengths[text] - 8 * place, 8)]
    words += (place + 1).astype(np.uint64) * _GOLDEN
    _mix(words)
    found = lengths.astype(np.uint64) * _GOLDEN
    filled = np.flatnonzero(counts)
    if len(filled):
        found[filled] += np.add.reduceat(words, (ends - counts)[filled])
    return _mix(found)


# --- rows


def value_hashes(field: str, column: Column) -> UInt64s:
    """uint64[n] of field, type and value, floats by their bits; of rows without a value it means nothing."""
    if column.type is FieldType.STRING:
        values = column.values
        found = text_hashes(values.cast(pa.string()) if pa.types.is_dictionary(values.type) else values)
    elif column.type is FieldType.BOOLEAN:
        found = column.values.astype(np.uint64)
    else:
        found = np.array(column.values).view(np.uint64)
    found += _seed(field, column.type)
    return _mix(found)


@lru_cache(4_096)
def _seed(field: str, kind: FieldType) -> UInt64s:
    """uint64[1]: what tells the values of one field from those of others."""
    return text_hashes(pa.array([field.encode()], pa.binary())) + _TYPES[kind]


def row_sums(series: UInt64s, time_ns: Int64s, versions: Int64s, fields: Mapping[str, Column]) -> UInt64s:
    """uint64[n]: for each row the sum of the hashes of its values; ``series``: the hash of each row's series."""
    sums: UInt64s = np.zeros(len(time_ns), dtype=np.uint64)
    for start in range(0, len(time_ns), _STEP_ROWS):
        rows = slice(start, start + _STEP_ROWS)
        key = _mix(series[rows] + time_ns[rows].view(np.uint64) * _GOLDEN)
        key += versions[rows].view(np.uint64) * _BY_VERSION
        _mix(key)
        for name, column in fields.items():
            hashes = value_hashes(name, _some(column, rows))
            hashes += key
            _mix(hashes)
            if column.valid is not None:
                hashes *= column.valid[rows]
            sums[rows] += hashes
    return sums


def _some(column: Column, rows: slice) -> Column:
    """Rows of a column, a view; which of them are valid does not matter here."""
    if column.type is FieldType.STRING:
        return Column(column.type, column.values.slice(rows.start, rows.stop - rows.start))
    return Column(column.type, column.values[rows])


# --- cells


@dataclass(frozen=True, slots=True)
class TimeRanges:
    """The times of a shard group, ``start_ns`` to ``end_ns`` (exclusive), in TIME_RANGES equal parts."""

    start_ns: int
    end_ns: int

    @property
    def _width_ns(self) -> int:
        return max(1, -(-(self.end_ns - self.start_ns) // TIME_RANGES))

    def cells(self, series: UInt64s, time_ns: Int64s) -> npt.NDArray[np.intp]:
        """intp[n]: the cell of each row; ``series``: the hash of each row's series."""
        inside = np.clip(time_ns, self.start_ns, self.end_ns - 1)
        # Differences of 64 bits without an overflow.
        parts = (inside.view(np.uint64) - np.int64(self.start_ns).view(np.uint64)) // np.uint64(self._width_ns)
        return (parts * np.uint64(SERIES_BUCKETS) + (series >> _BUCKET_SHIFT)).astype(np.intp)

    def span_ns(self, cell: int) -> tuple[int, int]:
        """Inclusive times of a cell's rows; the first and the last reach to the end of all times."""
        part = cell // SERIES_BUCKETS
        low = self.start_ns + part * self._width_ns
        high = low + self._width_ns - 1
        return (-(1 << 63) if part == 0 else low), ((1 << 63) - 1 if high >= self.end_ns - 1 else high)


def buckets(series: UInt64s) -> npt.NDArray[np.intp]:
    """intp[n]: the bucket of each series, by its hash."""
    return (series >> _BUCKET_SHIFT).astype(np.intp)


def add_to_cells(cells: UInt64s, places: npt.NDArray[np.intp], sums: UInt64s) -> None:
    """Add the sum of each row to the cell of its place, in place."""
    if not len(places):
        return
    starts = np.concatenate([np.zeros(1, dtype=np.intp), np.flatnonzero(places[1:] != places[:-1]) + 1])
    np.add.at(cells, places[starts], np.add.reduceat(sums, starts))
