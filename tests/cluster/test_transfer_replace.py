"""A node whose disk is lost is replaced, also when the node that takes its place is killed in the middle of copying."""

from __future__ import annotations

import json
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from dsdbd.cluster.segment_messages import PIECE_BYTES
from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.cluster.test_points_failures import create, data_id, owned
from tests.cluster.test_transfer_add import SETTLE_S, Writer, done, holdings, moves, write_everywhere

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow]
SLOWLY = {"transfer": ['max-throughput = "1m"', 'retry-interval = "100ms"', "max-shards = 1"]}
ROWS = 45_000


def fill_big(node: Daemon) -> int:
    """Points that do not compress, a few megabytes in each of three shards; how many."""
    chance = random.Random(7)
    for first in range(0, ROWS, ROWS // 5):
        lines = "\n".join(
            f'cpu,host=h{number % 10} value={number}i,text="{chance.randbytes(120).hex()}" {number}'
            for number in range(first, first + ROWS // 5)
        )
        write_everywhere(node, lines)
    return ROWS


def count(node: Daemon) -> int:
    rows = node.rows("SELECT count(value) FROM cpu", db="d")
    return int(rows[0][1]) if rows else 0


def stat(node: Daemon, name: str) -> int:
    series = next(one for one in node.query("SHOW STATS")["results"][0]["series"] if one["name"] == "transfer")
    return int(dict(zip(series["columns"], series["values"][0], strict=True))[name])


def parts(node: Daemon) -> list[Path]:
    return list(node.root.glob("data/*/*/*/transfer.tmp/*.part"))


def test_a_node_that_lost_its_disk_is_replaced_through_a_crash(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", "REPLICATION 2")
    total = fill_big(nodes[0])
    nodes[0].query("DELETE FROM cpu WHERE host = 'h3'", db="d")
    total -= total // 10
    dead = next(node for node in nodes if not node.is_leader())
    staying = [node for node in nodes if node is not dead]
    old = data_id(dead)
    dead.kill()
    for name in ("meta", "data", "wal", "hh"):
        shutil.rmtree(dead.root / name)

    fresh = cluster.add(join=[staying[0].meta_address], settings=SLOWLY).start()
    new = data_id(fresh)
    wait_until(lambda: holdings(staying[0])[old]["state"] == "down", "the lost node is known to be down", SETTLE_S)
    plan = json.loads(done(staying[0], "replace", old, new, "-dry-run", "-format", "json"))
    assert {(move["to"], move["replaces"]) for move in plan["moves"]} == {(int(new), int(old))}
    assert done(staying[0], "replace", old, new, "-detach")
    wait_until(lambda: any(path.stat().st_size >= PIECE_BYTES for path in parts(fresh)), "a part of a file", SETTLE_S)
    total_bytes = next(move["total_bytes"] for move in moves(staying[0]) if move["state"] == "copying")
    fresh.kill()
    (left,) = [path.stat().st_size for path in parts(fresh)]
    assert PIECE_BYTES <= left < total_bytes
    assert {move["state"] for move in moves(staying[0])} == {"waiting"}, "shown although the node is away"
    silent = {f"data node {new} does not answer"}
    wait_until(lambda: {move["error"] for move in moves(staying[0])} == silent, "it is said why", SETTLE_S)
    fresh.settings = {"transfer": ['retry-interval = "100ms"']}
    with Writer([*staying, fresh], weeks=3, consistency="one") as writer:
        fresh.start()
        wait_until(lambda: moves(staying[0]) == [], "everything is copied", SETTLE_S)
    assert f"node {old} was replaced by node {new} and removed" in done(staying[0], "replace", old, new)
    # It went on where it was: what it had was not copied again, and is part of a file that is whole.
    copied = sum(row[9] for row in fresh.rows("SHOW REPAIRS") if row[4] == "move" and row[7] == "done")
    assert 0 < stat(fresh, "bytes") <= copied - left + 1_000
    assert "did not arrive as" not in fresh.log
    assert parts(fresh) == []
    cluster.wait_servers(3)
    assert all(len(owners) == 2 and old not in owners for owners in owned(staying[0], "d").values())
    total += len(writer.acknowledged)
    assert writer.failed == []
    for node in (*staying, fresh):
        wait_until(lambda node=node: count(node) == total, f"{total} points", SETTLE_S)
    assert all(not list(node.root.glob("data/*/*/*/transfer.tmp")) for node in cluster.running())
    # The new copies hold everything: without any other one node, all is there.
    staying[1].kill()
    wait_until(lambda: count(staying[0]) == total, "two nodes hold every point", SETTLE_S)


def test_a_wiped_node_under_its_old_address_gets_the_copies_that_lack(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", "REPLICATION 3")
    total = fill_big(nodes[0])
    dead = next(node for node in nodes if not node.is_leader())
    staying = [node for node in nodes if node is not dead]
    old = data_id(dead)
    meta = next(str(row[0]) for row in staying[0].servers()["meta_nodes"] if row[2] == dead.address)
    dead.kill()
    for name in ("meta", "data", "wal", "hh"):
        shutil.rmtree(dead.root / name)
    assert staying[0].query(f"DROP META SERVER {meta}; DROP DATA SERVER {old}")["results"][-1] == {"statement_id": 1}
    dead.join = [staying[0].meta_address]
    dead.start()
    new = data_id(dead)
    assert new != old
    done(staying[0], "add", new)
    assert all(new in owners for owners in owned(staying[0], "d").values())
    for node in staying:
        node.kill()
    # Alone, from its own files.
    wait_until(lambda: count(dead) == total, "the wiped node holds every point again", SETTLE_S)
