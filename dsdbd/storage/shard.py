"""One shard: head and segments as one, for readers and for the threads that write it out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dsdbd import fsio
from dsdbd.errors import ShardUnavailable
from dsdbd.model.columns import Int64s
from dsdbd.model.scan import Piece, ScanRequest, SeriesSet
from dsdbd.storage.compaction import FREELY, Pace, choose, compact, has_room
from dsdbd.storage.digesting import sums_of_written
from dsdbd.storage.file_sums import BlockSums, digest_of_file, sums_of_parts
from dsdbd.storage.head import BACKGROUND_ROWS, READER_ROWS, Head, flushed
from dsdbd.storage.inline import locked, must_wait
from dsdbd.storage.log_mark import store_mark
from dsdbd.storage.measurement import Measurement
from dsdbd.storage.merging import segment_name
from dsdbd.storage.pieces import gathered
from dsdbd.storage.scanning import DamagedBlock, Scan
from dsdbd.storage.segment import Segment
from dsdbd.storage.selection import MAX_NS, MIN_NS, Wanted
from dsdbd.storage.shard_copies import ShardCopies
from dsdbd.storage.shard_files import ABOUT_FILE, ShardFile, gone_on_failure
from dsdbd.storage.tombstones import Hidden, Tombstone, visible
from dsdbd.storage.warming import Extents

__all__ = ["ABOUT_FILE", "Shard", "ShardFile"]


class Shard(ShardCopies):
    """Points of one shard; every method may be called from any thread."""

    # --- reading

    def scan(self, request: ScanRequest) -> Iterator[Piece]:
        """Rows in pieces; each (series, time) once.

        A scan sees every write that was acknowledged before it began. Raises OSError, and ShardUnavailable when a file
        turns out to be damaged after pieces were given; the next scan goes without that file.
        """
        while not self.dropped:
            begun = self._begin(request)
            if begun is None:
                return
            known, scan, segments = begun
            given = False
            try:
                for pieces in gathered(scan.pieces()):
                    given = True
                    yield from pieces
                return
            except DamagedBlock as error:
                self._damaged(known, error)
                if given:
                    raise ShardUnavailable(
                        f"{error.message}; it was found while shard {self.shard_id} was read; read again"
                    ) from error
            except FileNotFoundError:
                if self.dropped:
                    return
                raise
            finally:
                self._unpin(segments)

    def _begin(self, request: ScanRequest) -> tuple[Measurement, Scan, list[Segment]] | None:
        """What a scan reads, with its segments pinned; None when that is nothing."""
        measurement, min_ns, max_ns = request.measurement, request.min_ns, request.max_ns
        self.load()
        sealed = False
        while not self.dropped:
            with locked(self._lock):
                known = self._measurements.get(measurement)
                if known is None:
                    return None
                numbered = all(segment.run_series is not None for segment in known.segments)
                # Rows of other times are left out, so that they need not be sorted for this.
                tables = [one for one in self._tables(measurement) if one.min_ns <= max_ns and one.max_ns >= min_ns]
                # What is added once the first sealing has begun was not acknowledged before the scan.
                sealed = sealed or not any(table.unsealed for table in tables)
                if numbered and sealed:
                    numbers = known.index.select(request.predicate)
                    types = {name: known.types[name] for name in request.fields if name in known.types}
                    if not len(numbers) or (request.fields and not types):
                        return None
                    segments = list(known.segments)
                    sources = known.sources([block for table in tables for block in table.snapshot()])
                    chosen, wanted = known.index.subset(measurement, numbers), Wanted(numbers, len(known.index))
                    hidden = self._deletions.marks(known.index, measurement, numbers, min_ns, max_ns)
                    with_values = bool(request.fields)
                    scan = Scan(chosen, wanted, sources, types, with_values, min_ns, max_ns, request.edge, hidden)
                    for segment in segments:
                        segment.pins += 1
                    return known, scan, segments
            must_wait()
            if not numbered:
                self._number_series(measurement)
            if not sealed:
                self._seal(measurement, READER_ROWS)
                sealed = True
        return None

    def opened_segments(self) -> list[Segment]:
        """The segments that were opened so far."""
        with self._lock:
            return [segment for known in self._measurements.values() for segment in known.segments]

    def read_ahead(self, extents: Extents, stopped: Callable[[], bool]) -> None:
        """Decode columns of files into the cache, as far as the shard has such. Raises OSError, CorruptData."""
        with self._lock:
            segments = [segment for segment in self.opened_segments() if segment.path in extents]
            for segment in segments:
                segment.pins += 1
        try:
            for segment in segments:
                for extent in extents[segment.path]:
                    if self.dropped or stopped():
                        return
                    segment.read_ahead(*extent)
        finally:
            self._unpin(segments)

    # --- writing out

    def flush(self) -> int:
        """Write the rows in memory to segments; returns how many segments were written. Raises OSError.

        A crash anywhere leaves the log, whose records are replayed and meet their equals in the segments.
        """
        written = 0
        with self._files:
            self.load()
            with self._lock:
                if self._head is not None:
                    self._frozen.append(self._head)
                    self._head = None
                frozen = list(self._frozen)
            for head in frozen:
                for name in list(head.tables):
                    if not self.dropped:
                        self._flush_table(head, name)
                        written += 1
                with self._lock:
                    self._frozen.remove(head)
                    self.head_bytes -= sum(table.size_bytes for table in head.tables.values())
            if frozen and self.log_id and not self.dropped and not self.damages and self.directory.is_dir():
                with contextlib.suppress(OSError):
                    store_mark(self.directory, self.log_id, frozen[-1].logged)
        return written

    def _flush_table(self, head: Head, name: str) -> None:
        self._seal(name, BACKGROUND_ROWS)
        with self._lock:
            table = head.tables[name]
            known = self._measurement(name)
            types = dict(known.types)
            number = known.take_number()
            blocks = table.snapshot()
        numbers = np.unique(np.concatenate([block.runs().series for block in blocks]))
        order, ranks, series, marks = self._in_key_order(known, name, numbers)
        rows = visible(marks, flushed(blocks, types, ranks))
        segment = self._disk.write(known.directory, order, series, rows, number) if len(rows) else None
        sums = None if segment is None else sums_of_written(known, blocks, segment, order, rows)
        with self._lock:
            # Readers see the rows in the head or in the segment, never in neither.
            if segment is not None:
                known.segments.append(segment)
                if sums is not None:
                    known.sums[segment] = sums
            del head.tables[name]
            self.head_bytes -= table.size_bytes

    def _in_key_order(
        self, known: Measurement, name: str, numbers: Int64s
    ) -> tuple[Int64s, Int64s, SeriesSet, Sequence[Hidden]]:
        """Series by key, by number their place there, the same as a set, and what is deleted of them, by place."""
        with self._lock:
            order, ranks = known.key_order(numbers)
            series = known.index.subset(name, order)
            return order, ranks, series, self._deletions.marks(known.index, name, order, MIN_NS, MAX_NS)

    def merge(self, pace: Pace = FREELY, *, full: bool = False) -> int:
        """Merge neighbouring segments of similar size, or all that fit in one when ``full``; returns how many merges.

        Reading, writing and writing out go on meanwhile. Raises OSError, CorruptData, CompactionStopped.
        """
        merges = 0
        within = Pace(pace.rest, lambda: self.dropped or pace.stopped())
        with self._merging:
            self.load()
            for name in list(self._measurements):
                while not self.dropped and self._merge_once(name, within, full):
                    merges += 1
        return merges

    def _merge_once(self, name: str, pace: Pace, full: bool) -> bool:
        with self._lock:
            known = self._measurement(name)
            chosen = choose(known.segments, self._settings, full=full)
        return len(chosen) > 1 and self._rewrite(name, chosen, pace)

    def _rewrite(self, name: str, chosen: Sequence[Segment], pace: Pace) -> bool:
        """Put one segment in the place of neighbouring ones; whether that was done, or one found damaged."""
        with self._lock:
            known = self._measurement(name)
        if not has_room(known.directory, sum(segment.size_bytes for segment in chosen)):
            return False
        self._number_series(name)
        with self._lock:
            if any(segment.run_series is None or segment not in known.segments for segment in chosen):
                return False
            for segment in chosen:
                segment.pins += 1
        with self._files, self._lock:
            # Deletions from here on name the file that is being made: a crash may leave it beside those it replaces.
            numbers = (chosen[0].low, chosen[-1].high) if len(chosen) > 1 else (known.take_number(),) * 2
            self._deletions.being_written = (name, numbers)
            applied = self._deletions.known
        try:
            merged = self._compact(known, name, chosen, numbers, pace)
        except DamagedBlock as error:
            self._damaged(known, error)
            return True
        except FileNotFoundError:
            if self.dropped:
                return False
            raise
        finally:
            self._unpin(chosen)
        sums = None if merged is None else sums_of_parts(known, chosen, merged)
        if merged is not None and sums is not None:
            sums = sums._replace(file_digest=digest_of_file(merged.path))
        return self._replace(known, chosen, merged, sums, applied)

    def purge(self, horizon: int, pace: Pace = FREELY) -> int:
        """Write segments anew without what deletions of versions below ``horizon`` hide; returns how many.

        The file gets a new number, for readers of the old one. Raises OSError, CorruptData, CompactionStopped.
        """
        purged = 0
        within = Pace(pace.rest, lambda: self.dropped or pace.stopped())
        with self._merging:
            self.load()
            for one in self._deletions.known:
                with self._lock:
                    known = self._measurements.get(one.measurement)
                    segments = [] if known is None or one.version >= horizon else list(known.segments)
                    chosen = [segment for segment in segments if (segment.low, segment.high) in one.files]
                for segment in chosen:
                    if not self.dropped and self._rewrite(one.measurement, [segment], within):
                        purged += 1
        return purged

    def _compact(
        self, known: Measurement, name: str, chosen: Sequence[Segment], numbers: tuple[int, int], pace: Pace
    ) -> Segment | None:
        """The merged segment of these file numbers, with its series numbered; None when no row is left."""
        every = np.unique(np.concatenate([segment.runs().series for segment in chosen]))
        order, ranks, series, marks = self._in_key_order(known, name, every)
        path = known.directory / segment_name(*numbers)
        with gone_on_failure(path):
            runs = compact(chosen, ranks, series, path, pace, lambda rows: visible(marks, rows))
            return None if runs is None else self._disk.open_numbered(path, order[runs])

    def _replace(
        self,
        known: Measurement,
        chosen: Sequence[Segment],
        merged: Segment | None,
        sums: BlockSums | None,
        applied: Sequence[Tombstone],
    ) -> bool:
        """Show the merged segment instead of the others; a crash before they are gone leaves files it stands for.

        ``sums``: of the merged one, where they are known. ``applied``: the deletions that were known when the merge
        began. Raises OSError.
        """
        with self._files:
            if not self.dropped and merged is not None:
                with gone_on_failure(merged.path):
                    self._deletions.merged(applied, chosen, merged)
            with self._lock:
                if merged is not None and sums is not None:
                    known.sums[merged] = sums
                return self._show(known, chosen, merged)

    def _show(self, known: Measurement, chosen: Sequence[Segment], merged: Segment | None) -> bool:
        if self.dropped or not all(segment in known.segments for segment in chosen):
            # The shard was removed, or one of them was set aside as damaged: what is known stays as it is.
            if merged is not None:
                merged.close()
                merged.path.unlink(missing_ok=True)
            return False
        at = known.segments.index(chosen[0])
        known.segments[at : at + len(chosen)] = []
        if merged is not None:
            # Segments are in the order of their numbers, which that of a merge takes from those it is made of.
            known.segments.append(merged)
            known.segments.sort(key=lambda segment: segment.low)
        for segment in chosen:
            segment.obsolete = True
            self._unlink_idle(segment)
        return True

    def written_s(self) -> float:
        """Unix time of the newest segment, infinity while there is none or rows are in memory."""
        with self._lock:
            if self._head is not None or self._frozen:
                return math.inf
            segments = [segment for known in self._measurements.values() for segment in known.segments]
            return max((segment.modified_s for segment in segments), default=math.inf)

    def remove_files(self) -> None:
        """Delete the shard's directory; nothing is written to it afterwards. Raises OSError."""
        with self._files:
            self.dropped = True
            fsio.remove_tree(self.directory)

    def stats(self) -> dict[str, int]:
        """Counts for SHOW STATS and metrics; of segments only what has been opened so far."""
        with self._lock:
            segments = [segment for known in self._measurements.values() for segment in known.segments]
            return {
                "head_bytes": self.head_bytes,
                "segments": len(segments),
                "segment_bytes": sum(segment.size_bytes for segment in segments),
                "segment_rows": sum(segment.rows for segment in segments),
                "series": sum(len(known.index) for known in self._measurements.values()),
            }
