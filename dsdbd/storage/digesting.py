"""Digests of what a shard holds of a measurement: sums over its blocks, less what several blocks have of the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dsdbd.model.columns import Int64s
from dsdbd.model.digest import CELLS, Grid, TimeRanges, UInt64s, add_to_cells, row_sums
from dsdbd.model.types import FieldType
from dsdbd.storage.block import Block
from dsdbd.storage.contents import Held, newest_version
from dsdbd.storage.file_sums import BlockSums, digest_of_file, sums_of_parts
from dsdbd.storage.measurement import Measurement, WholeDigest
from dsdbd.storage.rows import Rows
from dsdbd.storage.segment import Segment


class Digester:
    """Adds up rows of one measurement. ``below``: only rows of lower versions count, None: all."""

    def __init__(self, hashes: UInt64s, ranges: TimeRanges, below: int | None) -> None:
        self._hashes = hashes
        self._ranges = ranges
        self._below = below

    def sums(self, pieces: Iterable[Rows]) -> UInt64s:
        """uint64[CELLS] of rows that hold each value once."""
        cells: UInt64s = np.zeros(CELLS, dtype=np.uint64)
        for rows in pieces:
            series = self._hashes[rows.series]
            sums = row_sums(series, rows.time_ns, rows.version, rows.fields)
            if self._below is not None:
                sums *= rows.version < self._below
            add_to_cells(cells, self._ranges.cells(series, rows.time_ns), sums)
        return cells


def digest(held: Held, ranges: TimeRanges, below: int | None) -> Grid | None:
    """The grid of the rows within the times of what is held, None without any.

    What is found of blocks by themselves, and of all, is remembered with the measurement. Raises DamagedBlock, OSError.
    """
    stored, name = held.stored, held.stored.series.measurement
    hashes = held.hashes()
    held.known.ranges = ranges
    cells: UInt64s = np.zeros(CELLS, dtype=np.uint64)
    newest, low, high = -(1 << 63), (1 << 63) - 1, -(1 << 63)
    left_out = False
    some = Digester(hashes, ranges, below)
    for number, source in enumerate(stored.sources):
        lookup = source.lookup
        if lookup.max_ns < stored.min_ns or lookup.min_ns > stored.max_ns:
            left_out = True
            continue
        block_newest = newest_version(source.block)
        newest, low, high = max(newest, block_newest), min(low, lookup.min_ns), max(high, lookup.max_ns)
        left_out |= lookup.min_ns < stored.min_ns or lookup.max_ns > stored.max_ns
        inside = lookup.min_ns >= stored.min_ns and lookup.max_ns <= stored.max_ns
        if inside and (below is None or block_newest < below):
            cells += _of_block(held, number, hashes, ranges)
        else:
            portions = (one for part in stored.parts(None, [number]) for one in stored.portions(part))
            cells += some.sums(map(stored.rows_of, portions))
    for window in stored.windows(stored.overlapping()):
        # As often as blocks have a value it was counted; it counts once, and only that of the highest version.
        each = [stored.rows_of(part) for part in window]
        cells -= some.sums(each)
        if below is not None:
            each = [rows.take(np.flatnonzero(rows.version < below)) for rows in each]
        cells += some.sums([stored.folded(each)])
    grid = Grid.of(name, cells) if cells.any() else None
    if not left_out and (below is None or newest < below):
        held.known.whole = WholeDigest(held.changed, ranges, newest, low, high, grid)
    return grid


def digest_since(held: Held, ranges: TimeRanges, since: int, coordinator: int) -> Grid | None:
    """The grid of the rows within the times of versions from ``since`` on, as ``Rows.since``; None without any.

    Blocks of older rows are not read. Raises DamagedBlock, OSError.
    """
    found = (rows.since(since, coordinator) for rows in held.stored.stored(None, held.from_version(since)))
    cells = Digester(held.hashes(), ranges, None).sums(found)
    return Grid.of(held.stored.series.measurement, cells) if cells.any() else None


def _of_block(held: Held, number: int, hashes: UInt64s, ranges: TimeRanges) -> UInt64s:
    """All rows of a block by itself."""
    source = held.stored.sources[number]
    hiding = tuple(
        (one.predicate, one.min_ns, one.max_ns, one.version)
        for one in held.tombstones
        if one.min_ns <= source.lookup.max_ns and one.max_ns >= source.lookup.min_ns
    )
    made_of = ranges, hiding
    found = held.known.sums.get(source.block)
    if found is not None and found.made_of == made_of:
        return found.grid.cells
    # Bytes first: what is damaged in between shows when the rows are read.
    file_digest = b"" if hiding else _file_digest(source.block, held.stored.types)
    cells = Digester(hashes, ranges, None).sums(held.stored.rows_of_block(number))
    held.known.sums[source.block] = BlockSums(made_of, Grid.of(held.stored.series.measurement, cells), file_digest)
    return cells


def _file_digest(block: Block, types: Mapping[str, FieldType]) -> bytes:
    """Of a file of which all fields count; empty without."""
    if not isinstance(block, Segment) or any(types.get(key) is not kind for key, kind in block.fields.items()):
        return b""
    return digest_of_file(block.path)


def sums_of_written(
    known: Measurement, blocks: Sequence[Block], segment: Segment, numbers: Int64s, rows: Rows
) -> BlockSums | None:
    """Those of a file that was written just now of some blocks; None where nobody compares this measurement.

    Made of those of the blocks, or of the rows at hand: the file need not be read and decoded once more.
    ``numbers``: of the series that ``rows.series`` counts.
    """
    ranges = known.ranges
    if ranges is None or not known.all_of_it_counts(segment, ()):
        return None
    sums = sums_of_parts(known, blocks, segment)
    if sums is not None:
        return sums._replace(file_digest=digest_of_file(segment.path))
    hashes = known.series_hashes(int(numbers.max()) + 1)[numbers]
    cells = Digester(hashes, ranges, None).sums([rows])
    return BlockSums((ranges, ()), Grid.of(segment.measurement, cells), digest_of_file(segment.path))
