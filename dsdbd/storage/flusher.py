"""Writing the heads of a node's shards out as segments, when they are too big or too old."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dsdbd.storage.compactor import Compactor
from dsdbd.storage.settings import StoreSettings
from dsdbd.storage.shard import Shard
from dsdbd.storage.wal import is_disk_full
from dsdbd.storage.writeout import due

_LOOK_S = 1.0
"""How often heads are looked at for their age."""
_COUNT_S = 0.01
"""Age at which the size of all heads is added up anew; with thousands of shards that takes a part of a millisecond."""
_RETRY_S = 2.0
"""Pause after a failed attempt to write segments."""


class Flusher:
    """Writes out what is due; every method from any thread.

    ``head_bytes``: of all heads when they were last added up. ``counts``: heads written out since the start.
    ``failures``: by shard id why its rows could not be written out; they stay in memory and in the log, and the next
    attempt follows soon. ``after`` is called behind each round, by the thread that runs, with how many shards were due.
    """

    def __init__(
        self,
        shards: Callable[[], Sequence[Shard]],
        settings: StoreSettings,
        data_dir: Path,
        compactor: Compactor,
        after: Callable[[int], None],
    ) -> None:
        self.counts = {"flushes": 0}
        self.failures: dict[int, str] = {}
        self.head_bytes = 0
        self._shards = shards
        self._settings = settings
        self._data_dir = data_dir
        self._compactor = compactor
        self._after = after
        self._counted_s = 0.0
        self._due = threading.Event()
        self._closing = False

    def stop(self) -> None:
        """End ``run`` soon; what is being written is finished."""
        self._closing = True
        self._due.set()

    def wake(self) -> None:
        """Have a round begin now."""
        self._due.set()

    def forget(self, shard_id: int) -> None:
        """Say that a shard is gone."""
        self.failures.pop(shard_id, None)

    def count(self) -> None:
        """Add up the heads, for the bound on memory, and begin a round when there is work."""
        sizes = [shard.head_bytes for shard in self._shards()]
        self.head_bytes = total = sum(sizes)
        self._counted_s = time.monotonic()
        if total > self._settings.head_total_bytes or max(sizes, default=0) > self._settings.head_max_bytes:
            self._due.set()

    def count_if_old(self) -> None:
        """Add up the heads where that was done a while ago."""
        if time.monotonic() - self._counted_s > _COUNT_S:
            self.count()

    def run(self) -> None:
        """Write out until ``stop``: what a thread of the store does."""
        pause_s = _LOOK_S
        while not self._closing:
            self._due.wait(pause_s)
            self._due.clear()
            if self._closing:
                return
            found = itertools.takewhile(
                lambda _: not self._closing, due(self._shards(), self._settings, time.monotonic())
            )
            good = [self.write_out(shard) for shard in found]
            self.count()
            pause_s = _LOOK_S if all(good) else _RETRY_S
            self._after(len(good))

    def flush(self, shard: Shard) -> None:
        """Write the rows in memory of one shard to segments. Raises OSError."""
        self.counts["flushes"] += shard.flush()

    def write_out(self, shard: Shard) -> bool:
        """The same; what fails is noted and tried again later, the rows stay in memory and in the log."""
        try:
            self.flush(shard)
            self._compactor.wake(shard)
        except Exception as error:  # whatever it is, other shards still want to be written out
            full = isinstance(error, OSError) and is_disk_full(error)
            why = str(error) or type(error).__name__
            self.failures[shard.shard_id] = (
                f"{self._data_dir} is full" if full else f"shard {shard.shard_id} cannot be written out: {why}"
            )
            return False
        self.failures.pop(shard.shard_id, None)
        return True
