"""Points in a cluster of three nodes that all run: every node stores and shows the same."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("points-replication")]
HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    cluster = Cluster(tmp_path_factory.mktemp("replication"))
    # Points become files after a second, so that a test can see files go.
    yield cluster.grow(3, settings={"data": ['cache-snapshot-write-cold-duration = "1s"']})
    cluster.close()


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("lone")).start()
    yield daemon
    daemon.kill()


def create(nodes: list[Daemon], name: str, policy: str) -> None:
    answer = nodes[0].query(f"CREATE DATABASE {name} WITH {policy}")
    assert answer == {"results": [{"statement_id": 0}]}
    wait_until(lambda: all([name] in node.rows("SHOW DATABASES") for node in nodes), "the database is known everywhere")


def owners(node: Daemon, database: str) -> list[set[str]]:
    return [set(row[7].split(",")) for row in node.rows("SHOW SHARDS") if row[1] == database]


@pytest.mark.parametrize("replication", [1, 2, 3])
def test_what_one_node_stored_all_nodes_show(nodes: list[Daemon], replication: int) -> None:
    name = f"shown{replication}"
    create(nodes, name, f"REPLICATION {replication} SHARD DURATION 1h")
    for number, node in enumerate(nodes):
        lines = "\n".join(
            f"cpu,host=h{host},via=n{number} value={hour * 100 + host} {hour * HOUR_NS + host}"
            for host in range(20)
            for hour in range(5)
        )
        assert node.write(lines, db=name, consistency="all").status == 204
        for reader in nodes:
            rows = reader.rows(f"SELECT count(value) FROM cpu WHERE via = 'n{number}'", db=name)
            assert [row[1] for row in rows] == [100]
    assert {len(found) for found in owners(nodes[0], name)} == {replication}
    assert len(set().union(*owners(nodes[0], name))) == 3
    answers = [node.query("SELECT * FROM cpu", db=name) for node in nodes]
    assert len(answers[0]["results"][0]["series"][0]["values"]) == 300
    assert answers[0] == answers[1] == answers[2]


STATEMENTS = [
    "SELECT * FROM cpu",
    "SELECT value, n FROM cpu WHERE host = 'h3' AND time >= 1h AND time < 4h",
    "SELECT count(value), sum(n), mean(value), min(value), max(n), spread(value), first(value), last(n) FROM cpu",
    "SELECT median(value), stddev(value), percentile(value, 90), mode(n) FROM cpu",
    "SELECT mean(value) FROM cpu GROUP BY host",
    "SELECT mean(value), count(n) FROM cpu GROUP BY region",
    "SELECT mean(value) FROM cpu WHERE time >= 0 AND time < 6h GROUP BY time(20m)",
    "SELECT max(value) FROM cpu WHERE time >= 0 AND time < 6h GROUP BY time(1h), host fill(none)",
    "SELECT sum(n) FROM cpu WHERE time >= 0 AND time < 6h GROUP BY time(37m), region fill(previous)",
    "SELECT value FROM cpu LIMIT 7",
    "SELECT value FROM cpu LIMIT 7 OFFSET 55",
    "SELECT value FROM cpu ORDER BY time DESC LIMIT 9",
    "SELECT value FROM cpu GROUP BY host LIMIT 2",
    "SELECT value FROM cpu GROUP BY host ORDER BY time DESC LIMIT 3",
    "SELECT mean(value) FROM cpu GROUP BY host SLIMIT 3 SOFFSET 2",
    "SELECT distinct(n) FROM cpu WHERE host =~ /h[12]$/",
    "SELECT derivative(mean(value), 1h) FROM cpu WHERE time >= 0 AND time < 6h GROUP BY time(1h)",
    "SELECT cumulative_sum(count(value)) FROM cpu WHERE time >= 0 AND time < 6h GROUP BY time(1h)",
    "SELECT value FROM /cpu|mem/ WHERE host = 'h1'",
    "SELECT count(value) FROM cpu, mem",
    "SELECT value FROM cpu WHERE value > 50 AND n < 30",
    "SHOW MEASUREMENTS",
    "SHOW SERIES",
    "SHOW SERIES FROM cpu WHERE region = 'eu' LIMIT 4 OFFSET 1",
    "SHOW TAG KEYS",
    "SHOW TAG VALUES WITH KEY = host LIMIT 5",
    "SHOW FIELD KEYS",
]


def sample(seed: int) -> str:
    """Points in three measurements over six hours; values are halves, whose sums are exact in any order."""
    source = random.Random(seed)
    lines = []
    for host in range(17):
        for step in range(36):
            time_ns = step * HOUR_NS // 6 + source.randrange(1000)
            region = ("eu", "us", "ap")[host % 3]
            value = source.randrange(200) / 2
            lines.append(f"cpu,host=h{host},region={region} value={value},n={source.randrange(40)}i {time_ns}")
            if step % 5 == 0:
                lines.append(f"mem,host=h{host} value={value} {time_ns}")
    source.shuffle(lines)
    return "\n".join(lines)


def close(ours: Any, theirs: Any) -> bool:
    """Equal but for the last digits of floats, whose sums depend on the order."""
    if isinstance(ours, float) and isinstance(theirs, float):
        return ours == pytest.approx(theirs, rel=1e-12)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in ours)
    return bool(ours == theirs)


@pytest.mark.parametrize("replication", [1, 2])
def test_answers_over_many_shards_are_those_of_one_node(nodes: list[Daemon], lone: Daemon, replication: int) -> None:
    name = f"same{replication}"
    lines = sample(replication)
    lone.query(f"CREATE DATABASE {name}")
    assert lone.write(lines, db=name).status == 204
    create(nodes, name, f"REPLICATION {replication} SHARD DURATION 1h")
    parts = lines.split("\n")
    for number, node in enumerate(nodes):
        assert node.write("\n".join(parts[number::3]), db=name, consistency="all").status == 204
    wrong = []
    for statement in STATEMENTS:
        expected = lone.query(statement, db=name, epoch="ns")
        assert "error" not in expected["results"][0], (statement, expected)
        for node in nodes:
            found = node.query(statement, db=name, epoch="ns")
            if not close(found, expected):
                wrong.append((statement, node.address, found, expected))
    assert not wrong


def test_times_given_by_the_server_are_the_same_on_all_owners(nodes: list[Daemon]) -> None:
    create(nodes, "stamped", "REPLICATION 3")
    for node in nodes:
        assert node.write("now value=1\nnow,host=a value=2", db="stamped", consistency="all").status == 204
    # Each node owns every shard and therefore answers from its own files.
    answers = [node.rows("SELECT * FROM now", db="stamped", epoch="ns") for node in nodes]
    assert len(answers[0]) == 6
    assert answers[0] == answers[1] == answers[2]


def test_batch_over_many_shard_groups(nodes: list[Daemon]) -> None:
    create(nodes, "spread", "REPLICATION 2 SHARD DURATION 1h")
    lines = "\n".join(f"cpu,host=h{hour % 7} value={hour} {hour * HOUR_NS}" for hour in range(150))
    assert nodes[1].write(lines, db="spread", consistency="all", timeout_s=60).status == 204
    for node in nodes:
        rows = node.rows("SELECT count(value), sum(value) FROM cpu", db="spread", epoch="ns")
        assert rows == [[0, 150, sum(range(150))]]
    groups = [row for row in nodes[2].rows("SHOW SHARD GROUPS") if row[1] == "spread"]
    assert len(groups) == 150


def test_one_field_written_with_two_types_at_once_gets_one(nodes: list[Daemon]) -> None:
    create(nodes, "typed", "REPLICATION 3")
    for turn in range(20):
        one_type_wins(nodes, f"m{turn}")


def one_type_wins(nodes: list[Daemon], name: str) -> None:
    values = ("1.5", '"text"', "true")
    with ThreadPoolExecutor(3) as pool:
        writes = [
            pool.submit(node.write, f"{name},n={number} f={values[number]} {number + 1}", db="typed")
            for number, node in enumerate(nodes)
        ]
        answers = [write.result() for write in writes]
    assert sorted(answer.status for answer in answers) == [204, 400, 400], answers
    for answer in answers:
        if answer.status == 400:
            assert answer.json["code"] == "partial_write"
            assert "field type conflict" in answer.json["error"]
    winner = next(number for number, answer in enumerate(answers) if answer.status == 204)
    for node in nodes:
        # The owners that were not waited for may still be storing.
        wait_until(partial(node.rows, f"SELECT f FROM {name}", db="typed"), f"{name} at {node.address}")
        rows = node.rows(f"SELECT f, n FROM {name}", db="typed", epoch="ns")
        assert [(row[0], row[2]) for row in rows] == [(winner + 1, str(winner))]
        assert node.rows(f"SHOW FIELD KEYS FROM {name}", db="typed") == [["f", ("float", "string", "boolean")[winner]]]


def test_consistency_levels_while_all_run(nodes: list[Daemon]) -> None:
    create(nodes, "levels", "REPLICATION 3")
    for number, level in enumerate(("any", "one", "quorum", "all")):
        assert nodes[number % 3].write(f"cpu value={number} {number}", db="levels", consistency=level).status == 204
    for node in nodes:
        wait_until(
            lambda node=node: node.rows("SELECT count(value) FROM cpu", db="levels", epoch="ns") == [[0, 4]], "4 points"
        )


def test_dropped_databases_and_policies_leave_no_files(nodes: list[Daemon]) -> None:
    create(nodes, "gone", "REPLICATION 3")
    nodes[0].query("CREATE RETENTION POLICY other ON gone DURATION INF REPLICATION 3")
    for policy in ("autogen", "other"):
        assert nodes[1].write("cpu value=1 1", db="gone", rp=policy, consistency="all").status == 204
    for node in nodes:
        wait_until(directory(node, "gone", "other").is_dir, f"files of other at {node.root}")
    nodes[2].query("DROP RETENTION POLICY other ON gone")
    for node in nodes:
        wait_until(lambda node=node: not directory(node, "gone", "other").exists(), f"no files of other at {node.root}")
        assert node.rows("SELECT value FROM cpu", db="gone", epoch="ns") == [[1, 1]]
    nodes[0].query("DROP DATABASE gone")
    for node in nodes:
        wait_until(lambda node=node: not directory(node, "gone").exists(), f"no files of gone at {node.root}")
    create(nodes, "gone", "REPLICATION 3")
    assert all(node.rows("SELECT * FROM cpu", db="gone") == [] for node in nodes)


def directory(node: Daemon, *parts: str) -> Path:
    return node.root.joinpath("data", *parts)
