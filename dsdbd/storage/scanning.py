"""From sorted blocks to pieces of rows, each series and time once.

Rows of a series that only one block has at those times are handed out as they lie there. Only series that several
blocks have at overlapping times, or one block in several versions, are merged row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Bools, Column, Int64s
from dsdbd.model.scan import Edge, Piece, SeriesSet
from dsdbd.model.types import FieldType
from dsdbd.storage.block import Block
from dsdbd.storage.inline import spend
from dsdbd.storage.ranges import coalesce, first_at_least, gather
from dsdbd.storage.rows import Rows, concat_field, concat_rows, sort_rows, unite_versions
from dsdbd.storage.selection import (
    MAX_NS,
    Part,
    RunLookup,
    Wanted,
    choose,
    contested,
    divide,
    in_series_order,
    in_time_order,
    series_groups,
)
from dsdbd.storage.tombstones import Hidden, visible

PIECE_ROWS = 262_144


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of pieces, which bound the memory of a scan whatever its range; a few pieces are held at a time.

    ``piece_rows``: rows of a piece. ``text_rows``: the same with string fields, which may be long. ``join_rows``: fewer
    rows of a block are joined with those of other blocks, because every piece has a cost of its own. ``few_runs``: so
    few runs of a block are looked at one by one, more all together.
    """

    piece_rows: int = PIECE_ROWS
    text_rows: int = 32_768
    join_rows: int = 16_384
    few_runs: int = 32


_ONE: Int64s = np.zeros(1, dtype=np.int64)
_TIMES_SHARE = 8
"""Looking for a time in a row costs about this part of reading a value."""
_EDGE_GROWTH = 16
_EDGE_ROUNDS = 3
"""A hint that proves too narrow (fields without values, rows overwritten) is widened so often, then ignored."""


class DamagedBlock(CorruptData):
    """CorruptData that knows the block it was found in."""

    def __init__(self, message: str, block: Block) -> None:
        super().__init__(message)
        self.block = block


