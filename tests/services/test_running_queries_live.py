"""SHOW QUERIES and KILL QUERY in real daemons: queries that wait for a client, and queries that take long."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.daemons import Answer, Cluster, Daemon, wait_until
from tests.reference.influxd import influxd, needs_influxd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
COLUMNS = ["qid", "query", "database", "duration", "status"]
ROWS = 200_000
STALLED = "SELECT v, s FROM big"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


class Stalled:
    """A client that asks for a big answer and takes nothing of it until told; by then the query waits for it."""

    def __init__(self, host: str, port: int, statement: str, **parameters: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(20)
        self.socket.connect((host, port))
        path = "/query?" + urllib.parse.urlencode({"q": statement, "db": "d", **parameters})
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        self.taken = b""

    def rest(self) -> tuple[bytes, bool]:
        """What was sent, and whether the answer came to its end."""
        with self.socket, contextlib.suppress(ConnectionResetError):
            while block := self.socket.recv(1 << 16):
                self.taken += block
        return self.taken, self.taken.endswith(b"\r\n0\r\n\r\n")

    def __enter__(self) -> Stalled:
        try:
            self.taken = self.socket.recv(64)
            assert self.taken.startswith(b"HTTP/1.1 200"), self.taken
        except BaseException:
            self.socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def fill(write: Callable[[str], object]) -> None:
    text = "x" * 60
    for start in range(0, ROWS, 50_000):
        write("\n".join(f'big v={number},s="{text}" {number}' for number in range(start, start + 50_000)))


def filled(daemon: Daemon) -> Daemon:
    daemon.query("CREATE DATABASE d")

    def write(lines: str) -> None:
        assert daemon.write(lines, db="d", timeout_s=60).status == 204

    fill(write)
    return daemon


def running(daemon: Daemon, **parameters: str) -> list[list[Any]]:
    """Rows of SHOW QUERIES without the one of itself."""
    return [row for row in daemon.rows("SHOW QUERIES", **parameters) if row[1] != "SHOW QUERIES"]


def error_of(document: Any) -> str:
    return str(document["results"][0]["error"])


def in_background(ask: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    return thread, answers


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {"cluster": ["max-concurrent-queries = 2", 'log-queries-after = "1ms"']}
    daemon = Daemon(tmp_path_factory.mktemp("lone"), settings=settings).start()
    yield filled(daemon)
    daemon.kill()


@pytest.mark.parametrize("parameters", [{}, {"chunked": "true", "chunk_size": str(ROWS)}], ids=["whole", "one chunk"])
def test_an_answer_that_nobody_takes_is_listed_and_broken_off(lone: Daemon, parameters: dict[str, str]) -> None:
    with Stalled(lone.host, lone.http_port, STALLED, **parameters) as client:
        ((qid, text, database, duration, status),) = running(lone)
        assert (text, database, status) == (STALLED, "d", "running")
        assert re.fullmatch(r"[0-9.]+(µs|ms|s)", duration)
        assert lone.query(f"KILL QUERY {qid}") == {"results": [{"statement_id": 0}]}
        wait_until(lambda: not running(lone), "the query has ended")
        assert error_of(lone.query(f"KILL QUERY {qid}")) == f"no such query id: {qid}"
        taken, whole = client.rest()
        # What was on its way when the query was ended may still arrive, with the reason at its end.
        assert not whole or b'"error":"query interrupted"' in taken[-100:]


def test_a_chunked_answer_ends_with_a_document_that_says_so(lone: Daemon) -> None:
    with Stalled(lone.host, lone.http_port, STALLED, chunked="true", chunk_size="100") as client:
        ((qid, *_),) = running(lone)
        lone.query(f"KILL QUERY {qid}")
        taken, whole = client.rest()
        assert whole
        last = [line for line in taken.split(b"\n") if line.startswith(b"{")][-1]
        assert json.loads(last) == {"results": [{"statement_id": 0, "error": "query interrupted"}]}


def test_a_client_that_goes_leaves_the_list(lone: Daemon) -> None:
    with Stalled(lone.host, lone.http_port, STALLED):
        assert len(running(lone)) == 1
    wait_until(lambda: not running(lone), "the query has ended")


def test_queries_above_the_limit_are_refused_and_may_be_made_room_for(lone: Daemon) -> None:
    before = stats(lone)
    with Stalled(lone.host, lone.http_port, STALLED), Stalled(lone.host, lone.http_port, STALLED):
        expected = {"results": [{"statement_id": 0, "error": "max-concurrent-queries limit exceeded(2, 2)"}]}
        assert lone.query("SELECT v FROM big LIMIT 1", db="d") == expected
        assert lone.query("SHOW DATABASES; SHOW QUERIES") == expected
        assert lone.query("SHOW DATABASES", chunked="true") == expected
        for qid, *_ in running(lone):
            lone.query(f"KILL QUERY {qid}")
        wait_until(lambda: not running(lone), "the queries have ended")
    assert lone.rows("SELECT v FROM big LIMIT 1", db="d", epoch="ns") == [[0, 0]]
    now = stats(lone)
    assert now["queriesRefused"] - before["queriesRefused"] == 3
    assert now["queriesKilled"] - before["queriesKilled"] == 2
    assert f'dsdb_queries{{name="queriesRefused"}} {float(now["queriesRefused"])}' in lone.get("/metrics").body.decode()


def stats(daemon: Daemon) -> dict[str, int]:
    (series,) = daemon.query("SHOW STATS FOR 'queryExecutor'")["results"][0]["series"]
    return dict(zip(series["columns"], series["values"][0], strict=True))


def test_a_long_query_and_its_passwords_in_list_and_log(lone: Daemon) -> None:
    answer = lone.query("CREATE USER u WITH PASSWORD 'hidden'; SHOW QUERIES", db="zz")
    ((_, text, database, *_),) = answer["results"][1]["series"][0]["values"]
    assert (text, database) == ("CREATE USER u WITH PASSWORD [REDACTED];\nSHOW QUERIES", "zz")
    padding = "; ".join(["SHOW DATABASES"] * 400)
    answer = lone.query(f"SET PASSWORD FOR u = 'hidden'; SHOW QUERIES; {padding}")
    ((_, text, *_),) = answer["results"][1]["series"][0]["values"]
    assert text.startswith("SET PASSWORD FOR u = [REDACTED]; SHOW QUERIES; SHOW DATABASES; ")
    assert text.endswith("…")
    assert len(text) < 4200
    # Hashing the password alone takes longer than the threshold.
    wait_until(lambda: "slow query" in lone.log, "the slow query is in the log")
    assert "hidden" not in lone.log


SLOW = "SELECT holt_winters(first(v), 10, 4) FROM m WHERE time < 900h GROUP BY time(1h)"
"""Minutes of work on 900 points, after what other nodes hold of them has come."""


@pytest.fixture
def split(cluster: Cluster) -> Iterator[list[Daemon]]:
    """Three nodes, two of which have each point: a query goes on when the third stands still."""
    settings = {"cluster": ['query-timeout = "3s"']}
    first = cluster.add().start()
    second = cluster.add(join=[first.meta_address], settings=settings).start()
    third = cluster.add(join=[first.meta_address], settings=settings).start()
    cluster.wait_servers(3)
    first.query("CREATE DATABASE d WITH DURATION INF REPLICATION 2 SHARD DURATION 300h NAME p")
    lines = "\n".join(f"m v={hour * hour % 37} {hour * 3600 * 10**9}" for hour in range(900))
    assert first.write(lines, db="d", consistency="all").status == 204
    yield [first, second, third]
    assert third.process is not None
    os.kill(third.process.pid, signal.SIGCONT)


def test_a_query_is_ended_from_any_node_and_a_silent_node_is_told_of(split: list[Daemon]) -> None:
    first, second, third = split
    thread, answers = in_background(lambda: first.query(f"{SLOW}; SHOW DATABASES", db="d", timeout_s=100))
    wait_until(lambda: running_at(first, first, "SELECT"), "the query is listed", pause_s=0.1)
    wait_until(lambda: not first.is_leader() or not third.is_leader(), "a leader that is not the third")
    assert third.process is not None
    os.kill(third.process.pid, signal.SIGSTOP)
    ((qid, text, database, _, status, host),) = running_at(second, first, "SELECT")
    assert text.endswith(";\nSHOW DATABASES")
    assert (database, status, host) == ("d", "running", first.address)
    ((unknown, *_, why, _),) = [row for row in second.rows("SHOW QUERIES") if row[5] == third.address]
    assert unknown == 0
    assert why.startswith("unknown: ")
    assert third.address in why
    assert error_of(second.query(f'KILL QUERY {qid} ON "elsewhere"')).startswith('no node has the address "elsewhere"')
    assert error_of(second.query(f'KILL QUERY 999 ON "{first.address}"')) == "no such query id: 999"
    assert second.query(f'KILL QUERY {qid} ON "{first.address}"') == {"results": [{"statement_id": 0}]}
    thread.join(60)
    assert answers == [
        {"results": [{"statement_id": 0, "error": "query interrupted"}, {"statement_id": 1, "error": "not executed"}]}
    ]
    assert not running_at(first, first, "SELECT")


def running_at(asked: Daemon, node: Daemon, word: str) -> list[list[Any]]:
    found = [row for row in asked.rows("SHOW QUERIES") if row[5] == node.address]
    return [row for row in found if row[1].startswith(word)]


def test_a_query_that_takes_longer_than_it_may_is_ended(split: list[Daemon]) -> None:
    second = split[1]
    answer = second.query(SLOW, db="d", timeout_s=100)
    assert answer == {"results": [{"statement_id": 0, "error": "query-timeout limit exceeded"}]}
    assert second.query(SLOW, db="d", chunked="true", timeout_s=100) == answer
    assert second.rows("SHOW DATABASES") == [["d"]]


@needs_influxd
@pytest.mark.debian
def test_the_answers_are_those_of_influxd(lone: Daemon, tmp_path: Path) -> None:
    with influxd(tmp_path) as server:
        server.query("CREATE DATABASE d")
        fill(lambda lines: server.write("d", lines))

        def ours(statement: str) -> Answer:
            return lone.get("/query", q=statement)

        seen = []
        for ask, host, port in ((server.query, server.host, server.port), (ours, lone.host, lone.http_port)):
            with Stalled(host, port, STALLED, chunked="true", chunk_size="100") as client:
                (series,) = ask("SHOW QUERIES").json["results"][0]["series"]
                (row,) = [row for row in series["values"] if row[1] != "SHOW QUERIES"]
                answers = [ask(f"KILL QUERY {row[0]}"), ask("KILL QUERY 99999")]
                taken, _ = client.rest()
                last = [line for line in taken.split(b"\n") if line.startswith(b"{")][-1]
                seen.append(
                    (
                        series["columns"],
                        series.keys(),
                        row[1:3],
                        row[4],
                        [(answer.status, answer.body) for answer in answers],
                        last,
                    )
                )
        assert seen[0] == seen[1]
        assert seen[1][0] == COLUMNS
