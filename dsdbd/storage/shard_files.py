"""The directory of a shard: finding its segments, setting damaged ones aside, making it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from dsdbd import fsio
from dsdbd.decoding import decode_json
from dsdbd.errors import CorruptData
from dsdbd.model.columns import Int64s
from dsdbd.model.scan import SeriesSet
from dsdbd.storage.cache import ColumnCache
from dsdbd.storage.log_mark import forget_mark
from dsdbd.storage.merging import parse_segment_name, segment_name, superseded
from dsdbd.storage.rows import Rows
from dsdbd.storage.segment import Segment, series_starts, write_segment
from dsdbd.storage.settings import ShardKey
from dsdbd.storage.tombstones import Tombstone, decode_tombstones, encode_tombstones

CORRUPT_DIR = "corrupt"
ABOUT_FILE = "shard.json"
TOMBSTONES_FILE = "tombstones.json"


class ShardFile(msgspec.Struct):
    """Content of shard.json: names of directories may be cut, these are whole."""

    format: int
    database: str
    policy: str
    shard_id: int


def found_shards(
    data_dir: Path, directory_of: Callable[[ShardKey], Path], note: Callable[[str], None]
) -> Iterator[tuple[ShardKey, Path]]:
    """Every shard under a directory; ``note`` is told which are not served. Raises OSError."""
    known: set[int] = set()
    for directory in sorted(path for path in data_dir.glob("*/*/*") if path.is_dir()):
        if directory.name.endswith(fsio.TEMPORARY_SUFFIX):
            # A removal that a crash interrupted.
            fsio.remove_tree(directory)
        elif directory.name.isdecimal():
            key = _read_about(directory, note)
            if key is None:
                continue
            if key.shard_id in known or directory_of(key) != directory:
                note(f"shard directory {directory} says it is shard {key.shard_id} of {key.database!r}; ignored")
                continue
            known.add(key.shard_id)
            yield key, directory


def _read_about(directory: Path, note: Callable[[str], None]) -> ShardKey | None:
    about = directory / ABOUT_FILE
    try:
        known = decode_json(about.read_bytes(), ShardFile)
    except FileNotFoundError:
        # A crash before the first segment: nothing but empty directories.
        if any(directory.rglob("*.parquet")):
            note(f"shard directory {directory} lacks {ABOUT_FILE}; its points are not served")
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        note(f"{about} cannot be read: {error}; the points in {directory} are not served")
        return None
    return ShardKey(known.database, known.policy, known.shard_id)


def remove_empty_parents(directory: Path, root: Path) -> None:
    """Remove the directories below ``root`` that a removed one left empty. Raises OSError.

    What is written below one of them at this instant may miss its parent; it is written again.
    """
    for parent in directory.parents:
        if parent == root:
            return
        try:
            parent.rmdir()
        except OSError:
            return
        fsio.fsync_dir(parent.parent)


@contextlib.contextmanager
def gone_on_failure(path: Path) -> Iterator[None]:
    """Remove a segment file when the block that writes it and makes it known fails, which may be after its rename.

    Deletions do not count a file that nobody knows of, and it would bring back what they hide at a later start.
    """
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


class ShardFiles:
    """Files of one shard under ``directory``; ``note`` is told what an operator should know."""

    def __init__(self, key: ShardKey, directory: Path, cache: ColumnCache, note: Callable[[str], None]) -> None:
        self.directory = directory
        self._key = key
        self._cache = cache
        self._note = note

    def load(self) -> list[Segment]:
        """Every segment; damaged ones are set aside. Raises OSError."""
        found: list[Segment] = []
        if self.directory.is_dir():
            for directory in sorted(self.directory.iterdir()):
                if directory.is_dir() and not directory.name.endswith(fsio.TEMPORARY_SUFFIX):
                    found += self._load_measurement(directory)
        return found

    def _load_measurement(self, directory: Path) -> list[Segment]:
        """Segments of one measurement, oldest first; what a crash left half-way is removed."""
        for leftover in directory.glob(f"*{fsio.TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        files = {
            numbers: path for path in directory.iterdir() if (numbers := parse_segment_name(path.name)) is not None
        }
        segments: dict[tuple[int, int], Segment] = {}
        for numbers, path in files.items():
            try:
                segments[numbers] = self.open(path, *numbers)
            except CorruptData as error:
                self.set_aside(path, error)
        # Only a file that can be read makes others superfluous.
        for numbers in superseded(segments):
            segment = segments.pop(numbers)
            segment.close()
            segment.path.unlink(missing_ok=True)
        return [segments[numbers] for numbers in sorted(segments)]

    def open(self, path: Path, low: int, high: int) -> Segment:
        """The segment in a file. Raises CorruptData, OSError."""
        return Segment(path, low, high, self._cache)

    def open_numbered(self, path: Path, runs: Int64s) -> Segment:
        """The segment in a file that was written just now, the series of whose runs are known."""
        numbers = parse_segment_name(path.name)
        assert numbers is not None, "a segment has the name of one"
        segment = self.open(path, *numbers)
        segment.number_series(runs)
        return segment

    def write(self, directory: Path, order: Int64s, series: SeriesSet, rows: Rows, number: int) -> Segment:
        """Write sorted and folded rows; ``rows.series`` are places in ``series``, which are the numbers in ``order``.

        Durable on return; raises OSError.
        """
        if not directory.is_dir():
            self.make()
            fsio.make_dirs(directory)
        path = directory / segment_name(number, number)
        with gone_on_failure(path):
            write_segment(path, series, rows)
            return self.open_numbered(path, order[rows.series[series_starts(rows.series)]])

    def set_aside(self, path: Path, error: CorruptData) -> None:
        """Move a damaged file out of the way and say so."""
        kept = path.parent / CORRUPT_DIR / path.name
        try:
            # First: the log may still hold rows of the file, a start has to look.
            forget_mark(self.directory)
            fsio.make_dirs(kept.parent)
            path.rename(kept)
            fsio.fsync_dir(path.parent)
            self._note(
                f"{error.message}; the file is kept as {kept}; other owners of shard {self._key.shard_id} hold its rows"
            )
        except OSError as failure:
            self._note(f"{error.message}; it could not be moved to {kept}: {failure}")

    def load_tombstones(self) -> tuple[Tombstone, ...]:
        """The shard's deletions; a damaged file is set aside, and what was deleted may show again. Raises OSError."""
        path = self.directory / TOMBSTONES_FILE
        try:
            return decode_tombstones(path.read_bytes())
        except FileNotFoundError:
            return ()
        except CorruptData as error:
            self.set_aside(path, CorruptData(f"deletions in {path} cannot be read: {error.message}"))
            return ()

    def store_tombstones(self, tombstones: Sequence[Tombstone]) -> None:
        """Replace the file of deletions; a crash leaves the old one or the new one. Raises OSError."""
        self.make()
        fsio.write_atomic(self.directory / TOMBSTONES_FILE, encode_tombstones(tombstones))

    def make(self) -> None:
        """Make the directory and the file that says whose it is. Raises OSError."""
        fsio.make_dirs(self.directory)
        about = self.directory / ABOUT_FILE
        if not about.exists():
            content = ShardFile(1, self._key.database, self._key.policy, self._key.shard_id)
            fsio.write_atomic(about, msgspec.json.encode(content))
