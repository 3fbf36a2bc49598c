"""Continuous queries of real daemons: every interval is written, also across a restart and the end of a leader."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.services.sinks import HttpSink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

SETTINGS = {"continuous_queries": ['run-interval = "100ms"', "query-stats-enabled = true"]}
SECOND_NS = 10**9
CREATE = "CREATE CONTINUOUS QUERY {name} ON d {when} BEGIN SELECT {what} INTO {target} FROM {source} GROUP BY {by} END"
OFTEN = "RESAMPLE EVERY 1s FOR 1m"


def create(daemon: Daemon, name: str, what: str, target: str, by: str, *, when: str = "", source: str = "m") -> None:
    text = CREATE.format(name=name, what=what, target=target, by=by, when=when, source=source)
    assert daemon.query(text, db="d") == {"results": [{"statement_id": 0}]}


def write(daemon: Daemon, *lines: str) -> None:
    answer = daemon.write("\n".join(lines), db="d")
    assert answer.status == 204, answer.body


def rows(daemon: Daemon, select: str) -> list[list[object]]:
    return daemon.rows(select, db="d", epoch="ns")


def runs(daemons: list[Daemon], name: str) -> list[tuple[str, str]]:
    """Start and end of every run that any of the daemons logged."""
    found = []
    for daemon in daemons:
        for line in daemon.log.splitlines():
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("event") == "continuous query executed" and entry["name"] == name:
                found.append((entry["start"], entry["end"]))
    return sorted(found)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp("continuous") / "node", settings=SETTINGS).start()
    made.query("CREATE DATABASE d")
    yield made
    made.kill()


def test_a_query_writes_its_target_and_figures_about_itself(daemon: Daemon) -> None:
    now_ns = time.time_ns()
    write(daemon, f"a,host=x v=1 {now_ns}", f"a,host=x v=3 {now_ns + 1}", f"a,host=y v=5 {now_ns}")
    create(daemon, "one", "mean(v), count(v)", "a_1s", "time(1s), host", when=OFTEN, source="a")
    start_ns = now_ns // SECOND_NS * SECOND_NS
    wait_until(lambda: len(rows(daemon, "SELECT * FROM a_1s")) >= 2, "both groups")
    # A point at the end of a second may be one of two windows.
    found = {(row[2], row[1], row[3]) for row in rows(daemon, "SELECT count, host, mean FROM a_1s")}
    assert ("y", 1, 5) in found
    assert {row[0] for row in rows(daemon, "SELECT mean FROM a_1s")} <= {start_ns, start_ns + SECOND_NS}
    stats = wait_until(
        lambda: daemon.rows("SELECT pointsWrittenOK, endTime, startTime FROM monitor.cq_query", db="_internal"),
        "figures",
    )
    assert all(end > start for _, _, end, start in stats)
    (result,) = daemon.query("SHOW STATS FOR 'cq'")["results"]
    counters = dict(zip(result["series"][0]["columns"], result["series"][0]["values"][0], strict=True))
    assert counters["queryOk"] >= 1
    assert counters["queryFail"] == 0


def test_one_query_reads_what_another_writes(daemon: Daemon) -> None:
    create(daemon, "first", "sum(v)", "b_1s", "time(1s)", when=OFTEN, source="b")
    create(daemon, "second", "max(sum)", "b_max", "time(1s)", when=OFTEN, source="b_1s")
    now_ns = time.time_ns() // SECOND_NS * SECOND_NS
    write(daemon, f"b v=1 {now_ns}", f"b v=2 {now_ns + 1}")
    wait_until(lambda: rows(daemon, "SELECT max FROM b_max") == [[now_ns, 3]], "the second query's point")


def test_a_query_that_fails_does_not_stop_the_others(daemon: Daemon) -> None:
    write(daemon, f'clash mean="text" {time.time_ns()}')
    create(daemon, "fails", "mean(v)", "clash", "time(1s)", when=OFTEN, source="c")
    create(daemon, "works", "mean(v)", "c_1s", "time(1s)", when=OFTEN, source="c")
    write(daemon, f"c v=1 {time.time_ns()}")
    wait_until(lambda: len(rows(daemon, "SELECT mean FROM c_1s")) == 1, "the other query's point")
    wait_until(lambda: "continuous query failed" in daemon.log, "the failure is logged")
    daemon.query("DROP CONTINUOUS QUERY fails ON d")


def test_a_restart_skips_no_interval(daemon: Daemon) -> None:
    create(daemon, "steady", "count(v)", "s_2s", "time(2s)", source="s")
    begin_ns = time.time_ns() // (2 * SECOND_NS) * 2 * SECOND_NS
    write(daemon, *(f"s v=1 {begin_ns + second * SECOND_NS}" for second in range(40)))
    wait_until(lambda: rows(daemon, "SELECT count FROM s_2s"), "the first interval")
    daemon.kill()
    wait_until(lambda: time.time_ns() > begin_ns + 9 * SECOND_NS, "some intervals pass")
    daemon.start()
    found = wait_until(lambda: (got := rows(daemon, "SELECT count FROM s_2s")) and len(got) >= 6 and got, "the others")
    times = [row[0] for row in found]
    assert times == list(range(times[0], times[-1] + 1, 2 * SECOND_NS)), "an interval was left out"
    assert {row[1] for row in found} == {2}
    daemon.query("DROP CONTINUOUS QUERY steady ON d")


def test_a_dropped_query_runs_no_more(daemon: Daemon) -> None:
    create(daemon, "gone", "count(v)", "g_1s", "time(1s)", when="RESAMPLE FOR 1m", source="g")
    write(daemon, f"g v=1 {time.time_ns()}")
    wait_until(lambda: rows(daemon, "SELECT count FROM g_1s"), "a point")
    daemon.query("DROP CONTINUOUS QUERY gone ON d")
    daemon.query("DROP MEASUREMENT g_1s", db="d")
    before = len(runs([daemon], "gone"))
    write(daemon, f"g v=1 {time.time_ns()}")
    create(daemon, "after", "count(v)", "after_1s", "time(1s)", when="RESAMPLE FOR 1m", source="g")
    wait_until(lambda: len(runs([daemon], "after")) >= 2, "later runs of another query")
    assert len(runs([daemon], "gone")) == before
    assert rows(daemon, "SELECT count FROM g_1s") == []


def test_switched_off_nothing_runs(tmp_path: Path) -> None:
    settings = {"continuous_queries": ["enabled = false"], "shard-precreation": ['check-interval = "1s"']}
    node = Daemon(tmp_path / "node", settings=settings).start()
    try:
        node.query("CREATE DATABASE d")
        write(node, f"m v=1 {time.time_ns()}")
        create(node, "never", "count(v)", "n", "time(1s)", when="RESAMPLE FOR 1m")
        wait_until(lambda: node.rows("SHOW STATS FOR 'shardPrecreation'")[0][0] >= 3, "other jobs run for some seconds")
        assert rows(node, "SELECT * FROM n") == []
        assert node.query("SHOW STATS FOR 'cq'") == {"results": [{"statement_id": 0}]}
    finally:
        node.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("continuous-cluster"))
    made.grow(3, settings=SETTINGS)
    yield made
    made.close()


def test_a_run_is_repeated_until_the_shards_are_back(cluster: Cluster) -> None:
    leader = cluster.leader()
    away = next(node for node in cluster.daemons if node is not leader)
    leader.query("CREATE DATABASE e WITH REPLICATION 1")
    begin_ns = time.time_ns() // (2 * SECOND_NS) * 2 * SECOND_NS
    lines = [f"m,host=h{host} v=1 {begin_ns + second * SECOND_NS}" for second in range(120) for host in range(12)]
    wait_until(lambda: leader.write("\n".join(lines), db="e").status == 204, "the points are written")
    text = "CREATE CONTINUOUS QUERY single ON e BEGIN SELECT count(v) INTO n FROM m GROUP BY time(2s) END"
    assert leader.query(text) == {"results": [{"statement_id": 0}]}
    wait_until(lambda: runs(cluster.daemons, "single"), "the first run")
    away.kill()
    wait_until(lambda: '"again": true' in leader.log, "a run fails because a shard is away")
    away.start()
    count = len(runs(cluster.daemons, "single"))
    wait_until(lambda: len(runs(cluster.daemons, "single")) >= count + 2, "it goes on", 60.0)
    found = runs(cluster.daemons, "single")
    assert all(before[1] == after[0] for before, after in pairwise(found)), found
    times = [row[0] for row in leader.rows("SELECT count FROM n", db="e", epoch="ns")]
    assert times == list(range(times[0], times[-1] + 1, 2 * SECOND_NS)), "an interval was left out"
    leader.query("DROP DATABASE e")


def test_three_nodes_forward_once_run_each_interval_once_and_go_on_without_their_leader(cluster: Cluster) -> None:
    nodes = cluster.daemons
    nodes[0].query("CREATE DATABASE d WITH REPLICATION 3")
    begin_ns = time.time_ns() // (2 * SECOND_NS) * 2 * SECOND_NS
    lines = [f"m v=1 {begin_ns + second * SECOND_NS}" for second in range(60)]
    with HttpSink() as sink:
        nodes[0].query(f"CREATE SUBSCRIPTION s ON d.autogen DESTINATIONS ALL '{sink.url}'")
        wait_until(lambda: all("subscription begins" in node.log for node in nodes), "all nodes know it")
        write(nodes[0], *lines[:30])
        write(nodes[1], *lines[30:])
        wait_until(lambda: len(sink.lines) == 60, "every point, from the node that took it")
        assert sorted(sink.lines) == sorted(lines), "owners send no copies of their own"
        nodes[0].query("DROP SUBSCRIPTION s ON d.autogen")
    create(nodes[0], "q", "count(v)", "n", "time(2s)")
    wait_until(lambda: len(runs(nodes, "q")) >= 2, "two runs")
    leader = cluster.leader()
    assert all(len(runs([node], "q")) == 0 for node in nodes if node is not leader), "only the leader runs it"
    leader.kill()
    others = cluster.running()
    count = len(runs(nodes, "q"))
    wait_until(lambda: len(runs(nodes, "q")) >= count + 2, "the next leader goes on", 40.0)
    new_leader = cluster.leader()
    found = runs(nodes, "q")
    # The run that the end of the leader broke off may have been begun by both; no other one.
    assert len(found) - len(set(found)) <= 1
    bounds = sorted(set(found))
    assert all(before[1] == after[0] for before, after in pairwise(bounds)), bounds
    assert {node.address for node in others if runs([node], "q")} == {new_leader.address}
    times = [row[0] for row in rows(new_leader, "SELECT count FROM n")]
    assert times == list(range(times[0], times[-1] + 1, 2 * SECOND_NS))
