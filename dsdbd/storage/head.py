"""Recent rows of one shard in memory, until they are on disk as segments.

Appending only keeps the columns of a batch. A reader, or the thread that writes out, seals what has come since: sorts
it into a block. Blocks of similar size are merged, so a row is sorted once and moved a few times, and a reader meets
few blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from dsdbd.model.columns import Int64s, Points
from dsdbd.model.types import FieldType
from dsdbd.storage.head_block import MemoryBlock, merge_blocks
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.rows import Rows, column_bytes, concat_rows

_ROW_BYTES = 24
"""Series number, time and version of one row that is not in a block yet."""
_PART_BYTES = 200
"""Objects around one part, besides its arrays."""
_COLUMN_BYTES = 300
"""Objects around one column of a part, besides its values: what one-row parts mostly consist of."""
_SMALL_ROWS = 256
"""Smaller parts are joined as soon as there are enough of them, because of the objects around each."""
_SMALL_PARTS = 64
_SEAL_ROWS = 65_536
"""Rows sorted at once; sorts of this size stay in the processor's cache."""
_FAN = 4
"""So many blocks of similar size are merged."""
_FIRST_TIER_ROWS = 1_024
READER_ROWS = 65_536
"""A reader, who waits for it, merges blocks up to this size or an eighth of the table."""
BACKGROUND_ROWS = 262_144
"""So much is merged while nobody waits."""
_MAX_SPARSE = 2
_SPARSE_ROWS = 4_096
"""A merge of more rows than this may at most double memory: rows with quite different fields stay apart."""


class HeadTable:
    """Rows of one measurement. ``add`` and ``snapshot`` need the shard's lock, ``seal`` must be called without it.

    ``rows``, ``min_ns``, ``max_ns``, ``oldest_version``, ``newest_version``: of all rows ever added. ``size_bytes``:
    memory now. ``sealing``: held while rows are sorted; taken before the shard's lock.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.oldest_version = (1 << 63) - 1
        self.newest_version = -(1 << 63)
        self.min_ns = (1 << 63) - 1
        self.max_ns = -(1 << 63)
        self.size_bytes = 0
        self._pending: list[tuple[Rows, int]] = []
        self._small = 0
        self._blocks: tuple[MemoryBlock, ...] = ()
        self.sealing = threading.Lock()

    def add(self, points: Points, version: int, index: SeriesIndex) -> None:
        """Append rows (at least one); new series enter the index. ``version``: of rows that have none of their own."""
        times = points.time_ns
        oldest = newest = version
        count = len(times)
        size_bytes = _PART_BYTES + count * _ROW_BYTES
        for column in points.fields.values():
            size_bytes += _COLUMN_BYTES + column_bytes(column)
        if count == 1:
            low = high = int(times[0])
            number = index.number(points.series[int(points.series_index[0])])
            versions = np.array((version,), np.int64) if points.versions is None else points.versions
            rows = Rows(np.array((number,), np.int64), times, versions, points.fields)
        else:
            low, high = int(times.min()), int(times.max())
            versions = np.full(count, version, dtype=np.int64) if points.versions is None else points.versions
            rows = Rows(index.numbers(points.series)[points.series_index], times, versions, points.fields)
        if points.versions is not None:
            oldest, newest = int(versions.min()), int(versions.max())
        self.rows += count
        self.oldest_version = min(self.oldest_version, oldest)
        self.newest_version = max(self.newest_version, newest)
        self.min_ns = min(self.min_ns, low)
        self.max_ns = max(self.max_ns, high)
        self._append(rows, size_bytes)

    def _append(self, rows: Rows, size_bytes: int) -> None:
        self._pending.append((rows, size_bytes))
        self.size_bytes += size_bytes
        if len(rows) >= _SMALL_ROWS:
            self._small = 0
            return
        self._small += 1
        if self._small >= _SMALL_PARTS:
            # The newest parts, all of them small, become one.
            small = self._pending[-_SMALL_PARTS:]
            del self._pending[-_SMALL_PARTS:]
            parts = [part for part, _ in small]
            joined = concat_rows(parts, types_of(parts))
            self.size_bytes -= sum(size for _, size in small)
            self._small = 0
            self._pending.append((joined, joined_bytes := part_bytes(joined)))
            self.size_bytes += joined_bytes

    def clear(self) -> None:
        """Forget all rows; needs ``sealing`` and the shard's lock. Who took blocks before keeps them."""
        self._pending.clear()
        self._blocks = ()
        self.size_bytes = 0

    def types(self) -> dict[str, FieldType]:
        """Fields of the rows; needs the shard's lock."""
        types = types_of([part for part, _ in self._pending])
        for block in self._blocks:
            types.update(block.fields)
        return types

    @property
    def unsealed(self) -> bool:
        """Whether rows were added since the last ``seal``."""
        return bool(self._pending)

    def snapshot(self) -> tuple[MemoryBlock, ...]:
        """The sealed rows, oldest first; all that were added before the last ``seal`` began are among them."""
        return self._blocks

    def seal(self, lock: AbstractContextManager[object], account: Callable[[int], None], large_rows: int) -> None:
        """Sort what has been added.

        ``lock``: the shard's. ``account`` is called under it with the bytes by which memory has changed. Blocks are
        merged to at most ``large_rows``.
        """
        with self.sealing:
            with lock:
                taken = list(self._pending)
                blocks = self._blocks
                # Parts that come from here on are joined with each other only, so those taken stay in front.
                self._small = 0
            if not taken:
                return
            merged = list(blocks)
            for rows in in_portions([part for part, _ in taken]):
                merged.append(MemoryBlock.sealed(rows))
                merge_newest(merged, large_rows)
            before = sum(size for _, size in taken) + sum(block.size_bytes for block in blocks)
            change = sum(block.size_bytes for block in merged) - before
            with lock:
                del self._pending[: len(taken)]
                self._blocks = tuple(merged)
                self.size_bytes += change
                account(change)


