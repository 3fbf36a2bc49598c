"""A file that a query finds damaged: the other owner answers, and repair brings the rows back by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.cluster.daemons import Cluster, wait_until
from tests.cluster.digests import are_equal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
COUNT = 500
SETTLED_S = 5.0
SETTINGS = {
    "data": ['cache-snapshot-write-cold-duration = "1s"', "read-cache-size = 1"],
    # So that nothing but the damage makes the nodes compare.
    "anti-entropy": ['check-interval = "1h"'],
}


def damage(path: Path) -> None:
    """Change a byte in the values of the column v."""
    about = pq.read_metadata(path).row_group(0)
    (chunk,) = (one for at in range(about.num_columns) if (one := about.column(at)).path_in_schema == "v")
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset + chunk.total_compressed_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0xFF]))


def test_a_query_that_finds_damage_is_answered_by_the_other_owner(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    try:
        nodes = made.grow(2, settings=SETTINGS)
        nodes[0].query("CREATE DATABASE d WITH REPLICATION 2")
        lines = "\n".join(f"m,host=h{number % 5} v={number / 3} {number}" for number in range(COUNT))
        assert nodes[0].write(lines, db="d", consistency="all").status == 204
        written_s = time.monotonic()
        home = nodes[0].root / "data" / "d"
        wait_until(lambda: any(home.rglob("*.parquet")), "the points are in a file", 60, 0.1)
        wait_until(lambda: are_equal(nodes, "d"), "both have the points", 60, 0.1)
        # Rows that were just written are not compared: some may be under way.
        wait_until(lambda: time.monotonic() - written_s > SETTLED_S, "the points are compared", 60, 0.1)
        (path,) = home.rglob("*.parquet")
        damage(path)
        # Over and over: neither the query that finds the damage nor one after it may be short.
        for _ in range(20):
            values = nodes[0].rows("SELECT v FROM m", db="d")
            assert len(values) == COUNT
        assert (path.parent / "corrupt" / path.name).exists()
        wait_until(lambda: are_equal(nodes, "d"), "repair has brought the rows back", 60, 0.1)
    finally:
        made.close()
