"""Points of one node: a log for durability, heads in memory, Parquet segments on disk; Store is the way in."""

from dsdbd.storage.compaction import has_room
from dsdbd.storage.handoff_queue import HandoffQueue, QueueFull
from dsdbd.storage.replica import Replica
from dsdbd.storage.settings import ShardKey, StoreSettings
from dsdbd.storage.shard import Shard
from dsdbd.storage.shard_copies import HeldFile, HeldFiles
from dsdbd.storage.store import Store
from dsdbd.storage.wal_format import Kind as RecordKind
from dsdbd.storage.wal_format import Record

__all__ = [
    "HandoffQueue",
    "HeldFile",
    "HeldFiles",
    "QueueFull",
    "Record",
    "RecordKind",
    "Replica",
    "Shard",
    "ShardKey",
    "Store",
    "StoreSettings",
    "has_room",
]
