"""The engine over a real shard, from its head and from its files, answers as over rows in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdbd.model.columns import Batch
from dsdbd.model.line_protocol import parse_lines
from dsdbd.query import BoundedShard
from dsdbd.storage import ShardKey, Store
from tests.query.influx_reference import line_of
from tests.query.query_engine import MemoryShard, json_answer
from tests.query.sample_data import ROWS, S, random_rows

STATEMENTS = [
    line
    for line in (Path(__file__).parent / "statements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.slow
def test_stored_shards_answer_like_rows_in_memory(tmp_path: Path) -> None:
    rows = ROWS + random_rows(1)
    memory = [[MemoryShard(rows)]]
    statements = [
        *STATEMENTS,
        "select * from sys",
        "select mean(load), max(jobs), last(state) from sys where time >= 0 and time < 1h group by time(5m), *",
    ]
    store = Store(data_dir=tmp_path / "data", wal_dir=tmp_path / "wal")
    store.open(lambda _: None)
    try:
        points = parse_lines("\n".join(map(line_of, rows)).encode(), precision="ns", default_time_ns=0).points
        store.submit(ShardKey("d", "autogen", 1), Batch(1, points)).result(20)
        for _ in ("head", "files"):
            shard = store.shard(1)
            assert shard is not None
            stored = [[BoundedShard(shard, -(2**63), 2**63 - 1)]]
            for statement in statements:
                assert json_answer(statement, stored, 100 * S) == json_answer(statement, memory, 100 * S), statement
            store.flush()
    finally:
        store.close()
