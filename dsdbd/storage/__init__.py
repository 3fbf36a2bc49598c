"""Points of one node: a log for durability, heads in memory, Parquet segments on disk; Store is the way in."""

from dsdbd.storage.settings import ShardKey, StoreSettings
from dsdbd.storage.shard import Shard
from dsdbd.storage.store import Store

__all__ = ["Shard", "ShardKey", "Store", "StoreSettings"]
