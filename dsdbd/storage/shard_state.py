"""What a shard holds: rows in memory, segments, deletions; and questions about it that need no scan."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsdbd import fsio
from dsdbd.errors import CorruptData
from dsdbd.model.columns import Batch, Bools
from dsdbd.model.predicate import TagPredicate
from dsdbd.model.scan import Extent, SeriesSet
from dsdbd.model.types import FieldType
from dsdbd.storage.block import Block
from dsdbd.storage.cache import ColumnCache
from dsdbd.storage.deletions import Deletions
from dsdbd.storage.head import BACKGROUND_ROWS, Head, HeadTable
from dsdbd.storage.inline import locked
from dsdbd.storage.liveness import live_series
from dsdbd.storage.log_mark import load_mark
from dsdbd.storage.measurement import Measurement
from dsdbd.storage.merging import parse_segment_name
from dsdbd.storage.names import escape_name
from dsdbd.storage.scanning import DamagedBlock
from dsdbd.storage.segment import Segment, schema_of
from dsdbd.storage.selection import MAX_NS, MIN_NS
from dsdbd.storage.settings import ShardKey, StoreSettings
from dsdbd.storage.shard_files import ShardFiles
from dsdbd.storage.tombstones import Tombstone, marked
from dsdbd.storage.wal import Position


class Glance(NamedTuple):
    """Fields (not to be changed by the caller), tag keys and extent of a measurement."""

    types: Mapping[str, FieldType]
    tags: frozenset[str]
    extent: Extent | None


class ShardState:
    """State of one shard; every method may be called from any thread.

    ``_lock`` guards the state and is never held while files are read or written, or rows are sorted; ``_files`` lets
    one thread at a time write out, add or remove files, ``_merging`` one merge, ``_numbering`` one give series of files
    their numbers. Order: ``_merging``, ``_files``, ``_numbering``, the lock of a table of the head, ``_lock``.
    ``head_bytes``: memory of the rows that are not in segments; may be read without a lock. ``changes``: grows with
    whatever may change what the shard holds, not when it is only written out or merged. ``damages``: grows when files
    are found damaged, before anyone reads without them; ``on_damaged`` is called with the shard's id afterwards.
    ``log_id``: of the log the rows come from; empty where that need not be known.
    """

    def __init__(
        self,
        key: ShardKey,
        directory: Path,
        settings: StoreSettings,
        note: Callable[[str], None],
        cache: ColumnCache | None = None,
        on_damaged: Callable[[int], None] = lambda _: None,
    ) -> None:
        def told(problem: str) -> None:
            self.damages += 1
            note(problem)
            on_damaged(key.shard_id)

        self.key = key
        self.shard_id = key.shard_id
        self.directory = directory
        self.dropped = False
        self.log_id = ""
        self._settings = settings
        self._disk = ShardFiles(key, directory, cache or ColumnCache(settings.read_cache_bytes), told)
        self._lock = threading.RLock()
        self._files = threading.RLock()
        self._merging = threading.Lock()
        self._numbering = threading.Lock()
        self._loaded = False
        self._measurements: dict[str, Measurement] = {}
        self._head: Head | None = None
        self._frozen: list[Head] = []
        self._deletions = Deletions(self._disk, key.shard_id)
        self.head_bytes = 0
        self.changes = 0
        self.damages = 0

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
            erased = {one.measurement for one in self._deletions.known}
            for name in erased:
                self._discard(name)
            self.settle(erased)
            self._loaded = True

    def _measurement(self, name: str) -> Measurement:
        measurement = self._measurements.get(name)
        if measurement is None:
            measurement = self._measurements[name] = Measurement(
                self.directory / escape_name(name), deleted_from=bool(self._deletions.of(name))
            )
        return measurement

    def _changed(self, known: Measurement) -> None:
        """Note that what a measurement holds may have changed; needs the lock."""
        self.changes += 1
        known.changed = self.changes

    # --- writing

    def check_types(self, batch: Batch) -> None:
        """Raise FieldTypeConflict when a field has another type here; fields seen first get theirs fixed."""
        with self._lock:
            for points in batch.points:
                left = self._deletions.left_of(points, batch.version)
                if left is not None:
                    self._measurement(left.measurement).fix_types(left)

    def insert(self, batch: Batch, wal_sequence: int, now_s: float, wal_end: int = 0) -> None:
        """Make the rows of a logged batch visible; ``wal_end``: no record that follows begins before it in its file."""
        with self._lock:
            if self._head is None:
                self._head = Head(wal_sequence, now_s)
            self._head.logged = wal_sequence, wal_end
            for points in batch.points:
                left = self._deletions.left_of(points, batch.version)
                if left is not None:
                    known = self._measurement(left.measurement)
                    if known.deleted_from:
                        known.know_types(left)
                    self.head_bytes += self._head.add(left, batch.version, known.index)
                    self._changed(known)

    def log_mark(self) -> Position | None:
        """Before it all records of the log are in files, None where that is not known; call it after ``load``."""
        return None if self.damages else load_mark(self.directory, self.log_id)

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

    # --- what there is

    def measurements(self) -> list[str]:
        """Names of measurements that have a series here, sorted."""
        self.load()
        with self._lock:
            held = {name: known for name, known in self._measurements.items() if known.segments or len(known.index)}
        return sorted(name for name, known in held.items() if not known.deleted_from or self._has_rows(name))

    def tag_keys(self, measurement: str) -> frozenset[str]:
        """Tag keys of the measurement's series; empty for an unknown measurement."""
        known, live = self._live(measurement)
        if known is None:
            return frozenset()
        with self._lock:
            if live is None or live.all():
                return known.index.tag_keys().union(*(segment.tags for segment in known.segments))
            tags = known.index.subset(measurement, np.flatnonzero(live)).tags
        return frozenset(key for key, column in tags.items() if bool((column.codes >= 0).any()))

    def field_types(self, measurement: str) -> dict[str, FieldType]:
        """Fields this shard holds, with their types; empty for an unknown measurement."""
        self.load()
        with self._lock:
            known = self._measurements.get(measurement)
            types = {} if known is None else dict(known.types)
        return types if known is None or not known.deleted_from or self._has_rows(measurement) else {}

    def series(self, measurement: str, predicate: TagPredicate) -> SeriesSet:
        """Matching series."""
        self._number_series(measurement)
        known, live = self._live(measurement)
        if known is None:
            return SeriesSet.of(measurement, [])
        with self._lock:
            numbers = known.index.select(predicate)
            if live is not None:
                numbers = numbers[numbers < len(live)]
                numbers = numbers[live[numbers]]
            return known.index.subset(measurement, numbers)

    def _has_rows(self, measurement: str) -> bool:
        """Whether any row is left that is not deleted."""
        known, live = self._live(measurement)
        return known is not None and (len(known.index) > 0 if live is None else bool(live.any()))

    def _live(self, measurement: str) -> tuple[Measurement | None, Bools | None]:
        """By number of a series whether it has a row that is not deleted; None for all where nothing was deleted.

        Blocks are looked at once for the same deletions. Raises OSError.
        """
        self.load()
        while not self.dropped:
            with self._lock:
                known = self._measurements.get(measurement)
            if known is None or not known.deleted_from:
                return known, None
            self._number_series(measurement)
            self._seal(measurement, BACKGROUND_ROWS)
            with self._lock:
                segments = list(known.segments)
                if self._measurements.get(measurement) is not known or any(one.run_series is None for one in segments):
                    continue
                blocks: list[Block] = list(segments)
                for table in self._tables(measurement):
                    blocks += table.snapshot()
                mine = self._deletions.of(measurement)
                fresh = [block for block in blocks if known.live.get(block, (None,))[0] != mine]
                for segment in segments:
                    segment.pins += 1
            try:
                for block in fresh:
                    marks = marked(mine, block.runs().series, known.index.select, MIN_NS, MAX_NS)
                    found = live_series(block, marks)
                    with self._lock:
                        known.live[block] = mine, found
            except CorruptData as error:
                self._damaged(known, DamagedBlock(error.message, block))
                continue
            except FileNotFoundError:
                if self.dropped:
                    break
                raise
            finally:
                self._unpin(segments)
            with self._lock:
                live: Bools = np.zeros(len(known.index), dtype=np.bool_)
                for block in blocks:
                    live[known.live[block][1]] = True
            return known, live
        return None, None

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

    def glance(self, measurement: str) -> Glance | None:
        """What a measurement has, where that can be told at once; None where it cannot. Raises NotNow, where inline."""
        if not self._loaded:
            return None
        with locked(self._lock):
            known = self._measurements.get(measurement)
            if known is None:
                return Glance({}, frozenset(), None)
            held: list[HeadTable | Segment] = [*self._tables(measurement), *known.segments]
            if known.deleted_from or not held:
                return None
            tags = known.index.tag_keys().union(*(segment.tags for segment in known.segments))
            times = min(one.min_ns for one in held), max(one.max_ns for one in held)
            return Glance(known.types, tags, Extent(sum(one.rows for one in held), *times))

    def prepare(self, stopped: Callable[[], bool]) -> int:
        """Do what the first question would have to wait for; returns how many series there are. Raises OSError."""
        self.load()
        with self._lock:
            names = list(self._measurements)
        for name in names:
            if not stopped() and not self.dropped:
                self._number_series(name)
        with self._lock:
            return sum(len(known.index) for known in self._measurements.values())

    def _number_series(self, measurement: str) -> None:
        """Give the series of newly opened segments their numbers; reads tag columns once per file."""
        self.load()
        # Who comes while another thread is at it waits, instead of doing the same once more.
        with self._numbering:
            with self._lock:
                known = self._measurements.get(measurement)
                fresh = [one for one in known.segments if one.run_series is None] if known is not None else []
                for segment in fresh:
                    segment.pins += 1
            if known is None or not fresh:
                return
            try:
                for segment in fresh:
                    self._number_segment(known, measurement, segment)
            except FileNotFoundError:
                if not self.dropped:
                    raise
            finally:
                self._unpin(fresh)

    def _number_segment(self, known: Measurement, measurement: str, segment: Segment) -> None:
        try:
            tags = segment.read_tags()
        except CorruptData as error:
            self._damaged(known, DamagedBlock(error.message, segment))
            return
        numbers = []
        for step in known.index.numbering(measurement, tags):
            # Writes and questions get their turn between the steps.
            with self._lock:
                numbers.append(step())
        with self._lock:
            segment.number_series(np.concatenate(numbers))

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
            self.damages += 1
            known.segments.remove(segment)
            self._changed(known)
        segment.close()
        self._disk.set_aside(segment.path, error)

    # --- deleting

    @property
    def tombstones(self) -> int:
        """How many deletions are kept."""
        return len(self._deletions.known)

    def delete(self, *tombstones: Tombstone) -> None:
        """Delete the rows tombstones are about, durably; their ``files`` are found here. Raises OSError, Overloaded."""
        self.load()
        with self._files:
            if self.dropped:
                return
            with self._lock:
                segments = [segment for known in self._measurements.values() for segment in known.segments]
            self._deletions.add(tombstones, segments)
            for name in {one.measurement for one in tombstones}:
                self._discard(name)

    def _discard(self, measurement: str) -> None:
        """Let go at once of segments and of rows in memory nothing of which is left; needs the lock of the files.

        A crash before the files are gone leaves them to the next load, which knows the deletion.
        """
        with self._lock:
            known = self._measurements.get(measurement)
            if known is None:
                return
            known.deleted_from = True
            self._changed(known)
            segments = list(known.segments)
            heads = [(head, head.tables[measurement]) for head in self._heads() if measurement in head.tables]
        whole = [one for one in self._deletions.of(measurement) if one.predicate is None]

        def is_gone(held: Segment | HeadTable, newest: int) -> bool:
            return any(
                one.min_ns <= held.min_ns and one.max_ns >= held.max_ns and newest < one.version for one in whole
            )

        gone = []
        for segment in segments if whole else ():
            try:
                if is_gone(segment, segment.newest_version()):
                    gone.append(segment)
            except CorruptData as error:
                self._damaged(known, DamagedBlock(error.message, segment))
        for head, table in heads if whole else ():
            with table.sealing, self._lock:
                if is_gone(table, table.newest_version):
                    del head.tables[measurement]
                    self.head_bytes -= table.size_bytes
                    table.clear()
        with self._lock:
            known.segments[:] = [segment for segment in known.segments if segment not in gone]
            for segment in gone:
                segment.obsolete = True
                self._unlink_idle(segment)

    def settle(self, measurements: Iterable[str]) -> None:
        """Forget the series and field types of which nothing is left; called by the thread that inserts.

        Between ``check_types`` and ``insert`` of a batch it must not come: the types are fixed by the former.
        """
        with self._lock:
            for name in measurements:
                known = self._measurements.get(name)
                if known is None or name not in self._deletions.erased:
                    continue
                tables = self._tables(name)
                if known.segments or tables:
                    known.types = {**schema_of(known.segments)}
                    for table in tables:
                        known.types.update(table.types())
                else:
                    self._measurements[name] = anew = Measurement(
                        known.directory, next_number=known.next_number, deleted_from=True
                    )
                    self._changed(anew)

    def forget_tombstones(self, horizon: int) -> int:
        """Forget deletions that can meet no row any more; returns how many are left. Raises OSError.

        ``horizon``: no batch of a lower version can still arrive, from a log or from another node. While a
        file of a measurement lies there that is not one of its segments, its deletions are kept: they do not count it.
        """
        with self._files:
            self.load()
            if self.dropped:
                return 0
            for name in {one.measurement for one in self._deletions.known}:
                with self._lock:
                    oldest = min((table.oldest_version for table in self._tables(name)), default=horizon)
                    known = self._measurements.get(name)
                    files = {(one.low, one.high) for one in known.segments} if known is not None else set()
                if known is not None and known.directory.is_dir():
                    # What was removed must not come back without the deletion; who still reads a removed file keeps it.
                    fsio.fsync_dir(known.directory)
                    numbers = map(parse_segment_name, (path.name for path in known.directory.iterdir()))
                    if not {one for one in numbers if one is not None} <= files:
                        continue
                self._deletions.forget(name, min(horizon, oldest), files)
            return len(self._deletions.known)