class Head:
    """Tables by measurement.

    ``oldest_wal``: number of the first log file that holds a record of this head; that file and all later ones must
    stay until the head is on disk. ``logged``: the position behind its last record; those of the shard before it are in
    this head or in what was written out before. ``since_s``: monotonic time of the first row. ``logged`` and ``tables``
    need the shard's lock.
    """

    def __init__(self, oldest_wal: int, since_s: float) -> None:
        self.oldest_wal = oldest_wal
        self.logged = (oldest_wal, 0)
        self.since_s = since_s
        self.tables: dict[str, HeadTable] = {}

    def add(self, points: Points, version: int, index: SeriesIndex) -> int:
        """Append rows as ``HeadTable.add`` does; returns by how many bytes memory has grown."""
        table = self.tables.get(points.measurement)
        if table is None:
            table = self.tables[points.measurement] = HeadTable()
        before = table.size_bytes
        table.add(points, version, index)
        return table.size_bytes - before

    @property
    def size_bytes(self) -> int:
        """Memory of all tables."""
        return sum(table.size_bytes for table in self.tables.values())


def part_bytes(rows: Rows) -> int:
    """Memory of rows that are not in a block."""
    columns = rows.fields.values()
    return _PART_BYTES + len(rows) * _ROW_BYTES + sum(_COLUMN_BYTES + column_bytes(column) for column in columns)


def types_of(parts: Sequence[Rows]) -> dict[str, FieldType]:
    """Fields of some parts; a shard's field has one type in memory."""
    types: dict[str, FieldType] = {}
    for part in parts:
        if part.fields.keys() != types.keys():
            types.update((key, column.type) for key, column in part.fields.items())
    return types


def in_portions(parts: Sequence[Rows]) -> list[Rows]:
    """Parts joined, in order, to about ``_SEAL_ROWS`` rows each."""
    portions: list[Rows] = []
    waiting: list[Rows] = []
    rows = 0
    for part in parts:
        waiting.append(part)
        rows += len(part)
        if rows >= _SEAL_ROWS:
            portions.append(concat_rows(waiting, types_of(waiting)))
            waiting, rows = [], 0
    if waiting:
        portions.append(concat_rows(waiting, types_of(waiting)))
    return portions


def merge_newest(blocks: list[MemoryBlock], large_rows: int) -> None:
    """Merge the newest blocks, in place, while there are enough of similar size."""
    while (start := mergeable([block.rows for block in blocks], large_rows)) is not None:
        chosen = blocks[start:]
        types: dict[str, FieldType] = {}
        for block in chosen:
            types.update(block.fields)
        rows = sum(block.rows for block in chosen)
        cells = sum(block.rows * len(block.fields) for block in chosen)
        if rows > _SPARSE_ROWS and rows * len(types) > _MAX_SPARSE * cells:
            return
        blocks[start:] = [MemoryBlock.of(merge_blocks(chosen, types))]


def mergeable(rows: Sequence[int], large_rows: int) -> int | None:
    """First of the newest blocks, oldest first, that should become one; None when there are not enough alike."""
    largest = max(large_rows, sum(rows) // 8)
    tier = _FIRST_TIER_ROWS
    while tier <= largest:
        start, total = len(rows), 0
        while start and rows[start - 1] <= tier and total + rows[start - 1] <= largest:
            start -= 1
            total += rows[start]
        if len(rows) - start >= _FAN:
            return start
        tier *= _FAN
    return None


def flushed(blocks: Sequence[MemoryBlock], types: Mapping[str, FieldType], ranks: Int64s) -> Rows:
    """The rows of a table as a segment holds them: sorted by rank of their series, with ranks for numbers."""
    held = {key for block in blocks for key in block.fields}
    return merge_blocks(blocks, {key: types[key] for key in types if key in held}, ranks)
