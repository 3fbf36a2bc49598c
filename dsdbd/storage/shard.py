"""One shard: head and segments as one, for readers and for the threads that write it out."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dsdbd import fsio
from dsdbd.errors import CorruptData, ShardUnavailable
from dsdbd.model.columns import Batch, Int64s
from dsdbd.model.predicate import TagPredicate
from dsdbd.model.scan import Edge, Extent, Piece, SeriesSet
from dsdbd.model.types import FieldType
from dsdbd.storage.cache import ColumnCache
from dsdbd.storage.compaction import FREELY, Pace, choose, compact, has_room
from dsdbd.storage.deletions import Deletions
from dsdbd.storage.head import BACKGROUND_ROWS, READER_ROWS, Head, HeadTable, flushed
from dsdbd.storage.measurement import Measurement
from dsdbd.storage.merging import segment_name
from dsdbd.storage.names import escape_name
from dsdbd.storage.pieces import gathered
from dsdbd.storage.scanning import DamagedBlock, Scan
from dsdbd.storage.segment import Segment
from dsdbd.storage.selection import MAX_NS, MIN_NS, Wanted
from dsdbd.storage.settings import ShardKey, StoreSettings
from dsdbd.storage.shard_files import ABOUT_FILE, ShardFile, ShardFiles
from dsdbd.storage.tombstones import Hidden, Tombstone, visible

__all__ = ["ABOUT_FILE", "Shard", "ShardFile"]


class Shard:
    """Points of one shard; every method may be called from any thread.

    ``_lock`` guards the state and is never held while files are read or written, or rows are sorted; ``_files`` lets
    one thread at a time write out, add or remove files, ``_merging`` one merge. Order: ``_merging``, ``_files``, the
    lock of a table of the head, ``_lock``. ``head_bytes``: memory of the rows that are not in segments; may be read
    without a lock.
    """

    def __init__(
        self,
        key: ShardKey,
        directory: Path,
        settings: StoreSettings,
        note: Callable[[str], None],
        cache: ColumnCache | None = None,
    ) -> None:
        self.key = key
        self.shard_id = key.shard_id
        self.directory = directory
        self.dropped = False
        self._settings = settings
        self._disk = ShardFiles(key, directory, cache or ColumnCache(settings.read_cache_bytes), note)
        self._lock = threading.RLock()
        self._files = threading.RLock()
        self._merging = threading.Lock()
        self._loaded = False
        self._measurements: dict[str, Measurement] = {}
        self._head: Head | None = None
        self._frozen: list[Head] = []
        self._deletions = Deletions(self._disk, key.shard_id)
        self.head_bytes = 0

    # --- opening

    def load(self) -> None:
        """Read the footers of the segments, once. Damaged files are set aside; raises OSError."""
        if self._loaded:
            return
        with self._files:
            if self._loaded:
                return
            found = self._disk.load()
            self._deletions.load(found)
            with self._lock:
                for segment in found:
                    self._measurement(segment.measurement).add(segment)
                self._loaded = True

    def _measurement(self, name: str) -> Measurement:
        measurement = self._measurements.get(name)
        if measurement is None:
            measurement = self._measurements[name] = Measurement(self.directory / escape_name(name))
        return measurement

    # --- writing

    def check_types(self, batch: Batch) -> None:
        """Raise FieldTypeConflict when a field has another type here; fields seen first get theirs fixed."""
        with self._lock:
            for points in batch.points:
                self._measurement(points.measurement).fix_types(points)

    def insert(self, batch: Batch, wal_sequence: int, now_s: float) -> None:
        """Make the rows of a logged batch visible."""
        self.insert_many((batch,), wal_sequence, now_s)

    def insert_many(self, batches: Sequence[Batch], wal_sequence: int, now_s: float) -> None:
        """Make the rows of logged batches visible, in their order."""
        with self._lock:
            if self._head is None:
                self._head = Head(wal_sequence, now_s)
            for batch in batches:
                for points in batch.points:
                    if len(points):
                        index = self._measurement(points.measurement).index
                        self.head_bytes += self._head.add(points, batch.version, index)

    def _heads(self) -> list[Head]:
        """Oldest first; needs the lock."""
        return self._frozen if self._head is None else [*self._frozen, self._head]

    def _tables(self, measurement: str) -> list[HeadTable]:
        """Of all heads, oldest first; needs the lock."""
        return [head.tables[measurement] for head in self._heads() if measurement in head.tables]

    def oldest_wal(self) -> int | None:
        """Number of the oldest log file that still holds rows which are not in segments; None when all are."""
        with self._lock:
            return min((head.oldest_wal for head in self._heads()), default=None)

    def oldest_row_s(self) -> float | None:
        """Monotonic time at which the oldest row in memory arrived; None when there is none."""
        with self._lock:
            return min((head.since_s for head in self._heads()), default=None)

    def seal(self) -> None:
        """Sort the rows that came since the last time, so that the next reader need not."""
        for name in self.measurements():
            self._seal(name, BACKGROUND_ROWS)

    def _seal(self, measurement: str, large_rows: int) -> None:
        def account(change_bytes: int) -> None:
            self.head_bytes += change_bytes

        with self._lock:
            tables = self._tables(measurement)
        for table in tables:
            table.seal(self._lock, account, large_rows)

    # --- reading

    def measurements(self) -> list[str]:
        """Names of measurements that have a series here, sorted."""
        self.load()
        with self._lock:
            return sorted(name for name, known in self._measurements.items() if known.segments or len(known.index))

    def tag_keys(self, measurement: str) -> frozenset[str]:
        """Tag keys of the measurement's series; empty for an unknown measurement."""
        self.load()
        with self._lock:
            known = self._measurements.get(measurement)
            if known is None:
                return frozenset()
            return known.index.tag_keys().union(*(segment.tags for segment in known.segments))

    def field_types(self, measurement: str) -> dict[str, FieldType]:
        """Fields this shard holds, with their types; empty for an unknown measurement."""
        self.load()
        with self._lock:
            known = self._measurements.get(measurement)
            return {} if known is None else dict(known.types)

    def series(self, measurement: str, predicate: TagPredicate) -> SeriesSet:
        """Matching series."""
        self._number_series(measurement)
        with self._lock:
            known = self._measurements.get(measurement)
            if known is None:
                return SeriesSet.of(measurement, [])
            return known.index.subset(measurement, known.index.select(predicate))

    def extent(self, measurement: str) -> Extent | None:
        """About how many rows of what times there are; None when there are none."""
        self.load()
        with self._lock:
            known = self._measurements.get(measurement)
            held: list[HeadTable | Segment] = list(self._tables(measurement))
            held += [] if known is None else known.segments
        if not held:
            return None
        return Extent(sum(one.rows for one in held), min(one.min_ns for one in held), max(one.max_ns for one in held))

    def scan(
        self,
        measurement: str,
        *,
        predicate: TagPredicate,
        min_ns: int,
        max_ns: int,
        fields: Sequence[str],
        edge: Edge | None = None,
    ) -> Iterator[Piece]:
        """Rows of matching series within inclusive times, in pieces; each (series, time) once.

        Only rows with a value in one of ``fields`` count (all rows when ``fields`` is empty); a field the shard does
        not hold is left out of the result. A scan sees every write that was acknowledged before it began. Raises
        OSError, and ShardUnavailable when a file turns out to be damaged after pieces were given; the next scan goes
        without that file.
        """
        while not self.dropped:
            begun = self._begin(measurement, predicate, min_ns, max_ns, fields, edge)
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

    def _begin(
        self,
        measurement: str,
        predicate: TagPredicate,
        min_ns: int,
        max_ns: int,
        fields: Sequence[str],
        edge: Edge | None,
    ) -> tuple[Measurement, Scan, list[Segment]] | None:
        """What a scan reads, with its segments pinned; None when that is nothing."""
        self.load()
        sealed = False
        while not self.dropped:
            with self._lock:
                known = self._measurements.get(measurement)
                if known is None:
                    return None
                numbered = all(segment.run_series is not None for segment in known.segments)
                tables = self._tables(measurement)
                # What is added once the first sealing has begun was not acknowledged before the scan.
                sealed = sealed or not any(table.unsealed for table in tables)
                if numbered and sealed:
                    numbers = known.index.select(predicate)
                    types = {name: known.types[name] for name in fields if name in known.types}
                    if not len(numbers) or (fields and not types):
                        return None
                    segments = list(known.segments)
                    sources = known.sources([block for table in tables for block in table.snapshot()])
                    chosen, wanted = known.index.subset(measurement, numbers), Wanted(numbers, len(known.index))
                    hidden = self._deletions.marks(known.index, measurement, numbers, min_ns, max_ns)
                    scan = Scan(chosen, wanted, sources, types, bool(fields), min_ns, max_ns, edge, hidden)
                    for segment in segments:
                        segment.pins += 1
                    return known, scan, segments
            if not numbered:
                self._number_series(measurement)
            if not sealed:
                self._seal(measurement, READER_ROWS)
                sealed = True
        return None

    def _number_series(self, measurement: str) -> None:
        """Give the series of newly opened segments their numbers; reads tag columns once per file."""
        self.load()
        with self._lock:
            known = self._measurements.get(measurement)
            fresh = [segment for segment in known.segments if segment.run_series is None] if known is not None else []
            for segment in fresh:
                segment.pins += 1
        if known is None or not fresh:
            return
        try:
            for segment in fresh:
                try:
                    tags = segment.read_tags()
                except CorruptData as error:
                    self._damaged(known, DamagedBlock(error.message, segment))
                    continue
                with self._lock:
                    segment.number_series(known.index.numbers_of_columns(measurement, tags))
        except FileNotFoundError:
            if not self.dropped:
                raise
        finally:
            self._unpin(fresh)

    def _unpin(self, segments: Sequence[Segment]) -> None:
        with self._lock:
            for segment in segments:
                segment.pins -= 1
                self._unlink_idle(segment)

    def _unlink_idle(self, segment: Segment) -> None:
        if segment.obsolete and segment.pins == 0:
            # A crash before this leaves a file whose range lies inside another's; the next load removes it.
            segment.close()
            with contextlib.suppress(OSError):
                segment.path.unlink(missing_ok=True)

    def _damaged(self, known: Measurement, error: DamagedBlock) -> None:
        segment = error.block
        assert isinstance(segment, Segment), "memory is not damaged"
        with self._lock:
            if segment not in known.segments:
                return
            known.segments.remove(segment)
        segment.close()
        self._disk.set_aside(segment.path, error)

    # --- deleting

    def delete(self, tombstone: Tombstone) -> None:
        """Delete the rows a tombstone is about, durably; its ``files`` are found here. Raises OSError, Overloaded."""
        self.load()
        with self._files:
            known = self._measurements.get(tombstone.measurement)
            segments = [] if known is None else list(known.segments)
            if not self.dropped:
                self._deletions.add(tombstone, segments)

    def forget_tombstones(self, horizon: int) -> int:
        """Forget deletions that can meet no row any more; returns how many are left. Raises OSError.

        ``horizon``: no batch of a lower version can still arrive, from a log or from another node.
        """
        with self._files:
            self.load()
            with self._lock:
                known = self._measurements.items()
                files = {name: [(one.low, one.high) for one in each.segments] for name, each in known}
                in_memory = bool(self._heads())
            return len(self._deletions.known) if in_memory else self._deletions.forget(horizon, files)

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
        return written

    def _flush_table(self, head: Head, name: str) -> None:
        self._seal(name, BACKGROUND_ROWS)
        with self._lock:
            table = head.tables[name]
            known = self._measurement(name)
            types = dict(known.types)
            number = known.next_number
            blocks = table.snapshot()
        numbers = np.unique(np.concatenate([block.runs().series for block in blocks]))
        order, ranks, series, marks = self._in_key_order(known, name, numbers)
        rows = visible(marks, flushed(blocks, types, ranks))
        segment = self._disk.write(known.directory, order, series, rows, number) if len(rows) else None
        with self._lock:
            # Readers see the rows in the head or in the segment, never in neither.
            if segment is not None:
                known.segments.append(segment)
                known.next_number = number + 1
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
            with self._lock:
                names = list(self._measurements)
            for name in names:
                while not self.dropped and self._merge_once(name, within, full):
                    merges += 1
        return merges

    def _merge_once(self, name: str, pace: Pace, full: bool) -> bool:
        with self._lock:
            known = self._measurements[name]
            chosen = choose(known.segments, self._settings, full=full)
        if len(chosen) < 2 or not has_room(known.directory, sum(segment.size_bytes for segment in chosen)):
            return False
        self._number_series(name)
        with self._lock:
            if any(segment.run_series is None for segment in chosen):
                return False
            for segment in chosen:
                segment.pins += 1
            applied = self._deletions.known
        try:
            merged = self._compact(known, name, chosen, pace)
        except DamagedBlock as error:
            self._damaged(known, error)
            return True
        except FileNotFoundError:
            if self.dropped:
                return False
            raise
        finally:
            self._unpin(chosen)
        return self._replace(known, chosen, merged, applied)

    def _compact(self, known: Measurement, name: str, chosen: Sequence[Segment], pace: Pace) -> Segment | None:
        """The merged segment, numbered; None when no row is left."""
        numbers = np.unique(np.concatenate([segment.runs().series for segment in chosen]))
        order, ranks, series, marks = self._in_key_order(known, name, numbers)
        path = known.directory / segment_name(chosen[0].low, chosen[-1].high)
        runs = compact(chosen, ranks, series, path, pace, lambda rows: visible(marks, rows))
        return None if runs is None else self._disk.open_numbered(path, order[runs])

    def _replace(
        self, known: Measurement, chosen: Sequence[Segment], merged: Segment | None, applied: Sequence[Tombstone]
    ) -> bool:
        """Show the merged segment instead of the others; a crash before they are gone leaves files it stands for.

        ``applied``: the deletions that were known when the merge began. Raises OSError.
        """
        with self._files:
            if not self.dropped:
                self._deletions.merged(applied, chosen, merged)
            with self._lock:
                return self._show(known, chosen, merged)

    def _show(self, known: Measurement, chosen: Sequence[Segment], merged: Segment | None) -> bool:
        if self.dropped or not all(segment in known.segments for segment in chosen):
            # The shard was removed, or one of them was set aside as damaged: what is known stays as it is.
            if merged is not None:
                merged.close()
                merged.path.unlink(missing_ok=True)
            return False
        at = known.segments.index(chosen[0])
        known.segments[at : at + len(chosen)] = [] if merged is None else [merged]
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
