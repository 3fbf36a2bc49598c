"""max-connection-limit and writes of known users, on real daemons."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("http")]
MOST = 3


def closed(sock: socket.socket) -> bool:
    """Whether the daemon closed the connection instead of answering."""
    sock.settimeout(20)
    try:
        sock.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        return sock.recv(100) == b""
    except ConnectionError:
        return True


def test_clients_beyond_the_limit_are_closed_and_nodes_are_not(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    settings = {"http": [f"max-connection-limit = {MOST}", "log-enabled = false"]}
    try:
        first, second = cluster.grow(2, settings=settings)
        first.query("CREATE DATABASE d")

        def taken() -> bool:
            return second.rows("SHOW DATABASES") == [["d"]]

        wait_until(taken, "the second node knows the database")
        with contextlib.ExitStack() as stack:
            sockets = []

            def fill() -> bool:
                """Open connections until one is closed."""
                sock = stack.enter_context(socket.create_connection((first.host, first.http_port), timeout=20))
                if closed(sock):
                    return True
                sockets.append(sock)
                return False

            for _ in range(50):
                if fill():
                    break
            else:
                pytest.fail("every connection was taken")
            assert len(sockets) <= MOST
            # What the second node cannot do by itself it asks of the first.
            assert second.write("m v=1 1", db="d", consistency="all").status == 204
            assert second.rows("SELECT count(v) FROM m", db="d", epoch="ns") == [[0, 1]]
            assert not closed(sockets[0])
        wait_until(lambda: _pings(first), "there is room again")
    finally:
        cluster.close()


def _pings(daemon: Daemon) -> bool:
    try:
        return daemon.get("/ping").status == 204
    except (OSError, http.client.HTTPException):
        return False


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {"http": ["auth-enabled = true", "log-enabled = true"]}
    daemon = Daemon(tmp_path_factory.mktemp("guarded"), settings=settings).start()
    try:
        daemon.query("CREATE USER root WITH PASSWORD 'root word' WITH ALL PRIVILEGES")
        for statement in (
            "CREATE DATABASE d",
            "CREATE DATABASE e",
            "CREATE USER ann WITH PASSWORD 'her word'",
            "GRANT WRITE ON d TO ann",
        ):
            assert "error" not in daemon.query(statement, u="root", p="root word")["results"][0]
        yield daemon
    finally:
        daemon.kill()


def test_many_writes_of_a_known_user(guarded: Daemon) -> None:
    given = {"Authorization": "Basic " + base64.b64encode(b"ann:her word").decode()}
    with contextlib.closing(http.client.HTTPConnection(guarded.address, timeout=60)) as connection:
        for n in range(300):
            connection.request("POST", "/write?db=d", f"many v={n} {n}", given)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 204
        for path, status in (
            ("/write?db=e", 403),
            ("/write?db=d&u=ann&p=wrong", 401),
            ("/write?db=d&u=nobody&p=x", 401),
        ):
            connection.request("POST", path, "many v=1 1", given)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
    rows = guarded.rows("SELECT count(v) FROM many", db="d", epoch="ns", u="root", p="root word")
    assert rows == [[0, 300]]
    assert " - ann [" in guarded.log
    for secret in ("her word", "her+word", "root word", base64.b64encode(b"ann:her word").decode()):
        assert secret not in guarded.log


def test_what_is_remembered_of_a_user_ends_with_what_it_was_about(guarded: Daemon) -> None:
    root = {"u": "root", "p": "root word"}

    def write() -> int:
        return guarded.write("n v=1 1", db="d", u="bob", p="one").status

    def change(statement: str) -> None:
        assert "error" not in guarded.query(statement, **root)["results"][0]

    change("CREATE USER bob WITH PASSWORD 'one'")
    assert write() == 403
    change("GRANT WRITE ON d TO bob")
    assert (write(), write()) == (204, 204)
    change("REVOKE WRITE ON d FROM bob")
    assert write() == 403
    change("GRANT ALL ON d TO bob")
    assert write() == 204
    change("SET PASSWORD FOR bob = 'two'")
    assert (write(), write()) == (401, 401)
    change("SET PASSWORD FOR bob = 'one'")
    assert write() == 204
    change("DROP USER bob")
    assert write() == 401
