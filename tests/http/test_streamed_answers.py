"""Big answers of real daemons: bounded memory, order, clients that go away or stop reading, nodes that die."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from dsdbd.cluster.reads import Cancellation, ReadPath
from dsdbd.http.answers import Answer
from dsdbd.http.events import Begun, Ended
from dsdbd.query import AnswerPart
from tests.cluster.daemons import Cluster, Daemon, free_port, wait_until
from tests.query.test_query_answer_parts import rows_of
from tests.unit.lone_node import lone_node, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from dsdbd.http.events import Event

pytestmark = pytest.mark.slow
HOSTS = 50
ROWS = 1_000_000
STEP = 50_000
GROWTH_MB = 250
"""More than slices take, and less than a million rows, which would be held several times."""


def line(number: int) -> str:
    host = number % HOSTS
    return f"cpu,host=h{host:02},rack=r{host % 7} a={number},b={number * 0.25},c={number % 97}i {number // HOSTS}"


def fill(daemon: Daemon, rows: int) -> None:
    for start in range(0, rows, STEP):
        body = "\n".join(map(line, range(start, start + STEP)))
        assert daemon.write(body, db="d", timeout_s=60).status == 204


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("big")).start()
    try:
        daemon.query("CREATE DATABASE d")
        fill(daemon, ROWS)
        yield daemon
    finally:
        daemon.kill()


def memory_mb(daemon: Daemon, name: str) -> int:
    assert daemon.process is not None
    with open(f"/proc/{daemon.process.pid}/status") as status:
        return next(int(text.split()[1]) >> 10 for text in status if text.startswith(name))


def forget_peak(daemon: Daemon) -> None:
    assert daemon.process is not None
    with open(f"/proc/{daemon.process.pid}/clear_refs", "w") as file:
        file.write("5")


def received(daemon: Daemon, statement: str, **parameters: str) -> bytes:
    url = daemon.url("/query", q=statement, db="d", epoch="ns", **parameters)
    with urllib.request.urlopen(url, timeout=120) as response:
        body: bytes = response.read()
    return body


@pytest.mark.parametrize("chunked", ["false", "true"])
def test_a_million_rows_need_little_memory(big: Daemon, chunked: str) -> None:
    forget_peak(big)
    before_mb = memory_mb(big, "VmRSS")
    body = received(big, "SELECT a FROM cpu", chunked=chunked)
    assert memory_mb(big, "VmHWM") - before_mb < GROWTH_MB
    rows: list[list[int]] = []
    for text in body.splitlines():
        (result,) = json.loads(text)["results"]
        rows += [row for series in result["series"] for row in series["values"]]
    assert len(rows) == ROWS
    assert rows[:: ROWS // 10] == [[number // HOSTS, number] for number in range(0, ROWS, ROWS // 10)]
    assert all(first[0] <= second[0] for first, second in itertools.pairwise(rows))
    assert sum(row[1] for row in rows) == ROWS * (ROWS - 1) // 2


def test_groups_come_in_order_and_whole(big: Daemon) -> None:
    (result,) = json.loads(received(big, "SELECT a FROM cpu GROUP BY host ORDER BY time DESC"))["results"]
    hosts = [series["tags"]["host"] for series in result["series"]]
    assert hosts == [f"h{host:02}" for host in reversed(range(HOSTS))]
    times = list(reversed(range(ROWS // HOSTS)))
    assert all([row[0] for row in series["values"]] == times for series in result["series"])


def test_csv_is_one_table(big: Daemon) -> None:
    request = urllib.request.Request(
        big.url("/query", q="SELECT a FROM cpu WHERE c < 40", db="d"), headers={"Accept": "text/csv"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        lines = response.read().decode().splitlines()
    assert lines[0] == "name,tags,time,a"
    assert len(lines) == 1 + sum(number % 97 < 40 for number in range(ROWS))


def test_early_ends_are_early(big: Daemon) -> None:
    last = ROWS // HOSTS - 1
    for statement, expected in (
        ("SELECT a FROM cpu ORDER BY time DESC LIMIT 2 OFFSET 1", [[last, ROWS - 2], [last, ROWS - 3]]),
        ("SELECT a FROM cpu LIMIT 1 OFFSET 999999", [[last, ROWS - 1]]),
        ("SELECT a FROM cpu WHERE a > 500000 LIMIT 1", [[500_001 // HOSTS, 500_001]]),
        (
            "SELECT max(a) FROM cpu WHERE time < 20000 GROUP BY time(10ns) ORDER BY time DESC LIMIT 1",
            [[19_990, ROWS - 1]],
        ),
    ):
        assert json.loads(received(big, statement))["results"][0]["series"][0]["values"] == expected


def stalled(daemon: Daemon, statement: str, **parameters: str) -> socket.socket:
    """A client that has asked, has taken the first bytes, and takes no more of its own."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(60)
    client.connect((daemon.host, daemon.http_port))
    path = "/query?" + urllib.parse.urlencode({"q": statement, "db": "d", **parameters})
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert client.recv(15) == b"HTTP/1.1 200 OK"
    return client


