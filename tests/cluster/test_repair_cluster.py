"""Repair between real nodes without handoff: whatever an owner missed or lost it holds again, by itself."""

from __future__ import annotations

import random
import shutil
import threading
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from dsdbd.cluster.asking import ReadRequest
from dsdbd.cluster.deletes import DeleteRequest
from dsdbd.model.columns import Batch, Column, Points, encode_batch
from dsdbd.model.types import FieldType
from dsdbd.storage.tombstones import Tombstone, encode_tombstones
from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.cluster.digests import are_equal, ask, shards, summaries

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow]
HOUR_NS = 3600 * 10**9
SETTINGS = {"hinted-handoff": ["enabled = false"], "anti-entropy": ['check-interval = "500ms"']}
EQUAL_S = 60.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    made = Cluster(tmp_path_factory.mktemp("repair"))
    yield made.grow(3, settings=SETTINGS)
    made.close()


def create(nodes: list[Daemon], name: str) -> None:
    nodes[0].query(f"CREATE DATABASE {name} WITH REPLICATION 3 SHARD DURATION 1h")
    wait_until(lambda: all([name] in node.rows("SHOW DATABASES") for node in nodes), "the database is known everywhere")


def lines(numbers: range, value: str = "{n}i") -> str:
    return "\n".join(f'cpu,host=h{n % 7} v={value.format(n=n)},text="t{n % 3}" {n * HOUR_NS // 40}' for n in numbers)


def rows(node: Daemon, name: str) -> list[list[object]]:
    return sorted(node.rows("SELECT v, text, host FROM cpu", db=name, epoch="ns"), key=lambda row: (row[0], row[3]))


def wait_equal(nodes: list[Daemon], name: str) -> None:
    wait_until(lambda: are_equal(nodes, name), f"all copies of {name} are equal", EQUAL_S, 0.1)


def away_and_others(nodes: list[Daemon]) -> tuple[Daemon, Daemon, Daemon]:
    away = next(node for node in nodes if not node.is_leader())
    first, second = (node for node in nodes if node is not away)
    return away, first, second


def test_writes_and_deletions_of_which_nobody_knows_any_more_reach_an_owner_that_was_away(nodes: list[Daemon]) -> None:
    create(nodes, "d")
    assert nodes[0].write(lines(range(100)), db="d", consistency="all").status == 204
    away, first, second = away_and_others(nodes)
    away.kill()
    assert first.write(lines(range(50, 180)), db="d", consistency="quorum").status == 204
    assert second.write(lines(range(20), "-{n}i"), db="d", consistency="quorum").status == 204
    answer = first.get("/query", db="d", q=f"DELETE FROM cpu WHERE host = 'h3' AND time < {2 * HOUR_NS}")
    assert (answer.status, answer.json["code"]) == (504, "outcome_unknown"), "it is kept nowhere for the owner"
    assert second.write("mem f=1 1", db="d", consistency="quorum").status == 204
    expected = rows(first, "d")
    assert len(expected) == 180 - len([n for n in range(80) if n % 7 == 3])
    away.start()
    wait_equal(nodes, "d")
    assert rows(away, "d") == expected
    told = [row for row in first.rows("SHOW REPAIRS") if row[2] == "d"]
    assert told
    assert {row[4] for row in told} == {"repair"}
    stats = away.query("SHOW STATS FOR 'antiEntropy'")["results"][0]["series"][0]
    counters = dict(zip(stats["columns"], stats["values"][0], strict=True))
    assert counters["rows"] > 0
    assert counters["deletions"] > 0
    for node in (first, second):
        node.kill()
    assert rows(away, "d") == expected, "from its own files, alone"
    for node in (first, second):
        node.start(wait=False)
    for node in (first, second):
        node.wait_ready()


def test_a_copy_that_was_lost_or_damaged_comes_back(nodes: list[Daemon]) -> None:
    create(nodes, "lost")
    assert nodes[0].write(lines(range(120)), db="lost", consistency="all").status == 204
    expected = rows(nodes[0], "lost")
    victim, *others = away_and_others(nodes)
    assert victim.stop() == 0, "what is in memory is written out"
    gone, damaged = shards(others[0], "lost")[:2]
    directory = victim.root / "data" / "lost" / "autogen"
    shutil.rmtree(directory / str(gone))
    files = list((directory / str(damaged)).rglob("*.parquet"))
    assert files
    for path in files:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 3 : len(raw) // 3 + 64] = bytes(64)
        path.write_bytes(raw)
    victim.start()
    wait_equal(nodes, "lost")
    assert rows(victim, "lost") == expected


