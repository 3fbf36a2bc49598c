"""What an operator may set about storage, and the bounds that follow from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShardKey:
    """Where a shard belongs. Shard ids are unique in a cluster and never given out twice."""

    database: str
    policy: str
    shard_id: int


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Sizes in bytes, times in seconds.

    ``head_max_bytes``: columns in memory of one shard above which they are written out.
    ``head_total_bytes``: the same for all shards together; the largest go first.
    ``head_hard_bytes``: columns in memory and in the queue above which writes are refused as Overloaded.
    ``flush_age_s``: columns older than this are written out, which also bounds what a start has to replay.
    ``wal_segment_bytes``: a log file is closed when it has grown past this.
    ``queue_max_bytes``: encoded batches waiting for the log thread.
    ``group_max_bytes``: encoded batches that share one fdatasync.
    ``merge_files``: neighbouring segment files of similar size that are merged into one.
    ``merge_max_bytes``: decoded size of the files of one merge, and so of the largest file it makes.
    ``merge_memory_bytes``: decoded row groups that one merge holds at once.
    ``merge_bytes_per_s``: decoded bytes that merges of the node write per second.
    ``full_merge_age_s``: a shard that was not written for this long is merged into few files.
    ``read_cache_bytes``: decoded columns of segments kept in memory, of all shards together.
    """

    head_max_bytes: int = 64 << 20
    head_total_bytes: int = 256 << 20
    head_hard_bytes: int = 512 << 20
    flush_age_s: float = 600.0
    wal_segment_bytes: int = 64 << 20
    queue_max_bytes: int = 64 << 20
    group_max_bytes: int = 16 << 20
    merge_files: int = 8
    merge_max_bytes: int = 4 << 30
    merge_memory_bytes: int = 256 << 20
    merge_bytes_per_s: int = 32 << 20
    full_merge_age_s: float = 86_400.0
    read_cache_bytes: int = 256 << 20
