"""Deleting points in the files of several shards, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd.errors import DiskFull, ShardUnavailable
from dsdbd.storage.tombstones import encode_tombstones
from dsdbd.storage.wal import is_disk_full
from dsdbd.storage.wal_format import Kind, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dsdbd.storage.settings import ShardKey
    from dsdbd.storage.shard import Shard
    from dsdbd.storage.tombstones import Tombstone


def deleted_in_files(
    wanted: Sequence[tuple[ShardKey, Sequence[Tombstone]]], shard_of: Callable[[ShardKey], Shard]
) -> Iterator[tuple[Record, frozenset[str]]]:
    """Note deletions in the file of each shard, durably; gives the record that the log shall have of it, and the names.

    Raises Overloaded, DiskFull, ShardUnavailable at the first shard that cannot; those before it are done.
    """
    for key, tombstones in wanted:
        shard = shard_of(key)
        try:
            shard.delete(*tombstones)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(f"the deletion cannot be stored: {shard.directory} is full") from error
            raise ShardUnavailable(f"shard {key.shard_id} cannot delete: {error}; check the disk") from error
        record = Record(Kind.DELETE, key, encode_tombstones(tombstones))
        yield record, frozenset(one.measurement for one in tombstones)