def test_copies_that_are_written_to_meanwhile_become_equal_and_no_rewrite_is_undone(nodes: list[Daemon]) -> None:
    create(nodes, "hot")
    assert nodes[0].write(lines(range(80)), db="hot", consistency="all").status == 204
    away, first, second = away_and_others(nodes)
    newest: dict[int, int] = {}
    stop = threading.Event()
    failures: list[object] = []

    def write() -> None:
        """Overwrites the same points again and again; remembers what was acknowledged last."""
        turn = 0
        while not stop.is_set():
            turn += 1
            number = random.randrange(80)
            node = (first, second)[turn % 2]
            try:
                answer = node.write(
                    f"cpu,host=h{number % 7} v={turn}i {number * HOUR_NS // 40}", db="hot", consistency="quorum"
                )
            except OSError as error:
                failures.append(error)
                return
            if answer.status != 204:
                failures.append((answer.status, answer.body))
                return
            newest[number] = turn

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: failures or len(newest) > 30, "writes go on", EQUAL_S)
        away.kill()
        wait_until(lambda: failures or len(newest) > 60, "writes go on", EQUAL_S)
        # Deleting and writing anew crosses what the owner that is away will pull.
        assert first.get("/query", db="hot", q="DELETE FROM cpu WHERE host = 'h9'").status == 504
        away.start()
        wanted = shards(first, "hot")
        before = max(newest.values())
        wait_until(
            lambda: failures or max(newest.values()) > before + 50, "writes go on while copies are repaired", EQUAL_S
        )
    finally:
        stop.set()
        writer.join()
    assert not failures
    wait_equal(nodes, "hot")
    assert set(summaries(away, wanted)) == set(wanted)
    for node in nodes:
        held = {row[0]: row[1] for row in rows(node, "hot")}
        assert {number: held[number * HOUR_NS // 40] for number in newest} == newest


def test_what_was_deleted_stays_deleted_and_what_was_written_after_stays(nodes: list[Daemon]) -> None:
    """Three nodes are away in turn, each missing another deletion or rewrite of the same points."""
    create(nodes, "turns")
    assert nodes[0].write(lines(range(60)), db="turns", consistency="all").status == 204
    for turn, away in enumerate(nodes):
        away.kill()
        _delete_and_write_again([node for node in nodes if node is not away], turn)
        away.start(wait=False)
        away.wait_ready()
    wait_equal(nodes, "turns")
    expected = {(n * HOUR_NS // 40, f"h{n % 7}", n) for n in range(60) if n % 7 > 2}
    expected |= {((turn + 7) * HOUR_NS // 40, f"h{turn}", 1000) for turn in range(3)}
    for node in nodes:
        assert {(row[0], row[3], row[1]) for row in rows(node, "turns")} == expected


def test_a_node_takes_and_answers_nothing_for_a_shard_that_others_own(nodes: list[Daemon]) -> None:
    """Whoever sends it there has old metadata, and must look for the owners anew."""
    nodes[0].query("CREATE DATABASE alone WITH REPLICATION 1 SHARD DURATION 1h")
    lines_of_all = "\n".join(f"cpu,host=h{number} v=1 1" for number in range(20))
    assert nodes[0].write(lines_of_all, db="alone").status == 204
    owners = {row[0]: str(row[-1]) for row in nodes[0].rows("SHOW SHARDS") if row[1] == "alone"}
    numbers = {str(row[0]): row[1] for row in nodes[0].servers()["data_nodes"]}
    points = Points(
        "cpu", [b"cpu,host=x"], np.zeros(1, np.int32), np.ones(1, np.int64), {"v": Column(FieldType.FLOAT, np.ones(1))}
    )
    body = encode_batch(Batch(1, (points,)))
    deleted = msgspec.msgpack.encode(
        DeleteRequest(1, 0, [(min(owners), 0)], [encode_tombstones([Tombstone("cpu", None, 0, 9, 1)])])
    )
    for shard_id, owner in owners.items():
        other = next(node for node in nodes if node.address != numbers[owner])
        read = msgspec.msgpack.encode(ReadRequest("schema", "alone", "autogen", [shard_id]))
        for path, sent in (
            (f"/internal/shards/{shard_id}", body),
            ("/internal/delete", deleted),
            ("/internal/read", read),
        ):
            if path == "/internal/delete" and shard_id != min(owners):
                continue
            answer = ask(other, "POST", path, sent)
            assert (answer.status, answer.json["code"]) == (503, "not_owner"), answer.body
        unknown = msgspec.msgpack.encode(ReadRequest("schema", "unknown", "autogen", [shard_id]))
        answer = ask(other, "POST", "/internal/read", unknown)
        assert (answer.status, answer.json["code"]) == (503, "shard_unavailable"), answer.body
        assert not (other.root / "data" / "alone" / "autogen" / str(shard_id)).exists()


def _delete_and_write_again(others: list[Daemon], turn: int) -> None:
    def delete() -> bool:
        answer = others[0].get("/query", db="turns", q=f"DELETE FROM cpu WHERE host = 'h{turn}'")
        return answer.status == 504 and answer.json["error"].startswith("deleted, but not at every owner")

    again = f'cpu,host=h{turn} v=1000i,text="again" {(turn + 7) * HOUR_NS // 40}'
    wait_until(delete, "it is deleted at two owners", 60, 0.2)
    wait_until(
        lambda: others[1].write(again, db="turns", consistency="quorum").status == 204, "it is written again", 60, 0.2
    )
