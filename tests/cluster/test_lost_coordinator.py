"""A coordinator that ends after it answered a client, and before it kept the write for an owner that has not got it: no
read of any owner is short of it from the moment in which that owner knows that the coordinator is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dsdbd.model.columns import Batch, Column, Points, encode_batch
from dsdbd.model.types import FieldType
from tests.cluster.daemons import Cluster, wait_until
from tests.cluster.digests import are_equal, ask, shards

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.cluster.daemons import Daemon

pytestmark = pytest.mark.slow
DEADLINE_S = 60.0
SETTINGS = {
    # So that nothing but the end of the coordinator tells the owners to compare.
    "anti-entropy": ['check-interval = "1h"'],
    # A read waits for half of it; long, for a machine that is busy with other tests.
    "cluster": ['shard-mapper-timeout = "60s"'],
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    made = Cluster(tmp_path_factory.mktemp("lost"))
    yield made.grow(3, settings=SETTINGS)
    made.close()


def number_of(node: Daemon) -> int:
    return int(next(row[0] for row in node.servers()["data_nodes"] if row[1] == node.address))


def write_as(coordinator: int, owners: Sequence[Daemon], database: str, value: float, time_ns: int) -> None:
    """What owners get of a coordinator that ends before the others have it: it has told its client already."""
    (shard_id,) = shards(owners[0], database)
    fields = {"v": Column(FieldType.FLOAT, np.array([value]))}
    points = Points("m", [b"m"], np.zeros(1, np.int32), np.array([time_ns], np.int64), fields)
    body = encode_batch(Batch(time.time_ns() >> 10 << 10 | coordinator, (points,)))
    for owner in owners:
        assert ask(owner, "POST", f"/internal/shards/{shard_id}", body).status == 204


def values(node: Daemon, database: str) -> list[float]:
    return sorted(row[1] for row in node.rows("SELECT v FROM m", db=database))


def wait_known(node: Daemon, gone: Daemon, *, down: bool) -> None:
    """Until a node says in its health that another one is gone, or nothing of it any more."""
    wait_until(
        lambda: (gone.address in str(node.get("/health").json)) is down,
        f"{gone.address} is {'gone' if down else 'back'} for {node.address}",
        DEADLINE_S,
    )


def test_no_read_is_short_of_what_a_coordinator_that_is_gone_had_confirmed(nodes: list[Daemon]) -> None:
    gone = next(node for node in nodes if not node.is_leader())
    here, there = (node for node in nodes if node is not gone)
    gone_number = number_of(gone)
    nodes[0].query("CREATE DATABASE d WITH REPLICATION 3")
    assert nodes[0].write("m v=0 0", db="d", consistency="all").status == 204
    wait_until(lambda: are_equal(nodes, "d"), "all have the point", DEADLINE_S, 0.1)
    for turn in range(1, 4):
        write_as(gone_number, [gone, here], "d", turn, turn)
        write_as(gone_number, [gone, there], "d", -turn, -turn)
        gone.kill()
        expected = [float(value) for value in range(-turn, turn + 1)]
        for node in (here, there):
            wait_known(node, gone, down=True)
            for _ in range(10):
                assert values(node, "d") == expected, (turn, node is here)
        gone.start()
        wait_until(lambda: are_equal(nodes, "d"), "it is back and has all", DEADLINE_S, 0.1)
        for node in (here, there):
            wait_known(node, gone, down=False)
