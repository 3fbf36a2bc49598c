"""Bringing the log's records back into heads when a store opens."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dsdbd.errors import DSDBError
from dsdbd.model.columns import decode_batch
from dsdbd.storage.settings import ShardKey
from dsdbd.storage.shard import Shard
from dsdbd.storage.wal import last_drops, log_files, replay
from dsdbd.storage.wal_format import Record

_LOOK_S = 0.05
"""How often a replay looks at its memory; it takes in some tens of megabytes meanwhile."""
_TELL_S = 1.0
"""How often a replay reports."""
_BEFORE_ALL = (-1, -1)


def replay_log(
    wal_dir: Path,
    shard_for: Callable[[ShardKey], Shard],
    *,
    wait: Callable[[], None],
    note: Callable[[str], None],
    progress: Callable[[str], None],
) -> tuple[int, int]:
    """Bring the log's records back into heads; returns the number of the newest file, 0 without any, and of rows.

    ``wait`` is called often and returns when memory may take more. Rows in front of a shard's last DROP record must not
    even reach a segment, because segments of the same shard may be there that were written after the DROP; so these
    records are looked for first. Raises OSError where a file cannot be read at all.
    """
    void_before = last_drops(wal_dir)
    begins: dict[int, int] = {}
    total_bytes = 0
    for sequence, path in log_files(wal_dir):
        begins[sequence] = total_bytes
        total_bytes += path.stat().st_size
    rows = 0
    said_s = looked_s = time.monotonic()
    for position, record in replay(wal_dir, note):
        if position <= void_before.get(record.key.shard_id, _BEFORE_ALL):
            continue
        rows += _replay_write(position[0], record, shard_for, note)
        now_s = time.monotonic()
        if now_s - looked_s > _LOOK_S:
            looked_s = now_s
            wait()
        if now_s - said_s > _TELL_S:
            said_s = now_s
            done = (begins[position[0]] + position[1]) / max(total_bytes, 1)
            progress(f"replaying the log, {done:.0%} done, {rows} rows")
    progress(f"log replayed, {rows} rows from {total_bytes >> 20} MB")
    return max(begins, default=0), rows


def _replay_write(
    sequence: int, record: Record, shard_for: Callable[[ShardKey], Shard], note: Callable[[str], None]
) -> int:
    """Bring one record's rows into a head; returns how many."""
    try:
        batch = decode_batch(bytes(record.payload))
        shard = shard_for(record.key)
        shard.load()
        shard.check_types(batch)
    except DSDBError as error:
        note(f"a record of shard {record.key.shard_id} in log file {sequence} is left out: {error.message}")
        return 0
    shard.insert(batch, sequence, time.monotonic())
    return len(batch)
