"""Getting shards ready for their first question in the background, after a start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from dsdbd.errors import CorruptData
from dsdbd.storage.shard import Shard

_MAX_SHARDS = 256
_MAX_SERIES = 4_000_000
"""So much is made ready; older shards wait for the first question, their indexes would take memory for nobody."""
_MAX_REST_S = 1.0


class Opener:
    """Opens files and builds indexes, the newest shards first; every method from any thread."""

    def __init__(self, shards: Callable[[], Sequence[Shard]]) -> None:
        self._shards = shards
        self._closing = threading.Event()

    def stop(self) -> None:
        """End ``run`` soon."""
        self._closing.set()

    def run(self) -> None:
        """Work until the shards are ready or ``stop``, at most half of the time: what a thread of the store does.

        What cannot be read is left to the question that needs it.
        """
        warm_up()
        series = 0
        newest_first = sorted(self._shards(), key=lambda shard: -shard.shard_id)
        for shard in newest_first[:_MAX_SHARDS]:
            began_s = time.monotonic()
            try:
                series += shard.prepare(self._closing.is_set)
            except (OSError, CorruptData):
                continue
            if series > _MAX_SERIES or self._closing.wait(min(time.monotonic() - began_s, _MAX_REST_S)):
                return


def warm_up() -> None:
    """Have libraries load what they load at their first use, which takes longer than a small query."""
    pa.array(np.zeros(1), mask=np.zeros(1, dtype=np.bool_))
