"""Ordinary writes take a way of their own: every answer and every stored point must be those of the general way."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import random
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.daemons import Daemon, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("http")]
GENERAL = {"TE": "trailers"}
"""A header that the short way leaves to the library."""
VARIABLE = re.compile(rb"^(date|request-id|x-request-id): .*$", re.IGNORECASE)


@pytest.fixture(scope="module")
def daemon(open_daemon: Daemon) -> Daemon:
    open_daemon.query("CREATE DATABASE front")
    return open_daemon


def connect(daemon: Daemon) -> socket.socket:
    host, port = daemon.address.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def message(body: bytes, path: str = "/write?db=front", **headers: str) -> bytes:
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{named}\r\n".encode() + body


def answers(sock: socket.socket, count: int) -> list[tuple[bytes, bytes]]:
    """Heads and bodies of the next answers of a connection."""
    found, data = [], b""
    while len(found) < count:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        size = int(length[1]) if length else 0
        if end and len(rest) >= size:
            found.append((head, rest[:size]))
            data = rest[size:]
            continue
        more = sock.recv(65536)
        assert more, "the connection was closed"
        data += more
    assert data == b""
    return found


def plain(answer: tuple[bytes, bytes]) -> tuple[bytes, list[bytes], bytes]:
    """Status line, sorted headers that do not differ from request to request, body."""
    first, *headers = answer[0].split(b"\r\n")
    return first, sorted(line.lower() for line in headers if not VARIABLE.match(line)), answer[1]


CASES = [
    (b"c,host=a v=1 1", "/write?db=front", {}),
    (b"c,host=a v=1 1\nc,host=b v=2 2\n", "/write?db=front&precision=s&consistency=all", {}),
    (b"c v=1", "/write?db=front", {}),
    (b'c s="two\nlines" 1', "/write?db=front", {}),
    (b"", "/write?db=front", {}),
    (b"# comment\n", "/write?db=front", {}),
    (b"no line", "/write?db=front", {}),
    (b"c v=1 1\nno line", "/write?db=front", {}),
    (b"c v=1i 1", "/write?db=front", {}),
    (b"c v=1i 1\nc,host=x w=1 1", "/write?db=front", {}),
    (b"c v=1 1", "/write?db=none", {}),
    (b"c v=1 1", "/write?db=front&rp=none", {}),
    (b"c v=1 1", "/write?db=front&precision=x", {}),
    (b"c v=1 1", "/write?db=front&consistency=x", {}),
    (b"c v=1 1", "/write", {}),
    (b'{"database": "front"}', "/write?db=front", {}),
    (b"c v=nan 1", "/write?db=front", {}),
    (b"c v=inf 1", "/write?db=front", {}),
    (b"c v=1 99999999999999999999", "/write?db=front", {}),
    (gzip.compress(b"c v=1 1", mtime=0), "/write?db=front", {"Content_Encoding": "gzip"}),
    (b"not packed", "/write?db=front", {"Content_Encoding": "gzip"}),
    (b"c v=1 1", "/write?db=front", {"Content_Encoding": "br"}),
    (b"c v=1 1\n" * 1000, "/write?db=front", {}),
    (b"c v=1 1\n" * 1000 + b"c v=2i 1\nno line\n", "/write?db=front", {}),
]


@pytest.mark.parametrize(("body", "path", "headers"), CASES)
def test_an_answer_is_that_of_the_general_way(daemon: Daemon, body: bytes, path: str, headers: dict[str, str]) -> None:
    daemon.write("c,host=first v=1 0", db="front")
    with connect(daemon) as sock:
        sock.sendall(message(body, path, **headers))
        short = answers(sock, 1)[0]
        sock.sendall(message(body, path, **headers, **GENERAL))
        general = answers(sock, 1)[0]
    assert plain(short) == plain(general)


def test_a_request_id_comes_back(daemon: Daemon) -> None:
    with connect(daemon) as sock:
        sock.sendall(message(b"c v=1 1", X_Request_Id="abc"))
        head = answers(sock, 1)[0][0]
    assert b"\r\nRequest-Id: abc\r\nX-Request-Id: abc\r\n" in head


def test_a_connection_goes_to_the_library_and_back(daemon: Daemon) -> None:
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(daemon) as sock:
        for turn in range(5):
            sock.sendall(message(b"turns v=1 %d" % turn))
            assert answers(sock, 1)[0][0].startswith(b"HTTP/1.1 204 ")
            sock.sendall(ping)
            assert answers(sock, 1)[0][0].startswith(b"HTTP/1.1 204 ")
            sock.sendall(message(b"turns v=1 %d" % (turn + 100), **GENERAL))
            assert answers(sock, 1)[0][0].startswith(b"HTTP/1.1 204 ")
    assert daemon.rows("SELECT count(v) FROM turns", db="front", epoch="ns") == [[0, 10]]


@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_requests_arrive_in_any_pieces(daemon: Daemon, piece: int) -> None:
    name = f"pieces{piece}"
    whole = b"".join(message(f"{name} v=1 {turn}".encode()) for turn in range(20))
    with connect(daemon) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(whole), piece):
            sock.sendall(whole[at : at + piece])
        assert all(head.startswith(b"HTTP/1.1 204 ") for head, _ in answers(sock, 20))
    assert daemon.rows(f"SELECT count(v) FROM {name}", db="front", epoch="ns") == [[0, 20]]


def test_requests_sent_ahead_are_answered_in_order(daemon: Daemon) -> None:
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    good, bad = message(b"ahead v=1 1"), message(b"no line")
    large = message(b"".join(b"ahead v=1 %d\n" % n for n in range(5000)))
    with connect(daemon) as sock:
        sock.sendall((good + bad + ping + large) * 20)
        found = [int(head[9:12]) for head, _ in answers(sock, 80)]
    assert found == [204, 400, 204, 204] * 20


def test_requests_that_arrive_while_others_are_answered_do_not_overtake_them(daemon: Daemon) -> None:
    """Each client sends ahead without a pause, in pieces that end anywhere."""
    turns = 300
    daemon.write("race,client=x v=1 0", db="front")

    def client(number: int) -> list[int]:
        cut = random.Random(number)
        whole = b"".join(
            message(b"no line" if turn % 3 == number % 3 else f"race,client=c{number} v=1 {turn}".encode())
            for turn in range(turns)
        )
        with connect(daemon) as sock, ThreadPoolExecutor(1) as reader:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found = reader.submit(answers, sock, turns)
            at = 0
            while at < len(whole):
                size = cut.randrange(1, 400)
                sock.sendall(whole[at : at + size])
                at += size
            return [int(head[9:12]) for head, _ in found.result(60)]

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(client, range(8))):
            assert found == [400 if turn % 3 == number % 3 else 204 for turn in range(turns)], number
    counts = daemon.rows("SELECT count(v) FROM race WHERE client != 'x' GROUP BY client", db="front")
    assert [count for _, count in counts] == [turns * 2 // 3] * 8


def test_small_writes_of_many_connections_keep_their_own_outcome(daemon: Daemon) -> None:
    daemon.write("own,client=x v=1 0", db="front")

    def client(number: int) -> list[int]:
        found = []
        with contextlib.closing(http.client.HTTPConnection(daemon.address, timeout=60)) as connection:
            for turn in range(60):
                value = "1i" if turn % 10 == 3 else "nan" if turn % 10 == 6 else "1"
                connection.request("POST", "/write?db=front", f"own,client=c{number} v={value} {turn}")
                answer = connection.getresponse()
                answer.read()
                found.append(answer.status)
        return found

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(client, range(16)))
    assert results == [[400 if turn % 10 in (3, 6) else 204 for turn in range(60)]] * 16
    rows = daemon.rows("SELECT count(v) FROM own WHERE client != 'x'", db="front", epoch="ns")
    assert rows == [[0, 16 * 48]]


def test_points_without_a_time_are_not_put_together(daemon: Daemon) -> None:
    def client(_: int) -> None:
        with connect(daemon) as sock:
            for _ in range(20):
                sock.sendall(message(b"now v=1"))
                assert answers(sock, 1)[0][0].startswith(b"HTTP/1.1 204 ")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    assert daemon.rows("SELECT count(v) FROM now", db="front", epoch="ns") == [[0, 160]]


def test_a_client_that_goes_away_in_the_middle_leaves_nothing_held(daemon: Daemon) -> None:
    for size in (10, 100, 150):
        with connect(daemon) as sock:
            sock.sendall(message(b"gone v=1 1\n" * 10)[:size])
    with connect(daemon) as sock:
        sock.sendall(message(b"stays v=1 1"))
    wait_until(lambda: daemon.rows("SELECT v FROM stays", db="front"), "a whole request is stored unread answer or not")
    assert daemon.rows("SELECT v FROM gone", db="front") == []
    assert "Traceback" not in daemon.log


def unread_bytes(daemon: Daemon, sock: socket.socket) -> int:
    """What the kernel holds of a connection that the daemon has not read yet."""
    mine, theirs = sock.getsockname()[1], daemon.http_port
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, _, queues = line.split()[1:5]
        if int(local.split(":")[1], 16) == theirs and int(remote.split(":")[1], 16) == mine:
            return int(queues.split(":")[1], 16)
    raise AssertionError("there is no such connection")


def test_requests_under_way_are_answered_when_the_daemon_stops(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, settings={"http": ["log-enabled = true"]}).start()
    daemon.query("CREATE DATABASE front")
    body = b"".join(b"stop,n=%d v=1,w=%d %d\n" % (n % 1000, n, n) for n in range(20_000))
    with connect(daemon) as idle, connect(daemon) as late:
        idle.sendall(message(b"stop v=1 1"))
        answers(idle, 1)
        late.sendall(message(body))
        wait_until(lambda: unread_bytes(daemon, late) == 0, "the daemon has read the body")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        assert idle.recv(10) == b""
        assert answers(late, 1)[0][0].startswith(b"HTTP/1.1 204 ")
        assert late.recv(10) == b""
    assert daemon.wait_exit() == 0
    assert daemon.log.count("POST /write?db=front HTTP/1.1 204 0 - - ") == 2
