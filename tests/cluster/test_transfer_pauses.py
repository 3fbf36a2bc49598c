"""A copy whose source goes away is taken up again as soon as that is open, however long the pauses between attempts."""

from __future__ import annotations

import random

import pytest

from dsdbd.cluster.segment_messages import PIECE_BYTES
from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.cluster.test_points_failures import create, data_id, owned
from tests.cluster.test_transfer_add import SETTLE_S, moves, write_everywhere

pytestmark = [pytest.mark.slow]
SELDOM = {"transfer": ['max-throughput = "700k"', 'retry-interval = "1h"', 'retry-max-interval = "1h"']}
ROWS = 14_000


def said(node: Daemon) -> list[str]:
    return [one["message"] for one in node.get("/health").json["checks"] if one["name"] == "moves"]


def test_a_source_that_is_back_is_copied_from_at_once(cluster: Cluster) -> None:
    (source,) = cluster.grow(1)
    create([source], "d", "DURATION INF")
    chance = random.Random(7)
    lines = (f'cpu,host=h{one % 10} value={one}i,text="{chance.randbytes(120).hex()}" {one}' for one in range(ROWS))
    write_everywhere(source, "\n".join(lines))
    fresh = cluster.add(join=[source.meta_address], settings=SELDOM).start()
    parts = "data/*/*/*/transfer.tmp/*.part"
    wait_until(lambda: any(one.stat().st_size >= PIECE_BYTES for one in fresh.root.glob(parts)), "a part", SETTLE_S)
    source.kill()
    wait_until(lambda: "a shard cannot be copied yet" in fresh.log, "the copy fails", SETTLE_S)
    # Where the source had seemed to be back meanwhile, it is tried once more before that is said.
    wait_until(lambda: any("cannot be copied to this node yet" in one for one in said(fresh)), "it says so", SETTLE_S)
    source.start()
    wait_until(lambda: moves(source) == [], "the copy is complete", SETTLE_S)
    assert all(data_id(fresh) in owners for owners in owned(source, "d").values())
    wait_until(lambda: said(fresh) == [], "nothing more is said of it", SETTLE_S)
