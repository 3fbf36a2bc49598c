"""Which shards have to be written out. Pure, given what the shards say of themselves."""

from __future__ import annotations

from collections.abc import Sequence

from dsdbd.storage.settings import StoreSettings
from dsdbd.storage.shard import Shard


def due(shards: Sequence[Shard], settings: StoreSettings, now_s: float) -> list[Shard]:
    """Shards whose head is too big or too old; when all heads together are too big, the biggest as well."""
    states = [(shard.head_bytes, shard.oldest_row_s(), shard) for shard in shards]
    total = sum(size for size, _, _ in states)
    found = []
    for size, since_s, shard in sorted(states, key=lambda state: -state[0]):
        old = since_s is not None and now_s - since_s > settings.flush_age_s
        if size > settings.head_max_bytes or old or (size and total > settings.head_total_bytes):
            found.append(shard)
            total -= size
    return found
