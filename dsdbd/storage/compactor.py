"""Merging the segments of a node's shards in the background, one shard at a time and within a rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from dsdbd.limits import PURGE_AFTER_NS
from dsdbd.storage.compaction import CompactionStopped, Pace, wait_s
from dsdbd.storage.settings import StoreSettings
from dsdbd.storage.shard import Shard

_RETRY_S = 3.0
"""Pause after a failed merge."""
_REST_LOOK_S = 60.0
"""How often shards are looked at that nobody writes to any more."""


class Compactor:
    """Merges what ``wake`` was told of, and now and then shards that rest; every method from any thread.

    ``counts``: merges done and decoded bytes written since the start. ``failures``: by shard id why its files could not
    be merged; a merge that fails is tried again, and its shard stays as it was.
    """

    def __init__(self, shards: Callable[[], Sequence[Shard]], settings: StoreSettings) -> None:
        self.counts = {"merges": 0, "merged_bytes": 0}
        self.failures: dict[int, str] = {}
        self._shards = shards
        self._settings = settings
        self._due: dict[int, Shard] = {}
        self._work = threading.Condition()
        self._closing = threading.Event()
        self._last_s = 0.0

    def stop(self) -> None:
        """End ``run`` soon; the merge that is going on leaves no trace."""
        self._closing.set()
        with self._work:
            self._work.notify_all()

    def wake(self, shard: Shard) -> None:
        """Say that a shard has a new segment."""
        with self._work:
            self._due[shard.shard_id] = shard
            self._work.notify_all()

    def forget(self, shard_id: int) -> None:
        """Say that a shard is gone."""
        with self._work:
            self._due.pop(shard_id, None)
            self.failures.pop(shard_id, None)

    def _next(self, timeout_s: float) -> Shard | None:
        with self._work:
            if not self._due and not self._closing.is_set():
                self._work.wait(timeout_s)
            return self._due.pop(next(iter(self._due))) if self._due else None

    def run(self) -> None:
        """Merge until ``stop``: what a thread of the store does."""
        look_s = time.monotonic() + _REST_LOOK_S
        while not self._closing.is_set():
            shard = self._next(max(0.0, look_s - time.monotonic()))
            if shard is not None:
                self._merge(shard, full=False)
            if time.monotonic() >= look_s:
                look_s = time.monotonic() + _REST_LOOK_S
                for resting in self._resting():
                    self._merge(resting, full=True)
                for shard in self._shards():
                    if shard.tombstones:
                        self._purge(shard)

    def _resting(self) -> list[Shard]:
        before_s = time.time() - self._settings.full_merge_age_s
        return [shard for shard in self._shards() if shard.written_s() < before_s]

    def _merge(self, shard: Shard, *, full: bool) -> None:
        self._work_on(shard, lambda pace: shard.merge(pace, full=full))

    def _purge(self, shard: Shard) -> None:
        self._work_on(shard, lambda pace: shard.purge(time.time_ns() - PURGE_AFTER_NS, pace))

    def _work_on(self, shard: Shard, work: Callable[[Pace], int]) -> None:
        self._last_s = time.monotonic()
        try:
            self.counts["merges"] += work(Pace(self._rest, self._closing.is_set))
        except CompactionStopped:
            return
        except Exception as error:  # whatever it is, other shards still want their files merged
            self.failures[shard.shard_id] = f"files of shard {shard.shard_id} cannot be merged: {error}"
            if not self._closing.wait(_RETRY_S) and not shard.dropped:
                self.wake(shard)
            return
        self.failures.pop(shard.shard_id, None)

    def _rest(self, size_bytes: int) -> None:
        """Keep the rate: wait for what the work since the last call was too quick."""
        self.counts["merged_bytes"] += size_bytes
        spent_s = time.monotonic() - self._last_s
        self._closing.wait(wait_s(size_bytes, self._settings.merge_bytes_per_s, spent_s))
        self._last_s = time.monotonic()
