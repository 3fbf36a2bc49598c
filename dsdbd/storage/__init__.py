"""Points of one node: a log for durability, heads in memory, Parquet segments on disk; Store is the way in."""

from dsdbd.storage.handoff_queue import HandoffQueue, QueueFull
from dsdbd.storage.settings import ShardKey, StoreSettings
from dsdbd.storage.shard import Shard
from dsdbd.storage.store import Store
from dsdbd.storage.wal_format import Kind as RecordKind
from dsdbd.storage.wal_format import Record

__all__ = [
    "HandoffQueue",
    "QueueFull",
    "Record",
    "RecordKind",
    "Shard",
    "ShardKey",
    "Store",
    "StoreSettings",
]