def rest(client: socket.socket) -> bytes:
    taken = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while block := client.recv(1 << 16):
            taken += block
    return bytes(taken)


def running(daemon: Daemon) -> list[Any]:
    return [row for row in daemon.rows("SHOW QUERIES") if row[1] != "SHOW QUERIES"]


def test_a_client_that_goes_ends_its_query_soon(big: Daemon) -> None:
    with stalled(big, "SELECT * FROM cpu"):
        assert len(running(big)) == 1
    wait_until(lambda: not running(big), "the query has ended")


def test_a_client_that_takes_nothing_is_not_read_for(big: Daemon) -> None:
    """The daemon's memory does not grow while it waits, and the answer is whole when the client goes on."""
    forget_peak(big)
    before_mb = memory_mb(big, "VmRSS")
    with stalled(big, "SELECT a, b, c FROM cpu", epoch="ns") as client:
        for _ in range(5):
            received(big, "SELECT a FROM cpu LIMIT 100000")
        assert len(running(big)) == 1
        assert memory_mb(big, "VmHWM") - before_mb < GROWTH_MB
        text = rest(client)
    assert memory_mb(big, "VmHWM") - before_mb < GROWTH_MB
    assert text.endswith(b"0\r\n\r\n")
    assert b'"error"' not in text[-200:]


@pytest.fixture
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    cluster = Cluster(tmp_path_factory.mktemp("spread"))
    try:
        daemons = cluster.grow(3)
        daemons[0].query("CREATE DATABASE d WITH REPLICATION 1 SHARD DURATION 1h")
        yield daemons
    finally:
        cluster.close()


def test_slices_come_from_all_nodes_and_an_error_ends_an_answer(spread: list[Daemon]) -> None:
    rows = 400_000
    fill(spread[0], rows)
    owners = {str(row[-1]) for row in spread[0].rows("SHOW SHARDS")}
    assert len(owners) > 1
    for daemon in spread:
        (result,) = json.loads(received(daemon, "SELECT a FROM cpu"))["results"]
        assert [row[1] for row in result["series"][0]["values"]][::1000] == list(range(0, rows, 1000))
        (result,) = json.loads(received(daemon, "SELECT a FROM cpu GROUP BY rack ORDER BY time DESC"))["results"]
        assert [series["tags"]["rack"] for series in result["series"]] == [f"r{n}" for n in reversed(range(7))]
        assert sum(len(series["values"]) for series in result["series"]) == rows
    lost = next(daemon for daemon in spread[1:] if not daemon.is_leader())
    with stalled(spread[0], "SELECT * FROM cpu") as client:
        lost.kill()
        text = rest(client)
    assert text.endswith(b"]}\n\r\n0\r\n\r\n")
    tail = text[-400:].decode()
    assert '],"error":"shard ' in tail, tail
    assert "an answer on its way ended with an error" in spread[0].log


@pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")
def test_a_client_that_takes_nothing_for_long_is_cut_off(tmp_path: Path) -> None:
    asyncio.run(cut_off(tmp_path))


async def cut_off(tmp_path: Path) -> None:
    reads = ReadPath(lone_node(tmp_path, state_of()))
    parts = 0

    async def events() -> AsyncIterator[Event]:
        nonlocal parts
        yield Begun(0)
        while True:
            parts += 1
            yield AnswerPart([rows_of("m", None, 0, 20_000)], continues=parts > 1)
        yield Ended(0)

    ended = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = Answer(request, {}, reads, Cancellation(), 1, stall_timeout_s=0.2)
        try:
            return await answer.send_document(events())
        except ConnectionResetError:
            ended.set()
            raise

    application = web.Application()
    application.router.add_get("/query", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        try:
            writer.write(b"GET /query HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await asyncio.wait_for(ended.wait(), 30)
            assert 0 < parts < 1000
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    finally:
        await runner.cleanup()
