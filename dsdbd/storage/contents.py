"""What a shard holds of a measurement as replicas compare and exchange it: rows with their versions.

Of every (series, time, field) the value of the highest version, unless it is deleted; rows of different versions stay
apart, because a value of a version in between may still arrive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Bools, Int64s
from dsdbd.model.digest import UInt64s
from dsdbd.model.types import FieldType
from dsdbd.storage.block import Block
from dsdbd.storage.measurement import Measurement
from dsdbd.storage.rows import Rows, concat_rows, fold_for_storage, sort_rows
from dsdbd.storage.scanning import DamagedBlock, Limits, Scan
from dsdbd.storage.segment import Segment
from dsdbd.storage.selection import Part, choose, contested, contested_times, divide, series_groups
from dsdbd.storage.tombstones import Hidden, Tombstone, visible

_PIECE_CELLS = 2 << 20
"""Values, times and versions read at once, about; fewer rows of many fields."""
_PIECE_ROWS = 65_536
_TEXT_ROWS = 16_384
_LEAST_ROWS = 1_024


def limits_for(fields: int) -> Limits:
    """Sizes of the pieces in which rows of so many fields are read."""
    rows = max(_LEAST_ROWS, min(_PIECE_ROWS, _PIECE_CELLS // (fields + 3)))
    return Limits(rows, min(rows, _TEXT_ROWS), rows // 4)


class Stored(Scan):
    """All series of a measurement; a series' position is its number. Every method may raise DamagedBlock, OSError."""

    __slots__ = ()

    @property
    def piece_rows(self) -> int:
        """Rows that are read at once."""
        return self.limits.text_rows if FieldType.STRING in self.types.values() else self.limits.piece_rows

    def parts(self, chosen: Bools | None = None, sources: Sequence[int] | None = None) -> list[Part]:
        """Rows within the times, of series that are ``chosen`` by number, in some of the sources."""
        found = []
        for number in range(len(self.sources)) if sources is None else sources:
            part = choose(number, self.sources[number].lookup, self.wanted, self.min_ns, self.max_ns)
            if part is not None and chosen is not None:
                part = part.where(chosen[part.position])
            if part is not None and len(part):
                found.append(part)
        return self._narrow(found, self.min_ns, self.max_ns)

    def narrow(self, parts: Sequence[Part], low_ns: Int64s, high_ns: Int64s) -> list[Part]:
        """The rows within inclusive times that are given for each series."""
        return self._narrow(parts, low_ns, high_ns)

    def windows(self, parts: Sequence[Part]) -> Iterator[Sequence[Part]]:
        """Parts in groups that share no series and time, each small enough to be read at once."""
        for group in series_groups([part for part in parts if len(part)], len(self.series), self.piece_rows):
            yield from self._windows(group, self.piece_rows)

    def overlapping(self) -> list[Part]:
        """The rows that may have their like, or one of another version, in another block."""
        parts = self.parts()
        if len(parts) < 2:
            return []
        low, high = contested_times(parts, len(self.series))
        mixed = low <= high
        if not mixed.any():
            return []
        return self._narrow([part.where(mixed[part.position]) for part in parts], low, high)

    def stored(self, chosen: Bools | None = None, sources: Sequence[int] | None = None) -> Iterator[Rows]:
        """All rows of series that are ``chosen`` by number, of some of the sources, in pieces; each value once."""
        parts = self.parts(chosen, sources)
        compare = contested(parts, len(self.series))
        if compare is not None:
            for window in self.windows([part.where(compare[part.position]) for part in parts]):
                yield self.folded([self.rows_of(part) for part in window])
            parts = [part for part in (one.where(~compare[one.position]) for one in parts) if len(part)]
        for part in parts:
            for portion in self.portions(part):
                yield self.rows_of(portion)

    def portions(self, part: Part) -> list[Part]:
        """A part in pieces that are read at once."""
        return divide(part, self.piece_rows, self.sources[part.source].block.portions)

    def folded(self, rows: Sequence[Rows]) -> Rows:
        """Rows of several blocks, oldest first, as one block would hold them."""
        present = {key for one in rows for key in one.fields}
        types = {key: self.types[key] for key in self.types if key in present}
        return fold_for_storage(sort_rows(concat_rows(rows, types)))

    def rows_of(self, part: Part) -> Rows:
        """The rows of a part that are not deleted."""
        versions = self._versions(part)
        times, columns = self._columns(part)
        return visible(self.hidden, Rows(np.repeat(part.position, part.stops - part.starts), times, versions, columns))

    def rows_of_block(self, number: int) -> Iterator[Rows]:
        """All rows of a source that are not deleted; those of a file are read past the cache of columns."""
        block = self.sources[number].block
        if not isinstance(block, Segment):
            for part in self.parts(None, [number]):
                for portion in self.portions(part):
                    yield self.rows_of(portion)
            return
        series = block.runs().series
        for group in range(block.row_groups):
            try:
                rows = block.read_group(group, series)
            except CorruptData as error:
                raise DamagedBlock(error.message, block) from error
            fields = {key: column for key, column in rows.fields.items() if self.types.get(key) is column.type}
            yield visible(self.hidden, Rows(rows.series, rows.time_ns, rows.version, fields))


@dataclass(frozen=True, slots=True)
class Held:
    """A measurement at one time.

    ``changed``: the shard's count of changes then, or an earlier one. ``tombstones``: those of the measurement.
    """

    known: Measurement
    changed: int
    stored: Stored
    tombstones: tuple[Tombstone, ...]

    def with_hidden(self) -> Held:
        """The same with the series that deletions hide something of."""
        stored, index = self.stored, self.known.index
        hidden = []
        for one in self.tombstones:
            if one.max_ns >= stored.min_ns and one.min_ns <= stored.max_ns:
                series: Bools = np.ones(len(stored.series), dtype=np.bool_)
                if one.predicate is not None:
                    numbers = index.select(one.predicate)
                    series[:] = False
                    # Series that came after what is held have nothing in it.
                    series[numbers[numbers < len(series)]] = True
                if series.any():
                    hidden.append(Hidden(series, one.min_ns, one.max_ns, one.version))
        return replace(self, stored=replace(stored, hidden=hidden)) if hidden else self

    def from_version(self, since: int) -> list[int]:
        """The sources that may hold a row of that version or a newer one. Raises DamagedBlock, OSError."""
        sources = self.stored.sources
        return [number for number, source in enumerate(sources) if newest_version(source.block) >= since]

    def hashes(self) -> UInt64s:
        """Of every series, by number."""
        return self.known.series_hashes(len(self.stored.series))


def newest_version(block: Block) -> int:
    """Greatest version of a row of a block, or greater. Raises DamagedBlock, OSError."""
    if not isinstance(block, Segment):
        versions = block.versions(np.zeros(1, dtype=np.int64), np.array([block.rows], dtype=np.int64))
        return int(versions.max())
    try:
        return block.newest_version()
    except CorruptData as error:
        raise DamagedBlock(error.message, block) from error
