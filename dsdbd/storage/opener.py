"""Getting shards ready for their first question in the background, after a start."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dsdbd.errors import CorruptData
from dsdbd.storage.cache import ColumnCache
from dsdbd.storage.shard import Shard
from dsdbd.storage.warming import Extents, recall, remember, warm_up

_MAX_SHARDS = 256
_MAX_SERIES = 4_000_000
"""So much is made ready; older shards wait for the first question, their indexes would take memory for nobody."""
_MAX_REST_S = 1.0
_MAX_DECODING_S = 10.0
"""So long columns are decoded for questions that may never come."""


class Opener:
    """Opens files, builds indexes and decodes columns, the newest shards first; every method from any thread.

    ``is_done``: whether ``run`` came to its end without ``stop``.
    """

    def __init__(self, shards: Callable[[], Sequence[Shard]], cache: ColumnCache, data_dir: Path) -> None:
        self._shards = shards
        self._cache = cache
        self._data_dir = data_dir
        self._closing = threading.Event()
        self.is_done = False

    def stop(self) -> None:
        """End ``run`` soon."""
        self._closing.set()

    def remember(self) -> None:
        """List what is in memory for the next start, unless what was listed before was not yet decoded again."""
        if self.is_done:
            segments = [segment for shard in self._shards() for segment in shard.opened_segments()]
            with contextlib.suppress(OSError):
                remember(self._data_dir, segments, self._cache)

    def run(self) -> None:
        """Work until the shards are ready or ``stop``: what a thread of the store does.

        Building indexes takes at most half of the time. What cannot be read is left to the question that needs it.
        """
        warm_up()
        extents = recall(self._data_dir)
        series = 0
        decoding_s = 0.0
        newest_first = sorted(self._shards(), key=lambda shard: -shard.shard_id)
        for shard in newest_first[:_MAX_SHARDS]:
            began_s = time.monotonic()
            try:
                series += shard.prepare(self._closing.is_set)
                prepared_s = time.monotonic()
                if decoding_s < _MAX_DECODING_S:
                    self._decode(shard, extents, prepared_s + _MAX_DECODING_S - decoding_s)
                    decoding_s += time.monotonic() - prepared_s
            except (OSError, CorruptData):
                continue
            if self._closing.is_set():
                return
            if series > _MAX_SERIES or self._closing.wait(min(prepared_s - began_s, _MAX_REST_S)):
                break
        self.is_done = not self._closing.is_set()

    def _decode(self, shard: Shard, extents: Extents, deadline_s: float) -> None:
        shard.read_ahead(
            extents,
            lambda: self._closing.is_set() or time.monotonic() > deadline_s or not self._cache.has_room(),
        )
