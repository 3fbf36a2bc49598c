"""Subscriptions of a real daemon: every accepted point reaches its destinations, and no write waits for them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.daemons import Daemon, wait_until
from tests.services.sinks import HttpSink, UdpSink

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {"subscriber": ["write-buffer-size = 3", "write-concurrency = 1"]}
    made = Daemon(tmp_path_factory.mktemp("subscriptions") / "node", settings=settings).start()
    yield made
    made.kill()


@pytest.fixture
def database(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of its own for each test, dropped with its subscriptions."""
    name = request.node.name
    daemon.query(f'CREATE DATABASE "{name}"')
    yield name
    daemon.query(f'DROP DATABASE "{name}"')


def subscribe(daemon: Daemon, database: str, rest: str, *, name: str = "s", policy: str = "autogen") -> None:
    answer = daemon.query(f'CREATE SUBSCRIPTION "{name}" ON "{database}"."{policy}" DESTINATIONS {rest}')
    assert answer == {"results": [{"statement_id": 0}]}, answer


def write(daemon: Daemon, database: str, *lines: str, **params: str) -> None:
    answer = daemon.write("\n".join(lines), db=database, **params)
    assert answer.status == 204, answer.body


def stats(daemon: Daemon, url: str = "") -> dict[str, Any]:
    """The counters of a destination, or of all together."""
    (result,) = daemon.query("SHOW STATS FOR 'subscriber'")["results"]
    for series in result["series"]:
        if series.get("tags", {}).get("destination", "") == url:
            return dict(zip(series["columns"], series["values"][0], strict=True))
    return {}


def test_every_destination_gets_every_point(daemon: Daemon, database: str) -> None:
    lines = ['cpu,host=a ok=true,s="x y",u=1.5,v=3i 10', "cpu,host=b u=2 20", "mem free=1i 30"]
    with HttpSink() as http, UdpSink() as udp:
        subscribe(daemon, database, f"ALL '{http.url}/up/', '{udp.url}'")
        write(daemon, database, *lines)
        write(daemon, database, "cpu,host=c u=4 40")
        for sink in (http, udp):
            wait_until(lambda sink=sink: sorted(sink.lines) == sorted([*lines, "cpu,host=c u=4 40"]), "all points")
        parameters, _ = http.bodies[0]
        assert parameters == {"path": "/up/write", "db": database, "rp": "autogen", "precision": "ns"}
        wait_until(lambda: stats(daemon, f"{http.url}/up/") == {"pointsWritten": 4, "writeFailures": 0}, "counted")


def test_only_accepted_points_of_the_policy_are_sent(daemon: Daemon, database: str) -> None:
    daemon.query(f'CREATE RETENTION POLICY other ON "{database}" DURATION INF REPLICATION 1')
    with HttpSink() as sink:
        subscribe(daemon, database, f"ALL '{sink.url}'")
        write(daemon, database, "m v=1 1")
        write(daemon, database, "m v=9 9", rp="other")
        assert daemon.write('m v="text" 2\nm v=3 3\nno line', db=database).status == 400
        write(daemon, database, "end v=1 4")
        wait_until(lambda: "end v=1 4" in sink.lines, "the last write")
        assert sorted(sink.lines) == ["end v=1 4", "m v=1 1", "m v=3 3"]


def test_a_big_write_comes_complete(daemon: Daemon, database: str) -> None:
    lines = [f"m,host=h{row % 50} v={row},w={row}i {row}" for row in range(20_000)]
    with HttpSink() as sink:
        subscribe(daemon, database, f"ALL '{sink.url}'")
        write(daemon, database, *lines)
        wait_until(lambda: len(sink.lines) == len(lines), "all points")
        assert sorted(sink.lines) == sorted(lines)


def test_any_takes_turns_and_passes_over_one_that_fails(daemon: Daemon, database: str) -> None:
    with HttpSink() as first, HttpSink() as second:
        subscribe(daemon, database, f"ANY '{first.url}', '{second.url}'")
        for row in range(6):
            write(daemon, database, f"m v={row} {row}")
            wait_until(lambda row=row: len(first.lines + second.lines) == row + 1, "one copy")
        assert len(first.lines) == len(second.lines) == 3
        first.status = 503
        for row in range(6, 10):
            write(daemon, database, f"m v={row} {row}")
            wait_until(lambda row=row: len(first.lines + second.lines) == row + 1, "one copy")
        assert len(second.lines) == 7
        assert stats(daemon, first.url)["writeFailures"] >= 1
        assert "status 503" in daemon.log


def test_a_destination_that_hangs_delays_no_write_and_loses_the_oldest(daemon: Daemon, database: str) -> None:
    before = stats(daemon)
    with HttpSink() as sink:
        sink.open.clear()
        subscribe(daemon, database, f"ALL '{sink.url}'")
        for row in range(10):
            write(daemon, database, f"m v={row} {row}")
        # One request is under way, three writes wait, those between are gone.
        wait_until(lambda: stats(daemon)["writesDropped"] - before["writesDropped"] >= 6, "the oldest are dropped")
        sink.open.set()
        wait_until(lambda: len(sink.lines) == 4, "what is left comes")
        assert sink.lines == ["m v=0 0", "m v=7 7", "m v=8 8", "m v=9 9"]
        assert stats(daemon)["pointsDropped"] - before["pointsDropped"] == 6


def test_a_dropped_subscription_gets_nothing_more(daemon: Daemon, database: str) -> None:
    with HttpSink() as sink, HttpSink() as other:
        subscribe(daemon, database, f"ALL '{sink.url}'")
        subscribe(daemon, database, f"ALL '{other.url}'", name="other")
        write(daemon, database, "m v=1 1")
        wait_until(lambda: sink.lines and other.lines, "the first point")
        daemon.query(f'DROP SUBSCRIPTION "s" ON "{database}".autogen')
        write(daemon, database, "m v=2 2")
        wait_until(lambda: len(other.lines) == 2, "the other one gets it")
        assert sink.lines == ["m v=1 1"]
        assert stats(daemon, sink.url) == {}


def test_a_password_in_a_url_is_sent_and_not_logged(daemon: Daemon, database: str) -> None:
    with HttpSink() as sink:
        subscribe(daemon, database, f"ALL '{sink.url.replace('://', '://kim:s3cret@')}'")
        sink.status = 401
        write(daemon, database, "m v=1 1")
        refused = f'"destination": "{sink.url.replace("://", "://kim:[REDACTED]@")}"'
        wait_until(lambda: refused in daemon.log, "the refusal is logged")
        assert sink.users[-1] == "Basic " + base64.b64encode(b"kim:s3cret").decode()
    assert "s3cret" not in daemon.log
