"""Writes faster than they can be written out, and bodies made to hurt: refusals with a time to retry, no stall."""

from __future__ import annotations

import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Daemon, request, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("http")]
HEAD_BYTES = 2_000_000
SLOW_FLUSH = """
import signal, threading
from dsdbd.storage.shard import Shard
go, flush = threading.Event(), Shard.flush
def slow(self):
    go.wait()
    return flush(self)
Shard.flush = slow
signal.signal(signal.SIGUSR1, lambda *_: go.set())
"""


def store_figure(daemon: Daemon, name: str) -> float:
    line = next(
        one for one in daemon.get("/metrics").body.decode().splitlines() if f'dsdb_store{{name="{name}"}}' in one
    )
    return float(line.split()[-1])


def test_writes_are_refused_while_memory_is_full_and_go_on_afterwards(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_FLUSH)
    settings = {
        "data": [f"cache-max-memory-size = {HEAD_BYTES}", f"cache-snapshot-memory-size = {HEAD_BYTES // 4}"],
        "http": ["log-enabled = false"],
    }
    daemon = Daemon(tmp_path / "node", settings=settings, environ={"PYTHONPATH": str(tmp_path)}).start()
    daemon.query("CREATE DATABASE d")
    stored = 0

    def body() -> bytes:
        return b"".join(b"m,host=h%d v=%d %d\n" % (n % 10, n, n) for n in range(stored, stored + 2_000))

    try:
        while (answer := daemon.write(body(), db="d")).status == 204:
            stored += 2_000
            assert stored * 24 < 4 * HEAD_BYTES, "nothing was refused"
        assert (answer.status, answer.json["code"]) == (503, "overloaded")
        assert int(answer.headers["Retry-After"]) > 0
        # One batch may have come in while the heads were counted.
        assert store_figure(daemon, "head_bytes") < HEAD_BYTES + 500_000
        assert store_figure(daemon, "overloaded") >= 1
        assert daemon.rows("SELECT count(v) FROM m", db="d", epoch="ns") == [[0, stored]]
        assert daemon.write("small v=1 1", db="d").status == 503
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: daemon.write(body(), db="d").status == 204, "writes go on when there is memory again")
        stored += 2_000
        assert daemon.rows("SELECT count(v) FROM m", db="d", epoch="ns") == [[0, stored]]
        assert daemon.stop() == 0
    finally:
        daemon.kill()


@pytest.fixture(scope="module")
def daemon(open_daemon: Daemon) -> Daemon:
    open_daemon.query("CREATE DATABASE pressure")
    return open_daemon


def test_a_body_of_a_gigabyte_is_refused_by_its_length(daemon: Daemon) -> None:
    host, port = daemon.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"POST /write?db=pressure HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nm v=1 1\n")
        head = sock.recv(65536)
    assert head.startswith(b"HTTP/1.1 413 ")


def test_a_body_of_a_gigabyte_in_chunks_is_refused_on_its_way(daemon: Daemon) -> None:
    host, port = daemon.address.split(":")
    chunk = b"100000\r\n" + b"\n" * 0x100000 + b"\r\n"
    sent = 0
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"POST /write?db=pressure HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while sent < 1000:
                sock.sendall(chunk)
                sent += 1
        except OSError:
            # The daemon reads on for a while and then closes.
            pass
        assert sent < 1000 or sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert daemon.get("/ping").status == 204


def test_many_new_series_in_one_body_leave_the_daemon_answering(daemon: Daemon) -> None:
    """A million distinct tag values."""
    count = 1_000_000
    body = b"".join(b"wide,t=%d v=1 1\n" % n for n in range(count))
    assert len(body) < 25_000_000
    outcome: list[int] = []

    def write() -> None:
        outcome.append(request("POST", daemon.url("/write", db="pressure"), body, timeout_s=240).status)

    writer = threading.Thread(target=write)
    writer.start()
    pings = 0
    while not outcome:
        assert daemon.get("/ping", timeout_s=5).status == 204
        pings += 1
    writer.join()
    # Numbering them may take longer than a client waits; then it is told that they may be stored, and they are.
    assert outcome[0] in (204, 504)
    assert pings > 10
    counted = "SELECT count(v) FROM wide"
    wait_until(
        lambda: daemon.rows(counted, db="pressure", epoch="ns", timeout_s=60) == [[0, count]],
        "every point is stored",
        timeout_s=120,
        pause_s=0.5,
    )


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("bad v=NaN 1", "unable to parse 'bad v=NaN 1': invalid number"),
        ("bad v=-inf 1", "unable to parse 'bad v=-inf 1': invalid number"),
        ("bad v=1e999 1", "unable to parse 'bad v=1e999 1': "),
        ("typed v=1i 2", 'partial write: field type conflict: input field "v" on measurement "typed" is type integer'),
    ],
)
def test_values_that_cannot_be_stored(daemon: Daemon, line: str, error: str) -> None:
    assert daemon.write("typed v=1 1", db="pressure").status == 204
    answer = daemon.write(f"{line}\nok v=1 1", db="pressure")
    assert answer.status == 400
    assert error.removeprefix("partial write: ") in answer.json["error"]
    assert daemon.rows("SELECT v FROM ok", db="pressure", epoch="ns") == [[1, 1]]
    assert daemon.rows("SELECT v FROM typed", db="pressure", epoch="ns") == [[1, 1]]
