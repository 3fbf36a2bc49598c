"""A question whose points are all at one other node is asked of it in one request, and its answer is the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dsdbd.limits import SLICE_ROWS
from tests.cluster.daemons import META_ONLY, Cluster, request, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.daemons import Answer, Daemon

pytestmark = pytest.mark.slow
MANY = SLICE_ROWS + 5_000
SECOND_NS = 1_000_000_000
WINDOW = "time >= '1970-01-01T00:00:10Z' AND time < '1970-01-01T00:03:00Z'"


def lines() -> str:
    few = [
        f"cpu,host=h{host},region=r{host % 2} v={second / 7 + host},n={second}i,b={second % 2 == 0},"
        f's="t\\"{second % 3}" {second * SECOND_NS}'
        for host in range(4)
        for second in range(0, 600, 10)
    ]
    many = [f"many,host=h{number % 7} v={number} {number}" for number in range(MANY)]
    return "\n".join([*few, "mem,host=it's used=1 1", *many])


@pytest.fixture(scope="module")
def nodes(owner_and_other: tuple[Daemon, Daemon]) -> tuple[Daemon, Daemon]:
    """The owner of all points, and a node that owns nothing."""
    owner, _ = owner_and_other
    owner.query("CREATE DATABASE d")
    assert owner.write(lines(), db="d").status == 204
    return owner_and_other


def ask(node: Daemon, statement: str, **params: str) -> Answer:
    return request("GET", node.url("/query", q=statement, db="d", **params), timeout_s=60)


def reads_served(node: Daemon) -> int:
    """How many requests of other nodes for points a node has answered."""
    return node.served("/internal/read")


def requests_of(owner: Daemon, other: Daemon, statement: str, **params: str) -> int:
    before = reads_served(owner)
    answer = ask(other, statement, **params)
    assert answer.status == 200
    assert "error" not in answer.json["results"][0], answer.body
    return reads_served(owner) - before


STATEMENTS = [
    f"SELECT max(v) FROM cpu WHERE host = 'h1' AND {WINDOW} GROUP BY time(1m)",
    f"SELECT mean(v), count(n), first(s), last(b) FROM cpu WHERE {WINDOW} GROUP BY time(30s), host fill(previous)",
    "SELECT * FROM cpu WHERE region =~ /r1/ ORDER BY time DESC LIMIT 5 OFFSET 2",
    "SELECT * FROM /.*/ GROUP BY * LIMIT 1",
    "SELECT percentile(v, 90), median(n) FROM cpu GROUP BY region",
    "SELECT top(v, host, 2) FROM cpu",
    "SELECT derivative(mean(v), 1s) FROM cpu WHERE time < 200s GROUP BY time(20s)",
    "SELECT moving_average(mean(v), 3) FROM cpu WHERE time < 200s GROUP BY time(20s)",
    "SELECT count(distinct(s)) FROM cpu WHERE s != 't\"1' AND v > 3.25",
    "SELECT mean(v) FROM cpu WHERE time > now() - 1h GROUP BY time(10m)",
    "SELECT used FROM mem WHERE host = 'it\\'s'",
    "SELECT mean(v) FROM cpu WHERE time < 3m GROUP BY time(1m) tz('Europe/Berlin')",
    "SELECT sum(v) FROM many GROUP BY host",
    "SELECT v FROM many WHERE host = 'h3' LIMIT 3",
    "SELECT v FROM many",
    "SELECT max(m) FROM (SELECT mean(v) AS m FROM cpu GROUP BY host)",
    "SELECT v FROM nowhere",
    "SELECT v + s FROM cpu",
    "SELECT mean(v) FROM cpu WHERE time > '1970-01-01' AND time < 1h GROUP BY time(1u)",
    "SELECT v FROM nothing..cpu",
    "SELECT v FROM cpu LIMIT 1; SELECT used FROM mem",
]
FORMS: list[dict[str, str]] = [{}, {"epoch": "ms", "chunked": "true", "chunk_size": "7"}, {"partial": "true"}]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_answer_is_that_of_the_owner(nodes: tuple[Daemon, Daemon], statement: str) -> None:
    owner, other = nodes
    forms = FORMS[:1] if statement.endswith("FROM many") else FORMS
    # A statement is planned anew, then prepared, then answered from memory.
    for params in (*forms, {}, {"consistency": "quorum"}):
        expected, found = ask(owner, statement, **params), ask(other, statement, **params)
        assert (found.status, found.body) == (expected.status, expected.body)
        assert found.headers["Content-Type"] == expected.headers["Content-Type"]


def test_bound_parameters_are_those_of_the_request(nodes: tuple[Daemon, Daemon]) -> None:
    bound = json.dumps({"host": "it's", "most": 2})
    for node in nodes:
        found = node.rows("SELECT used FROM mem WHERE host = $host LIMIT $most", db="d", params=bound)
        assert found == [["1970-01-01T00:00:00.000000001Z", 1]]


@pytest.mark.parametrize("statement", [*STATEMENTS[:9], STATEMENTS[12]])
def test_one_request_is_enough(nodes: tuple[Daemon, Daemon], statement: str) -> None:
    owner, other = nodes
    for _ in range(4):
        assert requests_of(owner, other, statement) == 1


def test_what_comes_in_parts_or_is_compared_first_takes_more(nodes: tuple[Daemon, Daemon]) -> None:
    owner, other = nodes
    assert requests_of(owner, other, "SELECT v FROM many") > 2
    assert requests_of(owner, other, STATEMENTS[0], consistency="quorum") == 2


def test_another_owner_answers_at_once_when_one_is_gone(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    try:
        nodes = made.grow(3)
        other = made.add(join=[nodes[0].meta_address], settings=META_ONLY).start()
        nodes[0].query("CREATE DATABASE d WITH REPLICATION 3")
        assert nodes[0].write("m v=1 1\nm v=2 2", db="d", consistency="all").status == 204
        expected = ask(other, "SELECT v FROM m").body
        assert b"series" in expected
        answered = [reads_served(node) for node in nodes]
        assert sum(answered) == 1
        nodes[answered.index(1)].kill()
        for _ in range(5):
            found = ask(other, "SELECT v FROM m")
            assert (found.status, found.body) == (200, expected)
        wait_until(lambda: ask(other, "SELECT v FROM m").body == expected, "the others answer")
    finally:
        made.close()
