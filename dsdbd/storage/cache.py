"""Decoded columns and open readers of segment files, kept within bounds for all shards of a store."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from dsdbd.model.columns import Column

_file_ids = itertools.count(1)


def next_file_id() -> int:
    """A number no other open file of this process has; names of files come back, numbers do not."""
    return next(_file_ids)


def column_size_bytes(column: Column) -> int:
    """Memory of a decoded column."""
    size: int = column.values.nbytes
    return size + (0 if column.valid is None else column.valid.nbytes)


@dataclass(slots=True, eq=False)
class Extent:
    """A decoded column of the neighbouring row groups ``first`` to ``stop`` (exclusive) of one file."""

    file_id: int
    name: str
    first: int
    stop: int
    column: Column
    size_bytes: int = 0
    used: bool = field(default=True)

    def __post_init__(self) -> None:
        self.size_bytes = column_size_bytes(self.column)


class ColumnCache:
    """Extents by file, column and row group; thread-safe.

    A new extent goes to the end of a queue. When ``max_bytes`` are exceeded the one in front leaves, unless it was
    used since it last came by: then it goes to the end once more (the clock algorithm, which keeps what is used often
    at the price of one flag per use). ``files``: open readers of the same files.
    """

    def __init__(self, max_bytes: int, max_files: int = 128) -> None:
        self.files = OpenFiles(max_files)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._columns: dict[tuple[int, str], dict[int, Extent]] = {}
        self._queue: deque[Extent] = deque()
        self._bytes = 0
        self._hits = 0
        self._misses = 0

    def get(self, file_id: int, name: str, groups: list[int]) -> dict[int, Extent]:
        """The extents that hold the row groups, by row group; those that are not there are left out."""
        with self._lock:
            known = self._columns.get((file_id, name), {})
            found = {group: known[group] for group in groups if group in known}
            for extent in found.values():
                extent.used = True
            self._hits += len(found)
            self._misses += len(groups) - len(found)
            return found

    def missing(self, file_id: int, name: str, groups: list[int]) -> list[int]:
        """Those of the row groups that are not there; counts neither as hit nor as miss."""
        with self._lock:
            known = self._columns.get((file_id, name), {})
            return [group for group in groups if group not in known]

    def put(self, extent: Extent) -> None:
        """Keep an extent, unless one of its row groups is there already or it alone would be half of the cache."""
        if extent.size_bytes * 2 > self._max_bytes:
            return
        with self._lock:
            known = self._columns.get((extent.file_id, extent.name), {})
            groups = range(extent.first, extent.stop)
            if any(group in known for group in groups):
                return
            # Room is made first: a new extent is about to be read and must not be the one that goes.
            while self._bytes + extent.size_bytes > self._max_bytes:
                self._evict_one()
            extent.used = False
            known = self._columns.setdefault((extent.file_id, extent.name), {})
            known.update(dict.fromkeys(groups, extent))
            self._queue.append(extent)
            self._bytes += extent.size_bytes

    def _evict_one(self) -> None:
        extent = self._queue.popleft()
        if extent.used:
            extent.used = False
            self._queue.append(extent)
            return
        self._bytes -= extent.size_bytes
        known = self._columns.get((extent.file_id, extent.name), {})
        for group in range(extent.first, extent.stop):
            known.pop(group, None)
        if not known:
            self._columns.pop((extent.file_id, extent.name), None)

    def forget(self, file_id: int) -> None:
        """Drop what is kept of a file that is closed for good, open readers included."""
        self.files.forget(file_id)
        with self._lock:
            if all(key[0] != file_id for key in self._columns):
                return
            self._columns = {key: known for key, known in self._columns.items() if key[0] != file_id}
            self._queue = deque(extent for extent in self._queue if extent.file_id != file_id)
            self._bytes = sum(extent.size_bytes for extent in self._queue)

    def newest(self, most: int) -> list[Extent]:
        """What is kept, from the end of the queue on."""
        with self._lock:
            return list(itertools.islice(reversed(self._queue), most))

    def has_room(self) -> bool:
        """Whether a quarter is left, for what is asked next."""
        return self._bytes * 4 < self._max_bytes * 3

    def stats(self) -> dict[str, int]:
        """Bytes and extents kept, and how many row groups of columns were found or not."""
        with self._lock:
            return {
                "cache_bytes": self._bytes,
                "cache_extents": len(self._queue),
                "cache_hits": self._hits,
                "cache_misses": self._misses,
            }


class OpenFiles:
    """Parquet readers that wait for their next use, each with its file open and its footer parsed; thread-safe.

    A reader is used by one thread at a time: it is taken out and given back. Of more than ``max_files`` the one that
    waited longest is closed.
    """

    def __init__(self, max_files: int) -> None:
        self._max_files = max_files
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, tuple[int, Any]] = OrderedDict()
        self._of_file: dict[int, list[int]] = {}
        self._tickets = itertools.count()

    def take(self, file_id: int) -> Any | None:
        """A reader of the file, now the caller's; None when none waits."""
        with self._lock:
            tickets = self._of_file.get(file_id)
            if not tickets:
                return None
            ticket = tickets.pop()
            if not tickets:
                del self._of_file[file_id]
            return self._idle.pop(ticket)[1]

    def give(self, file_id: int, reader: Any) -> None:
        """Keep a reader for its next use."""
        with self._lock:
            ticket = next(self._tickets)
            self._idle[ticket] = (file_id, reader)
            self._of_file.setdefault(file_id, []).append(ticket)
            doomed = self._pop_oldest() if len(self._idle) > self._max_files else None
        if doomed is not None:
            doomed.close()

    def _pop_oldest(self) -> Any:
        ticket, (file_id, reader) = self._idle.popitem(last=False)
        self._of_file[file_id].remove(ticket)
        if not self._of_file[file_id]:
            del self._of_file[file_id]
        return reader

    def forget(self, file_id: int) -> None:
        """Close the readers of a file that is closed for good."""
        while (reader := self.take(file_id)) is not None:
            reader.close()

    def __len__(self) -> int:
        return len(self._idle)
