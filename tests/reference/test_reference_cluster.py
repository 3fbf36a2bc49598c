"""A sample of the tables asked of any node of a cluster of three, with one copy of each shard and with two."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.daemons import Cluster
from tests.http.servers import dsdbd_settings
from tests.reference.compare import difference
from tests.reference.dataset import SETUP
from tests.reference.influxd import needs_influxd
from tests.reference.intended_table import explained
from tests.reference.notation import tables
from tests.reference.pair import Connection, Pair

ELSEWHERE = frozenset({"statements_ddl", "show_cardinality", "parse_errors", "forecasts"})
"""Tables that do not read points, change something, or take long."""
SAMPLE = 300
NODES = 3

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd, pytest.mark.xdist_group("reference")]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Connection]]:
    root: Path = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(root)
    connections: list[Connection] = []
    try:
        daemons = cluster.grow(NODES, settings=dsdbd_settings(auth=False))
        connections = [Connection(daemon.host, daemon.http_port) for daemon in daemons]
        yield connections
    finally:
        for connection in connections:
            connection.close()
        cluster.close()


def fill(nodes: list[Connection], copies: int) -> None:
    """The databases anew, with ``copies`` of each shard, written through the last node."""
    for database in ("d", "e"):
        assert nodes[0].query(f"drop database {database}").status == 200
    nodes[-1].fill([f"{SETUP[0]} WITH DURATION INF REPLICATION {copies} NAME autogen", *SETUP[1:]])


@pytest.mark.parametrize("copies", [1, 2])
def test_any_node_of_a_cluster_answers_the_same(pair: Pair, nodes: list[Connection], copies: int) -> None:
    fill(nodes, copies)
    asked = [(statement, rule.parameters) for rule in tables(exclude=ELSEWHERE) for statement in rule.statements]
    step = len(asked) // SAMPLE
    report = []
    for node, (statement, parameters) in zip(itertools.cycle(nodes), asked[copies::step], strict=False):
        theirs = pair.theirs.query(statement, **parameters)
        ours = node.query(statement, **parameters)
        found = difference(ours, theirs)
        if found and not explained(statement, ours, theirs):
            report.append(f"{statement}\n    {found}")
    assert not report, f"{len(report)} differ:\n" + "\n".join(report)
