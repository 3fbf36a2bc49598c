"""Aggregates travel between nodes as partial results: their size is that of the answer, not of the points."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import META_ONLY

if TYPE_CHECKING:
    from tests.cluster.daemons import Cluster, Daemon

pytestmark = pytest.mark.slow
HOUR_NS = 3_600_000_000_000
HOSTS, HOURS = 20, 12
DOUBLE_GROUPBY = f"SELECT mean(v) FROM m WHERE time >= 0 AND time < {HOURS}h GROUP BY time(1h), host"


def bytes_that_came(node: Daemon) -> int:
    lines = [row[0] for row in node.rows(f"EXPLAIN ANALYZE {DOUBLE_GROUPBY}", db="d")]
    (line,) = [line for line in lines if ": select asked " in line]
    found = re.search(r", (\d+) bytes came", line)
    assert found is not None, line
    return int(found[1])


def write(node: Daemon, step_ns: int, offset_ns: int) -> int:
    lines = [
        f"m,host=h{host} v={time_ns % 977} {time_ns}"
        for host in range(HOSTS)
        for time_ns in range(offset_ns, HOURS * HOUR_NS, step_ns)
    ]
    assert node.write("\n".join(lines), db="d").status == 204
    return len(lines)


def test_a_node_that_owns_nothing_gets_results_and_no_points(cluster: Cluster) -> None:
    owner = cluster.add().start()
    asker = cluster.add(join=[owner.meta_address], settings=META_ONLY).start()
    owner.query("CREATE DATABASE d")
    points = write(owner, HOUR_NS // 10, 0)
    few = bytes_that_came(asker)
    answer = asker.query(DOUBLE_GROUPBY, db="d")
    assert answer == owner.query(DOUBLE_GROUPBY, db="d")
    rows = sum(len(series["values"]) for series in answer["results"][0]["series"])
    assert rows == HOSTS * HOURS

    points += write(owner, HOUR_NS // 100, 1)
    many = bytes_that_came(asker)
    assert asker.rows("SELECT count(v) FROM m", db="d")[0][1] == points > 50 * rows
    # Ten times the points are as many windows and groups: the same bytes, but for what integers of another size take.
    assert many < 1.2 * few
    assert many < 64 * rows, "a window of a group is a few numbers"
