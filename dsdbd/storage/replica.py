"""One shard as one of several replicas: its files, and what has been deleted from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from dsdbd.storage.shard import Shard
from dsdbd.storage.shard_copies import HeldFiles
from dsdbd.storage.tombstones import Tombstone


class Replica:
    """A shard and the times of its shard group, ``start_ns`` to ``end_ns`` (exclusive).

    ``wake`` is told of the shard when it has a new file. Every method may be called from any thread, and blocks.
    """

    def __init__(self, shard: Shard, start_ns: int, end_ns: int, wake: Callable[[Shard], None] | None = None) -> None:
        self.shard = shard
        self.start_ns = start_ns
        self.end_ns = end_ns
        self._wake = wake

    def tombstones(self) -> tuple[Tombstone, ...]:
        """The deletions that are kept, without numbers of files: what another replica may compare. Raises OSError."""
        return self.shard.kept_tombstones()

    @contextlib.contextmanager
    def files(self) -> Iterator[HeldFiles]:
        """All that was acknowledged before the call as segment files, which stay until the end of the block.

        Raises OSError; a file that vanishes meanwhile means that the shard was removed.
        """
        self.shard.flush()
        with self.shard.held_files() as held:
            yield held

    def adopt(self, measurement: str, path: Path) -> None:
        """Make a complete segment file, under a temporary name below the shard's directory, one of this shard.

        Durable on return. Raises CorruptData, ShardUnavailable, OSError: then nothing has changed.
        """
        self.shard.adopt(measurement, path)
        if self._wake is not None:
            self._wake(self.shard)
