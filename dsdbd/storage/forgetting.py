"""When a deletion has nothing left to meet: no log file and no other node can bring an older row any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from dsdbd.limits import LATE_BATCH_NS
from dsdbd.storage.shard import Shard
from dsdbd.storage.wal import log_files

_LOOK_S = 60.0


class Horizon:
    """Takes note of the log files there are, and says which versions are past. Pure.

    Times and versions are nanoseconds of Unix time: a version is the time at which its write began, or little more.
    """

    def __init__(self) -> None:
        self._begun_ns: dict[int, int] = {}
        self._looked_ns = 0

    def look(self, log_files: Collection[int], now_ns: int, late_ns: int = LATE_BATCH_NS) -> int:
        """A version below which no batch can arrive any more, given the numbers of the log files at this time.

        A batch may arrive ``late_ns`` after its version, not later; and a restart brings back what the files
        hold. When files were begun that were there at the first look nobody knows: while one of them is left nothing
        is past.
        """
        self._begun_ns = {number: self._begun_ns.get(number, self._looked_ns) for number in log_files}
        self._looked_ns = now_ns
        return min([now_ns, *self._begun_ns.values()]) - late_ns


class Forgetter:
    """Lets shards forget deletions; for one thread. ``late_ns`` says how long after its version a batch may arrive.

    ``settled``: by shard id the version up to which no owner lacks anything; None where that is no question.
    """

    def __init__(
        self,
        shards: Callable[[], Sequence[Shard]],
        wal_dir: Path,
        late_ns: Callable[[], int],
        settled: Callable[[int], int] | None = None,
    ) -> None:
        self._shards = shards
        self._late_ns = late_ns
        self._settled = settled
        self._wal_dir = wal_dir
        self._horizon = Horizon()
        self._looked_s = float("-inf")

    def look(self) -> None:
        """Forget what can be forgotten; does something once a minute. Raises OSError, after all had their turn."""
        if time.monotonic() - self._looked_s < _LOOK_S:
            return
        self._looked_s = time.monotonic()
        numbers = [number for number, _ in log_files(self._wal_dir)]
        horizon = self._horizon.look(numbers, time.time_ns(), self._late_ns())
        failed: OSError | None = None
        for shard in self._shards():
            if shard.tombstones:
                bound = horizon if self._settled is None else min(horizon, self._settled(shard.shard_id))
                try:
                    shard.forget_tombstones(bound)
                except OSError as error:
                    failed = error
        if failed is not None:
            raise failed