@dataclass(frozen=True, slots=True)
class Source:
    """A block with its runs by series."""

    block: Block
    lookup: RunLookup


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan. ``sources``: oldest first. ``types``: the wanted fields.

    ``only_with_values``: leave out rows without a value in any of ``types``.
    """

    series: SeriesSet
    wanted: Wanted
    sources: Sequence[Source]
    types: Mapping[str, FieldType]
    only_with_values: bool
    min_ns: int
    max_ns: int
    edge: Edge | None = None
    hidden: Sequence[Hidden] = ()
    limits: Limits = Limits()

    def pieces(self) -> Iterator[Piece]:
        """All rows; raises DamagedBlock, OSError."""
        parts = []
        for number, source in enumerate(self.sources):
            if self.only_with_values and not self._fields_of(source.block):
                continue
            part = choose(number, source.lookup, self.wanted, self.min_ns, self.max_ns)
            if part is not None:
                parts.append(part)
        # Of runs that are cut the times are searched, of the rest all columns are read.
        spend(sum(part.rows() for part in parts) // _TIMES_SHARE)
        if source_bounds_exceeded(self, parts):
            parts = self._narrow(parts, self.min_ns, self.max_ns)
        spend(sum(part.rows() for part in parts) * (1 + len(self.types)))
        if self.edge is None:
            yield from self._read_all(parts)
        else:
            yield from self._read_edge(parts, self.edge)

    # --- which rows

    def _fields_of(self, block: Block) -> list[str]:
        return [key for key, field_type in self.types.items() if block.fields.get(key) is field_type]

    def _narrow(self, parts: Sequence[Part], low: int | Int64s, high: int | Int64s) -> list[Part]:
        """The rows within inclusive times, which are given for all or by position."""
        narrowed = []
        for part in parts:
            result: Part | None
            if len(part) == 1:
                at = int(part.position[0])
                start = low if isinstance(low, int) else int(low[at])
                result = self._narrow_run(part, start, high if isinstance(high, int) else int(high[at]))
            else:
                lows = np.full(len(part), low, dtype=np.int64) if isinstance(low, int) else low[part.position]
                highs = np.full(len(part), high, dtype=np.int64) if isinstance(high, int) else high[part.position]
                few = len(part) <= self.limits.few_runs
                result = self._narrow_few(part, lows, highs) if few else self._narrow_part(part, lows, highs)
            if result is not None and len(result):
                narrowed.append(result)
        return narrowed

    def _narrow_run(self, part: Part, low: int, high: int) -> Part | None:
        """The same as ``_narrow_part`` for a part of one run, which most queries have."""
        first, last = int(part.first_ns[0]), int(part.last_ns[0])
        if first > high or last < low:
            return None
        if first >= low and last <= high:
            return part
        start = int(part.starts[0])
        times = self._times(part.source, part.starts, part.stops) if part.times is None else part.times
        bounds = (
            start + (int(times.searchsorted(low)) if first < low else 0),
            start + (int(times.searchsorted(high, side="right")) if last > high else len(times)),
            max(first, low),
            min(last, high),
        )
        if bounds[0] >= bounds[1]:
            return None
        starts, stops, firsts, lasts = np.array(bounds, dtype=np.int64).reshape(4, 1)
        read = times[bounds[0] - start : bounds[1] - start]
        return Part(part.source, part.position, starts, stops, firsts, lasts, read)

    def _narrow_few(self, part: Part, low: Int64s, high: Int64s) -> Part:
        """The same as ``_narrow_part`` run by run; of so few it costs less than looking at all together."""
        kept: list[int] = []
        bounds: list[tuple[int, int, int, int]] = []
        read: list[Int64s] = []
        cut = False
        outside = ((part.first_ns < low) | (part.last_ns > high)) & (part.first_ns <= high) & (part.last_ns >= low)
        times_of = iter(self._times_of_each(part.source, part.starts[outside], part.stops[outside]))
        columns = (part.starts, part.stops, part.first_ns, part.last_ns, low, high)
        runs = zip(*(column.tolist() for column in columns), strict=True)
        for number, (start, stop, first_ns, last_ns, low_ns, high_ns) in enumerate(runs):
            if first_ns > high_ns or last_ns < low_ns:
                continue
            if first_ns < low_ns or last_ns > high_ns:
                cut = True
                times = next(times_of)
                begin = int(times.searchsorted(low_ns)) if first_ns < low_ns else 0
                end = int(times.searchsorted(high_ns, side="right")) if last_ns > high_ns else stop - start
                if begin >= end:
                    continue
                read.append(times[begin:end])
                start, stop = start + begin, start + end
            kept.append(number)
            bounds.append((start, stop, max(first_ns, low_ns), min(last_ns, high_ns)))
        if not cut and len(kept) == len(part):
            return part
        starts, stops, firsts, lasts = np.array(bounds, dtype=np.int64).reshape(-1, 4).T.copy()
        known = len(read) == len(kept) > 0 and sum(map(len, read)) <= self.limits.join_rows
        whole = np.concatenate(read) if known else None
        return Part(part.source, part.position[kept], starts, stops, firsts, lasts, whole)

    def _narrow_part(self, part: Part, low: Int64s, high: Int64s) -> Part:
        inside = (part.first_ns <= high) & (part.last_ns >= low)
        if not inside.all():
            part, low, high = part.where(inside), low[inside], high[inside]
        late, early = part.first_ns < low, part.last_ns > high
        cut = late | early
        if not cut.any():
            return part
        starts, stops = part.starts[cut], part.stops[cut]
        ends = np.cumsum(stops - starts)
        begins = ends - (stops - starts)
        times = self._times(part.source, starts, stops)
        first = np.where(late[cut], first_at_least(times, begins, ends, low[cut]), begins)
        behind = first_at_least(times, first, ends, np.minimum(high[cut], MAX_NS - 1) + 1)
        last = np.where(early[cut], behind, ends)
        all_starts, all_stops = part.starts.copy(), part.stops.copy()
        all_starts[cut] = starts + (first - begins)
        all_stops[cut] = starts + (last - begins)
        bounds = np.maximum(part.first_ns, low), np.minimum(part.last_ns, high)
        narrowed = Part(part.source, part.position, all_starts, all_stops, *bounds)
        kept = all_starts < all_stops
        if len(starts) < len(part) or int((last - first).sum()) > self.limits.join_rows:
            return narrowed.where(kept)
        return replace(narrowed.where(kept), times=gather(times, first[kept], last[kept]))

    def _to_compare(self, parts: Sequence[Part]) -> Bools | None:
        """By position whether rows of a series must be compared with each other; None when none must."""
        found = contested(parts, len(self.series))
        for part in parts:
            mixed = None if self.sources[part.source].block.unique else self._repeated(part)
            for hidden in self.hidden:
                hit = hidden.series[part.position] & (part.first_ns <= hidden.max_ns) & (part.last_ns >= hidden.min_ns)
                mixed = hit if mixed is None else mixed | hit
            if mixed is not None and mixed.any():
                if found is None:
                    found = np.zeros(len(self.series), dtype=np.bool_)
                found[part.position[mixed]] = True
        return found

    def _repeated(self, part: Part) -> Bools:
        """Which runs have a time twice."""
        times = self._times(part.source, part.starts, part.stops)
        places = np.cumsum(part.stops - part.starts)
        same = times[1:] == times[:-1]
        same[places[:-1] - 1] = False
        runs: Bools = np.zeros(len(part), dtype=np.bool_)
        runs[places.searchsorted(np.flatnonzero(same), side="right")] = True
        return runs

    # --- reading

    def _read_all(self, parts: Sequence[Part]) -> Iterator[Piece]:
        limit = self.limits.text_rows if FieldType.STRING in self.types.values() else self.limits.piece_rows
        compare = self._to_compare(parts)
        if compare is not None:
            chosen = [part.where(compare[part.position]) for part in parts]
            parts = [part for part in (one.where(~compare[one.position]) for one in parts) if len(part)]
            for group in series_groups([part for part in chosen if len(part)], len(self.series), limit):
                yield from self._compared(group, limit)
        joined: list[Part] = []
        rows = 0
        for part in parts:
            if part.rows() >= min(self.limits.join_rows, limit) or len(parts) == 1:
                for portion in divide(part, limit, self.sources[part.source].block.portions):
                    yield from self._as_it_lies(portion)
                continue
            joined.append(part)
            rows += part.rows()
            if rows >= limit // 2:
                yield from self._joined(joined)
                joined, rows = [], 0
        if joined:
            yield from self._joined(joined)

    def _as_it_lies(self, part: Part) -> Iterator[Piece]:
        times, columns = self._columns(part)
        lengths = part.stops - part.starts
        yield from self._piece(part.position, np.cumsum(lengths) - lengths, times, columns)

    def _joined(self, parts: list[Part]) -> Iterator[Piece]:
        """One piece of parts in which no series has overlapping times."""
        if len(parts) == 1:
            yield from self._as_it_lies(parts[0])
            return
        one_series = len(self.series) == 1
        if one_series:
            parts = in_time_order(parts)
        read = [self._columns(part) for part in parts]
        order, position, starts = (None, _ONE, _ONE) if one_series else in_series_order(parts)
        times = np.concatenate([times for times, _ in read])
        by_part = [(len(times), columns) for times, columns in read]
        present = {key for _, columns in read for key in columns}
        columns = {key: concat_field(by_part, key, self.types[key]) for key in self.types if key in present}
        if order is not None:
            times = times[order]
            columns = {key: column.take(order) for key, column in columns.items()}
        yield from self._piece(position, starts, times, columns)

    def _compared(self, parts: Sequence[Part], limit: int) -> Iterator[Piece]:
        """Pieces of series whose rows must be compared."""
        for window in self._windows(parts, limit):
            yield from self._united(window)

    def _windows(self, parts: Sequence[Part], limit: int) -> Iterator[Sequence[Part]]:
        """Parts as they are, or where one series has many rows by time: each time of a series in one window only."""
        if sum(part.rows() for part in parts) <= 2 * limit:
            yield parts
            return
        longest = max(parts, key=Part.rows)
        places = np.arange(int(longest.starts[0]) + limit, int(longest.stops[0]), limit, dtype=np.int64)
        cuts = self._times(longest.source, places, places + 1).tolist() if len(places) else []
        low = self.min_ns
        for high in [*(cut - 1 for cut in cuts if cut > self.min_ns), self.max_ns]:
            window = self._narrow(parts, low, high)
            if window:
                yield window
            low = high + 1

    def _united(self, parts: Sequence[Part]) -> Iterator[Piece]:
        found = []
        for part in parts:
            versions = self._versions(part)
            times, columns = self._columns(part)
            rows = Rows(np.repeat(part.position, part.stops - part.starts), times, versions, columns)
            found.append(visible(self.hidden, rows))
        present = {key for rows in found for key in rows.fields}
        rows = concat_rows(found, {key: self.types[key] for key in self.types if key in present})
        if len(rows):
            rows = unite_versions(sort_rows(rows))
            starts = np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(np.diff(rows.series)) + 1])
            yield from self._piece(rows.series[starts], starts, rows.time_ns, rows.fields)

    def _piece(self, position: Int64s, starts: Int64s, times: Int64s, columns: Mapping[str, Column]) -> Iterator[Piece]:
        """One piece, or none when no row has a value."""
        masks = [column.valid for column in columns.values() if column.valid is not None]
        if self.only_with_values and len(masks) == len(columns):
            has_value: Bools = np.zeros(len(times), dtype=np.bool_)
            for mask in masks:
                has_value |= mask
            if not has_value.all():
                rows = np.flatnonzero(has_value)
                counts = np.add.reduceat(has_value, starts, dtype=np.int64)
                position, counts = position[counts > 0], counts[counts > 0]
                starts, times = np.cumsum(counts) - counts, times[rows]
                columns = {key: column.take(rows) for key, column in columns.items()}
        if len(times):
            yield Piece(self.series, position.astype(np.int32), starts, times, columns)

    def _columns(self, part: Part) -> tuple[Int64s, dict[str, Column]]:
        block = self.sources[part.source].block
        starts, stops = coalesce(part.starts, part.stops)
        names = self._fields_of(block)
        try:
            if part.times is not None and len(names) == 1:
                # Reading the one column is all there is to prepare.
                return part.times, {names[0]: block.column(names[0], starts, stops)}
            block.prepare(starts, stops, names)
            return block.times(starts, stops), {name: block.column(name, starts, stops) for name in names}
        except CorruptData as error:
            raise DamagedBlock(error.message, block) from error

    def _times(self, source: int, starts: Int64s, stops: Int64s) -> Int64s:
        block = self.sources[source].block
        try:
            return block.times(*coalesce(starts, stops))
        except CorruptData as error:
            raise DamagedBlock(error.message, block) from error

    def _times_of_each(self, source: int, starts: Int64s, stops: Int64s) -> list[Int64s]:
        block = self.sources[source].block
        try:
            return block.times_of_each(starts, stops) if len(starts) else []
        except CorruptData as error:
            raise DamagedBlock(error.message, block) from error

    def _versions(self, part: Part) -> Int64s:
        block = self.sources[part.source].block
        try:
            return block.versions(*coalesce(part.starts, part.stops))
        except CorruptData as error:
            raise DamagedBlock(error.message, block) from error

    # --- only the first or last rows of each series

    def _read_edge(self, parts: list[Part], edge: Edge) -> Iterator[Piece]:
        """At least the rows the hint asks for: windows of time by series, until each series has given enough."""
        missing = np.full(len(self.series), edge.count, dtype=np.int64)
        count = edge.count
        for _ in range(_EDGE_ROUNDS):
            if not parts:
                return
            cut = self._edge_times(parts, count, newest=edge.newest)
            low: int | Int64s = cut if edge.newest else self.min_ns
            high: int | Int64s = self.max_ns if edge.newest else cut
            for piece in self._read_all(self._narrow(parts, low, high)):
                missing -= np.bincount(piece.run_series, piece.run_lengths(), len(missing)).astype(np.int64)
                yield piece
            parts = [part for part in (one.where(missing[one.position] > 0) for one in parts) if len(part)]
            # What is left lies beyond the cut; where the cut is the end of all times nothing is.
            if edge.newest:
                beyond = [part.where(cut[part.position] > self.min_ns) for part in parts]
                parts = self._narrow(beyond, self.min_ns, np.where(cut > self.min_ns, cut - 1, cut))
            else:
                beyond = [part.where(cut[part.position] < self.max_ns) for part in parts]
                parts = self._narrow(beyond, np.where(cut < self.max_ns, cut + 1, cut), self.max_ns)
            count *= _EDGE_GROWTH
        yield from self._read_all(parts)

    def _edge_times(self, parts: Sequence[Part], count: int, *, newest: bool) -> Int64s:
        """By position the time from (up to) which a series has about ``count`` rows; the end where it has fewer."""
        position = np.concatenate([part.position for part in parts])
        lengths = np.concatenate([part.stops - part.starts for part in parts])
        first = np.concatenate([part.first_ns for part in parts])
        last = np.concatenate([part.last_ns for part in parts])
        # The complement turns the order round without an overflow.
        order = np.lexsort((~last if newest else first, position))
        grouped = position[order]
        new = np.concatenate([np.ones(1, dtype=np.bool_), grouped[1:] != grouped[:-1]])
        total = np.cumsum(lengths[order])
        before = total - lengths[order]
        group = np.cumsum(new) - 1
        before -= before[new][group]
        kept = np.flatnonzero(before < count)
        starts = np.flatnonzero(new[kept])
        series = grouped[kept][starts]
        enough = np.add.reduceat(lengths[order][kept], starts) >= count
        runs = np.diff(np.append(starts, len(kept)))
        bound = (
            np.minimum.reduceat(first[order][kept], starts)
            if newest
            else np.maximum.reduceat(last[order][kept], starts)
        )
        cut = np.full(len(self.series), self.min_ns if newest else self.max_ns, dtype=np.int64)
        cut[series[enough]] = bound[enough]
        exact = np.full(len(position), -1, dtype=np.int64)
        single = enough & (runs == 1)
        exact[order[kept][starts[single]]] = series[single]
        at = 0
        for part in parts:
            here = exact[at : at + len(part)]
            at += len(part)
            chosen = here >= 0
            if chosen.any():
                rows = part.stops[chosen] - count if newest else part.starts[chosen] + count - 1
                cut[here[chosen]] = self._times(part.source, rows, rows + 1)
        return cut


def source_bounds_exceeded(scan: Scan, parts: Sequence[Part]) -> bool:
    """Whether any block reaches beyond the times of a scan."""
    lookups = [scan.sources[part.source].lookup for part in parts]
    return any(lookup.min_ns < scan.min_ns or lookup.max_ns > scan.max_ns for lookup in lookups)
