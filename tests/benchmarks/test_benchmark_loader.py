"""The client and the loader of the benchmark, against a server that answers what the test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.tsbs.bodies import Body, cut
from benchmarks.tsbs.client import BadAnswer, Connection
from benchmarks.tsbs.loader import Load, Refused, Target, endless, load_one_by_one, one_point_requests
from tests.cluster.daemons import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy"


class Server:
    """Answers each request on any connection with the next of ``answers``, the last one again and again."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.bodies: list[bytes] = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.threads: list[threading.Thread] = []
        self.target = Target("127.0.0.1", self.listener.getsockname()[1], "/write?db=x")

    def accept(self) -> None:
        while True:
            try:
                accepted, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.serve, args=(accepted,))
            thread.start()
            self.threads.append(thread)

    def serve(self, accepted: socket.socket) -> None:
        # A load that ends early closes its connections while an answer is on its way.
        with contextlib.suppress(ConnectionError), accepted, accepted.makefile("rb") as stream:
            while line := stream.readline():
                assert line.split()[0] in (b"POST", b"GET")
                size = 0
                while (head := stream.readline()) not in (b"\r\n", b""):
                    if head.lower().startswith(b"content-length:"):
                        size = int(head.split(b":")[1])
                body = stream.read(size)
                with self.lock:
                    self.bodies.append(body)
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                accepted.sendall(answer)
                if not answer.startswith(b"HTTP/1.1"):
                    return


@contextmanager
def server(*answers: bytes) -> Iterator[Server]:
    running = Server(list(answers))
    thread = threading.Thread(target=running.accept)
    thread.start()
    try:
        yield running
    finally:
        running.listener.shutdown(socket.SHUT_RDWR)
        running.listener.close()
        for one in (thread, *running.threads):
            one.join(10)


def some_bodies(count: int, rows: int) -> list[Body]:
    lines = pa.array([f"m value={number} {10**18 + number}\n" for number in range(count * rows)])
    return list(cut(lines, np.ones(count * rows, np.int64), rows))


def test_what_was_accepted_is_counted() -> None:
    bodies = some_bodies(10, 3)
    with server(OK) as running:
        loaded = Load(running.target, iter(bodies), 2).wait()
    assert (loaded.rows, loaded.values, loaded.requests, loaded.retries) == (30, 30, 10, 0)
    assert sorted(running.bodies) == sorted(body.data for body in bodies)
    assert loaded.elapsed_s > 0
    assert loaded.figures()["p50_ms"] > 0


def test_a_busy_server_gets_the_body_again() -> None:
    bodies = some_bodies(2, 1)
    with server(BUSY, OK, BUSY, BUSY, OK) as running:
        loaded = Load(running.target, iter(bodies), 1).wait()
    assert (loaded.requests, loaded.retries) == (2, 3)
    assert running.bodies == [bodies[0].data] * 2 + [bodies[1].data] * 3


def test_another_answer_ends_the_load() -> None:
    refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\nnot today"
    with server(OK, refused) as running, pytest.raises(Refused, match="400 not today"):
        Load(running.target, iter(some_bodies(5, 1)), 2).wait()
    with server(refused) as running, pytest.raises(Refused, match="400 Bad Request"):
        load_one_by_one(running.target, [b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"] * 3, 2)


def test_a_load_at_a_rate_goes_on_with_later_times_until_it_is_stopped() -> None:
    bodies = some_bodies(2, 4)
    with server(OK) as running:
        load = Load(running.target, endless(bodies, 10**9), 1, rate=1_000)
        wait_until(lambda: len(running.bodies) >= 5, "five bodies")
        loaded = load.stop()
    assert loaded.requests == len(running.bodies) >= 5
    assert loaded.rows / loaded.elapsed_s < 2_000
    times_ns = [int(line.split()[-1]) for body in running.bodies for line in body.splitlines()]
    assert times_ns[:8] == [10**18 + 10**9 + number for number in range(8)]
    assert times_ns[8] == 10**18 + 2 * 10**9


def test_single_lines_each_get_their_request() -> None:
    with server(OK) as running:
        requests = one_point_requests(iter(some_bodies(3, 10)), 25, running.target)
        loaded = load_one_by_one(running.target, requests, 8)
    assert loaded.requests == 25
    assert sorted(running.bodies) == sorted(f"m value={number} {10**18 + number}\n".encode() for number in range(25))
    assert len(loaded.latencies_ms) == 25


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
def test_bodies_of_both_framings_are_read(answer: bytes) -> None:
    with server(answer) as running, Connection(running.target.host, running.target.port) as connection:
        assert [connection.get("/").body, connection.get("/").body] == [b"hello", b"hello"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\nhello", b"SSH-2.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_what_cannot_be_framed_is_refused(answer: bytes) -> None:
    with (
        server(answer) as running,
        Connection(running.target.host, running.target.port) as connection,
        pytest.raises(BadAnswer),
    ):
        connection.get("/")
