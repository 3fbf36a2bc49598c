"""One shard: head and segments as one, for readers and for the threads that write it out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from dsdbd import fsio
from dsdbd.errors import CorruptData, FieldTypeConflict
from dsdbd.model.columns import Batch
from dsdbd.model.predicate import TagPredicate
from dsdbd.model.scan import Edge, Extent, Piece, SeriesSet
from dsdbd.model.types import FieldType
from dsdbd.storage.head import Head
from dsdbd.storage.index import Numbers, SeriesIndex
from dsdbd.storage.merging import choose_merge, parse_segment_name, segment_name, superseded
from dsdbd.storage.names import escape_name
from dsdbd.storage.rows import Rows, concat_rows, fold_for_storage, sort_rows, unite_versions
from dsdbd.storage.segment import Segment, schema_of, series_starts, write_segment
from dsdbd.storage.settings import ShardKey, StoreSettings

CORRUPT_DIR = "corrupt"
ABOUT_FILE = "shard.json"


class ShardFile(msgspec.Struct):
    """Content of shard.json: names of directories may be cut, these are whole."""

    format: int
    database: str
    policy: str
    shard_id: int


@dataclass(slots=True)
class _Measurement:
    """What the shard knows of one measurement; ``types`` holds each field it has seen, in segments or in memory."""

    directory: Path
    index: SeriesIndex = field(default_factory=SeriesIndex)
    segments: list[Segment] = field(default_factory=list)
    types: dict[str, FieldType] = field(default_factory=dict)
    next_number: int = 1


class Shard:
    """Points of one shard; every method may be called from any thread.

    ``_lock`` guards the state and is never held while files are read or written; ``_files`` lets one thread at a time
    write out, merge or remove files. Order: ``_files`` before ``_lock``. ``head_bytes``: memory of the rows that are
    not in segments; may be read without a lock.
    """

    def __init__(self, key: ShardKey, directory: Path, settings: StoreSettings, note: Callable[[str], None]) -> None:
        self.key = key
        self.shard_id = key.shard_id
        self.directory = directory
        self.dropped = False
        self._settings = settings
        self._note = note
        self._lock = threading.RLock()
        self._files = threading.RLock()
        self._loaded = False
        self._measurements: dict[str, _Measurement] = {}
        self._head: Head | None = None
        self._frozen: list[Head] = []
        self.head_bytes = 0

    # --- opening

    def load(self) -> None:
        """Read the footers of the segments, once. Damaged files are set aside; raises OSError."""
        if self._loaded:
            return
        with self._files:
            if self._loaded:
                return
            found: list[Segment] = []
            if self.directory.is_dir():
                for directory in sorted(self.directory.iterdir()):
                    if directory.is_dir() and not directory.name.endswith(fsio.TEMPORARY_SUFFIX):
                        found += self._load_directory(directory)
            with self._lock:
                for segment in found:
                    measurement = self._measurement(segment.measurement)
                    measurement.directory = segment.path.parent
                    measurement.segments.append(segment)
                    measurement.next_number = max(measurement.next_number, segment.high + 1)
                for measurement in self._measurements.values():
                    for name, field_type in schema_of(measurement.segments).items():
                        measurement.types.setdefault(name, field_type)
                self._loaded = True

    def _load_directory(self, directory: Path) -> list[Segment]:
        """Segments of one measurement, oldest first; what a crash left half-way is removed."""
        for leftover in directory.glob(f"*{fsio.TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        files = {
            numbers: path for path in directory.iterdir() if (numbers := parse_segment_name(path.name)) is not None
        }
        segments: dict[tuple[int, int], Segment] = {}
        for numbers, path in files.items():
            try:
                segments[numbers] = Segment(path, *numbers)
            except CorruptData as error:
                self._set_aside(path, error)
        # Only a file that can be read makes others superfluous.
        for numbers in superseded(segments):
            segments.pop(numbers).path.unlink(missing_ok=True)
        return [segments[numbers] for numbers in sorted(segments)]

    def _set_aside(self, path: Path, error: CorruptData) -> None:
        kept = path.parent / CORRUPT_DIR / path.name
        try:
            fsio.make_dirs(kept.parent)
            path.rename(kept)
            fsio.fsync_dir(path.parent)
            self._note(
                f"{error.message}; the file is kept as {kept}; other owners of shard {self.shard_id} hold its rows"
            )
        except OSError as failure:
            self._note(f"{error.message}; it could not be moved to {kept}: {failure}")

    def _measurement(self, name: str) -> _Measurement:
        measurement = self._measurements.get(name)
        if measurement is None:
            measurement = self._measurements[name] = _Measurement(self.directory / escape_name(name))
        return measurement

    # --- writing

    def check_types(self, batch: Batch) -> None:
        """Raise FieldTypeConflict when a field has another type here; fields seen first get theirs fixed."""
        with self._lock:
            for points in batch.points:
                known = self._measurement(points.measurement).types
                for name, column in points.fields.items():
                    fixed = known.setdefault(name, column.type)
                    if fixed is not column.type:
                        raise FieldTypeConflict(
                            f'field type conflict: input field "{name}" on measurement "{points.measurement}" is type '
                            f"{column.type.value}, already exists as type {fixed.value}"
                        )

    def insert(self, batch: Batch, wal_sequence: int, now_s: float) -> None:
        """Make the rows of a logged batch visible."""
        with self._lock:
            if self._head is None:
                self._head = Head(wal_sequence, now_s)
            before = self._head.size_bytes
            for points in batch.points:
                if len(points):
                    self._head.add(points, batch.version, self._measurement(points.measurement).index)
            self.head_bytes += self._head.size_bytes - before

    def oldest_wal(self) -> int | None:
        """Number of the oldest log file that still holds rows which are not in segments; None when all are."""
        with self._lock:
            heads = [*self._frozen, *([] if self._head is None else [self._head])]
            return min((head.oldest_wal for head in heads), default=None)

    def oldest_row_s(self) -> float | None:
        """Monotonic time at which the oldest row in memory arrived; None when there is none."""
        with self._lock:
            heads = [*self._frozen, *([] if self._head is None else [self._head])]
            return min((head.since_s for head in heads), default=None)

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
            if known is None:
                return None
            heads = [*self._frozen, *([] if self._head is None else [self._head])]
            times = [part.time_ns for head in heads for part in head.parts(measurement, known.types)]
            segments = list(known.segments)
        low = [int(part.min()) for part in times if len(part)] + [segment.min_ns for segment in segments]
        high = [int(part.max()) for part in times if len(part)] + [segment.max_ns for segment in segments]
        if not low:
            return None
        return Extent(sum(map(len, times)) + sum(segment.rows for segment in segments), min(low), max(high))

    def scan(
        self,
        measurement: str,
        *,
        predicate: TagPredicate,
        min_ns: int,
        max_ns: int,
        fields: Sequence[str],
        edge: Edge | None = None,  # noqa: ARG002 - a hint
    ) -> Iterator[Piece]:
        """Rows of matching series within inclusive times, in pieces; each (series, time) once.

        Only rows with a value in one of ``fields`` count (all rows when ``fields`` is empty); a field the shard does
        not hold is left out of the result. A scan sees every write that was acknowledged before it began.
        """
        piece = self._scan(measurement, predicate, min_ns, max_ns, fields)
        if piece is not None:
            yield piece

    def _scan(
        self, measurement: str, predicate: TagPredicate, min_ns: int, max_ns: int, fields: Sequence[str]
    ) -> Piece | None:
        while not self.dropped:
            self._number_series(measurement)
            with self._lock:
                known = self._measurements.get(measurement)
                if known is None:
                    return None
                if any(segment.run_series is None for segment in known.segments):
                    continue
                order = known.index.in_key_order(known.index.select(predicate))
                types = {name: known.types[name] for name in fields if name in known.types}
                if not len(order) or (fields and not types):
                    return None
                heads = [*self._frozen, *([] if self._head is None else [self._head])]
                parts = [part for head in heads for part in head.parts(measurement, known.types)]
                segments = list(known.segments)
                count = len(known.index)
                chosen = known.index.subset(measurement, order)
                for segment in segments:
                    segment.pins += 1
            try:
                rows = self._collect(segments, parts, order, count, types, min_ns, max_ns)
            except CorruptData as error:
                self._damaged(known, error)
                continue
            except FileNotFoundError:
                if self.dropped:
                    return None
                raise
            finally:
                self._unpin(segments)
            return _as_piece(rows, chosen, bool(fields))
        return None

    def _collect(
        self,
        segments: list[Segment],
        parts: list[Rows],
        order: Numbers,
        count: int,
        types: dict[str, FieldType],
        min_ns: int,
        max_ns: int,
    ) -> Rows:
        """Rows of the chosen series, their numbers replaced by positions in ``order``."""
        rank = np.full(count, -1, dtype=np.int64)
        rank[order] = np.arange(len(order), dtype=np.int64)
        wanted = rank >= 0
        found = []
        for segment in segments:
            try:
                found.append(segment.read(wanted, min_ns, max_ns, list(types)))
            except CorruptData as error:
                raise _SegmentDamage(error.message, segment) from error
        for part in parts:
            mask = wanted[part.series] & (part.time_ns >= min_ns) & (part.time_ns <= max_ns)
            wanted_fields = {name: part.fields[name] for name in types if name in part.fields}
            chosen = Rows(part.series, part.time_ns, part.version, wanted_fields)
            found.append(chosen if mask.all() else chosen.take(np.flatnonzero(mask)))
        rows = concat_rows([part for part in found if len(part)] or [_no_rows()], types)
        ranked = Rows(rank[rows.series], rows.time_ns, rows.version, rows.fields)
        return unite_versions(sort_rows(ranked))

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
                    series, starts = segment.read_series()
                except CorruptData as error:
                    self._damaged(known, _SegmentDamage(error.message, segment))
                    continue
                with self._lock:
                    segment.run_starts = starts
                    segment.run_series = known.index.numbers(one.key() for one in series)
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
            with contextlib.suppress(OSError):
                segment.path.unlink(missing_ok=True)

    def _damaged(self, known: _Measurement, error: CorruptData) -> None:
        segment = error.segment if isinstance(error, _SegmentDamage) else None
        if segment is None:
            raise error
        with self._lock:
            if segment not in known.segments:
                return
            known.segments.remove(segment)
        self._set_aside(segment.path, error)

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
                    self.head_bytes -= head.size_bytes
        return written

    def _flush_table(self, head: Head, name: str) -> None:
        with self._lock:
            known = self._measurement(name)
            types = dict(known.types)
            parts = head.parts(name, types)
            number = known.next_number
        rows = concat_rows(parts, {key: types[key] for key in types if any(key in part.fields for part in parts)})
        segment = self._write(known, name, rows, number, number)
        with self._lock:
            # Readers see the rows in the head or in the segment, never in neither.
            known.segments.append(segment)
            known.next_number = number + 1
            del head.tables[name]

    def _write(self, known: _Measurement, name: str, rows: Rows, low: int, high: int) -> Segment:
        """Sort, fold and write rows as one segment, opened and numbered."""
        with self._lock:
            order = known.index.in_key_order(np.unique(rows.series))
            series = [known.index.series[one] for one in order.tolist()]
            count = len(known.index)
        rank = np.full(count, -1, dtype=np.int64)
        rank[order] = np.arange(len(order), dtype=np.int64)
        folded = fold_for_storage(sort_rows(Rows(rank[rows.series], rows.time_ns, rows.version, rows.fields)))
        if not known.directory.is_dir():
            self._make_directory(known.directory)
        path = known.directory / segment_name(low, high)
        write_segment(path, name, series, folded)
        segment = Segment(path, low, high)
        segment.run_starts = np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(np.diff(folded.series)) + 1])
        segment.run_series = order[folded.series[segment.run_starts]]
        return segment

    def _make_directory(self, directory: Path) -> None:
        fsio.make_dirs(self.directory)
        about = self.directory / ABOUT_FILE
        if not about.exists():
            content = ShardFile(1, self.key.database, self.key.policy, self.shard_id)
            fsio.write_atomic(about, msgspec.json.encode(content))
        fsio.make_dirs(directory)

    def merge(self) -> int:
        """Merge small neighbouring segments; returns how many merges were done. Raises OSError."""
        merges = 0
        with self._files:
            self.load()
            with self._lock:
                names = list(self._measurements)
            for name in names:
                while not self.dropped and self._merge_once(name):
                    merges += 1
        return merges

    def _merge_once(self, name: str) -> bool:
        with self._lock:
            known = self._measurements[name]
            choice = choose_merge(
                [segment.memory_bytes for segment in known.segments],
                fan=self._settings.merge_files,
                max_bytes=self._settings.merge_max_bytes,
            )
        if choice is None:
            return False
        self._number_series(name)
        with self._lock:
            chosen = known.segments[slice(*choice)]
            types = dict(schema_of(chosen))
        if len(chosen) < 2 or any(segment.run_series is None for segment in chosen):
            return False
        parts = []
        for segment in chosen:
            try:
                parts.append(segment.read(None, -(1 << 63), (1 << 63) - 1, list(segment.fields)))
            except CorruptData as error:
                self._damaged(known, _SegmentDamage(error.message, segment))
                return True
        merged = self._write(known, name, concat_rows(parts, types), chosen[0].low, chosen[-1].high)
        with self._lock:
            at = known.segments.index(chosen[0])
            known.segments[at : at + len(chosen)] = [merged]
            for segment in chosen:
                segment.obsolete = True
                self._unlink_idle(segment)
        return True

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


class _SegmentDamage(CorruptData):
    """CorruptData that knows the segment it was found in."""

    def __init__(self, message: str, segment: Segment) -> None:
        super().__init__(message)
        self.segment = segment


def _no_rows() -> Rows:
    empty = np.empty(0, dtype=np.int64)
    return Rows(empty, empty, empty, {})


def _as_piece(rows: Rows, series: SeriesSet, only_with_values: bool) -> Piece | None:
    """United rows as a Piece; ``rows.series`` are positions in ``series``."""
    if only_with_values and all(column.valid is not None for column in rows.fields.values()):
        has_value = np.zeros(len(rows), dtype=np.bool_)
        for column in rows.fields.values():
            assert column.valid is not None, "looked at above"
            has_value |= column.valid
        if not has_value.all():
            rows = rows.take(np.flatnonzero(has_value))
    if not len(rows):
        return None
    starts = series_starts(rows.series)
    return Piece(series, rows.series[starts].astype(np.int32), starts, rows.time_ns, rows.fields)
