"""The client against peers that misbehave, each a socket that sends given bytes."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dsdb_cli.client import Client, Credentials, Endpoint, connect
from dsdb_cli.errors import BadAnswer, ConnectionFailed, WriteRefused
from dsdb_cli.status import PATH

PONG = b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.6.7\r\nX-DSDB-Version: 0.1.0\r\n\r\n"


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Peer:
    """Listens on a port of its own; each element of a connection's script answers one request, then it closes."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.requests: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=(connections,))
        self._thread.start()

    def _serve(self, connections: tuple[list[bytes], ...]) -> None:
        for script in connections:
            connection, _ = self._socket.accept()
            with connection:
                for reply in script:
                    self.requests.append(self._request(connection))
                    connection.sendall(reply)

    @staticmethod
    def _request(connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            data += piece
            if not piece or data.startswith(b"\x16"):
                return data  # a connection that closes, or one that opens with a TLS handshake
        head, _, body = data.partition(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                while len(body) < int(line.split(b":")[1]):
                    body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        # A script nobody asked for ends with connections that are closed at once.
        while self._thread.is_alive():
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                break
            self._thread.join(0.05)
        self._thread.join()
        self._socket.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., tuple[Peer, Client]]]:
    opened: list[tuple[Peer, Client]] = []

    def start(*connections: list[bytes], **options: Any) -> tuple[Peer, Client]:
        server = Peer(*connections)
        credentials = options.pop("credentials", Credentials())
        opened.append((server, Client(Endpoint("127.0.0.1", server.port, **options), credentials)))
        return opened[-1]

    yield start
    for server, client in opened:
        client.close()
        server.close()


EMPTY = answer(b'{"results":[{}]}\n')


def test_what_is_sent(peer: Any) -> None:
    server, client = peer([EMPTY], credentials=Credentials("todd", "p"))
    client.query("SELECT 'ä&b'", database="a b", retention_policy="rp", epoch="s", chunked=True, chunk_size=7)
    (request,) = server.requests
    assert request.startswith(b"POST /query?db=a+b&rp=rp&epoch=s&chunked=true&chunk_size=7 HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\nq=SELECT+%27%C3%A4%26b%27")
    assert b"\r\nAuthorization: Basic dG9kZDpw\r\n" in request
    assert b"\r\nAccept-Encoding: gzip\r\n" in request


def test_text_that_is_not_unicode_is_sent_as_it_came(peer: Any) -> None:
    server, client = peer([EMPTY])
    client.query(b"SELECT '\xff'".decode(errors="surrogateescape"), database="\udcfe")
    assert server.requests[0].startswith(b"POST /query?db=%FE ")
    assert server.requests[0].endswith(b"q=SELECT+%27%FF%27")


def test_the_connection_is_kept_and_made_anew_when_the_server_closed_it(peer: Any) -> None:
    server, client = peer([EMPTY, EMPTY], [EMPTY])
    for _ in range(3):
        assert client.query("SHOW DATABASES").first_error() is None
    assert len(server.requests) == 3


def test_gzip(peer: Any) -> None:
    body = gzip.compress(b'{"results":[{"series":[{"name":"m","columns":["v"],"values":[[1.50]]}]}]}\n')
    _, client = peer([answer(body, Content_Encoding="gzip")])
    assert client.query("x").results[0].series[0].values == [["1.50"]]


def test_chunked_transfer_in_many_documents(peer: Any) -> None:
    documents = [
        (
            b'{"results":[{"statement_id":0,"partial":true,"series":'
            b'[{"name":"m","columns":["v"],"values":[[1]],"partial":true}]}]}\n'
        ),
        b'{"results":[{"statement_id":0,"series":[{"name":"m","columns":["v"],"values":[[2]]}]}]}\n',
    ]
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(document), document) for document in documents)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    _, client = peer([head + pieces + b"0\r\n\r\n"])
    assert client.query("x", chunked=True).results[0].series[0].values == [["1"], ["2"]]


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (answer(b"<html>gateway</html>", "502 Bad Gateway"), "answered 502 Bad Gateway with something that is not"),
        (answer(b""), "not a result: nothing"),
        (answer(b"[1]"), "not a result: [1]"),
        (answer(b"[" * 100_000), "not a result: [[["),
        (answer(b'{"results":[3]}'), "not a result"),
        (answer(b'{"results":[{"series":[[]]}]}'), "not a result"),
    ],
)
def test_answers_that_are_none(peer: Any, reply: bytes, part: str) -> None:
    _, client = peer([reply])
    with pytest.raises(BadAnswer) as caught:
        client.query("x")
    assert part in caught.value.message


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (b"", "closed the connection without an answer; if it expects TLS, add -ssl"),
        (b"SSH-2.0-OpenSSH_9\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "broke in the middle of an answer: the answer ended early"),
        (answer(b"no gzip", Content_Encoding="gzip"), "broke in the middle of an answer"),
        (answer(gzip.compress(b"{}" * 99, mtime=0)[:-9], Content_Encoding="gzip"), "the answer ended early"),
    ],
)
def test_connections_that_break(peer: Any, reply: bytes, part: str) -> None:
    server, client = peer([reply], [EMPTY])
    with pytest.raises(ConnectionFailed) as caught:
        client.query("x")
    assert part in caught.value.message
    assert f"http://127.0.0.1:{server.port}" in caught.value.message
    # The next request has a connection of its own.
    assert client.query("x").first_error() is None


def test_a_server_without_tls(peer: Any) -> None:
    _, client = peer([answer(b"", "400 Bad Request")], use_ssl=True)
    with pytest.raises(ConnectionFailed, match="leave out -ssl if the server speaks plain HTTP"):
        client.ping()


@pytest.mark.debian
def test_a_certificate_nobody_vouches_for(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", key, "-out", certificate]
    subprocess.run([openssl, *words], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            for _ in range(2):
                try:
                    with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                        connection.recv(65536)
                        connection.sendall(PONG)
                except OSError:
                    continue  # the client that does not trust the certificate

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ConnectionFailed, match=r"certificate is not trusted .*-unsafeSsl accepts it unverified"):
            Client(Endpoint("127.0.0.1", port, use_ssl=True)).ping()
        client = Client(Endpoint("127.0.0.1", port, use_ssl=True, unsafe_ssl=True))
        assert client.ping() == "0.1.0"
        client.close()
        thread.join()


def test_a_server_that_says_nothing(peer: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    client = Client(Endpoint("127.0.0.1", listener.getsockname()[1]))
    with listener, pytest.raises(ConnectionFailed, match="no answer in time"):
        client.query("x", timeout_s=0.1)


def test_names_that_do_not_resolve() -> None:
    for host in ("no-such-host.invalid", "a..b", "x" * 300):
        with pytest.raises(ConnectionFailed, match="does not resolve"):
            Client(Endpoint(host, 1)).ping()


def test_hints_for_401_and_503(peer: Any) -> None:
    body = b'{"error":"authorization failed"}'
    busy = b'{"error":"no leader"}'
    _, client = peer(
        [answer(body, "401 Unauthorized"), answer(busy, "503 Service Unavailable", Retry_After="2")],
    )
    refused = client.query("x")
    assert refused.error == "authorization failed"
    assert refused.hint is not None
    assert "DSDB_PASSWORD" in refused.hint
    assert client.query("x").hint == "Nothing was changed; try again in 2 s."


def test_refused_writes_carry_what_a_retry_needs(peer: Any) -> None:
    _, client = peer([answer(b'{"error":"full"}\n', "503 Service Unavailable", Retry_After="5")])
    with pytest.raises(WriteRefused) as caught:
        client.write(b"m v=1", database="d", retention_policy="", precision="n", consistency="any")
    assert (caught.value.status, caught.value.retry_after_s) == (503, 5.0)
    assert json.loads(caught.value.body) == {"error": "full"}


def test_ping_prefers_the_version_of_dsdb_and_refuses_strangers(peer: Any) -> None:
    _, client = peer([PONG, answer(b"nginx"), answer(b"", "404 Not Found", X_Influxdb_Version="1")])
    assert client.ping() == "0.1.0"
    for _ in range(2):
        with pytest.raises(BadAnswer, match=r"neither DSDB nor InfluxDB 1\.x"):
            client.ping()


def test_without_a_port_both_default_ports_are_named() -> None:
    with pytest.raises((ConnectionFailed, BadAnswer)) as caught:
        # An address of the loopback network that no server of a test listens on.
        connect("127.77.77.77", None, use_ssl=False, unsafe_ssl=False, credentials=Credentials())
    assert "http://127.77.77.77:8088: connection refused (nor does port 8086 answer)" in caught.value.message
    assert "ensure 'dsdbd' is running" in caught.value.message


@pytest.mark.slow
def test_an_import_waits_for_a_busy_server_and_survives_a_lost_connection(peer: Any, dsdb: Any, tmp_path: Path) -> None:
    busy = answer(b'{"error":"disk full"}', "503 Service Unavailable", Retry_After="0.2")
    stored = b"HTTP/1.1 204 No Content\r\n\r\n"
    server, _ = peer([PONG, busy, busy, b""], [stored])
    (tmp_path / "export").write_text("# DML\nm v=1 1\nm v=2 2\n")
    words = ("-host", f"127.0.0.1:{server.port}", "-import", "-path", "export", "-database", "d", "-consistency", "all")
    done = dsdb(*words)
    assert (done.stdout, done.returncode) == ("", 0)
    assert "Processed 2 inserts" in done.stderr
    writes = server.requests[1:]
    assert len(writes) == 4
    assert {request.split(b" ")[1] for request in writes} == {b"/write?db=d&precision=n&consistency=all"}
    assert {request.partition(b"\r\n\r\n")[2] for request in writes} == {b"m v=1 1\nm v=2 2\n"}


STATUS = {
    "cluster_id": "c1",
    "version": "0.1.0",
    "status": "warn",
    "problems": ["influx3 does not answer"],
    "leader": {"meta_id": 1, "tcp_addr": "influx1:8088"},
    "term": 3,
    "commit_index": 17,
    "nodes": [],
    "shards": {"groups": 3, "total": 3, "unavailable": 0},
}


@pytest.mark.slow
@pytest.mark.parametrize(("status", "code"), [("pass", 0), ("warn", 1), ("fail", 1)])
def test_status_exits_with_what_it_saw(peer: Any, dsdb: Any, status: str, code: int) -> None:
    body = json.dumps({**STATUS, "status": status}).encode()
    server, _ = peer([PONG, answer(body)])
    done = dsdb("status", "-host", "127.0.0.1", "-port", server.port, "-format", "json")
    assert (done.returncode, done.stderr) == (code, "")
    assert json.loads(done.stdout)["status"] == status
    assert server.requests[1].startswith(f"GET {PATH} HTTP/1.1\r\n".encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (answer(b'{"error":"authorization failed"}', "401 Unauthorized"), "asks for a user"),
        (answer(b"404 page not found\n", "404 Not Found"), "none of a DSDB cluster"),
        (answer(b'{"error":"no leader"}', "503 Service Unavailable"), "with 503: no leader."),
        (answer(b"[]"), "with 200: not the state of a cluster."),
    ],
)
def test_status_without_an_answer(peer: Any, dsdb: Any, reply: bytes, part: str) -> None:
    server, _ = peer([PONG, reply])
    done = dsdb("status", "-host", "127.0.0.1", "-port", server.port)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr


@pytest.mark.slow
def test_nobody_answers(dsdb: Any) -> None:
    done = dsdb("status", "-host", "127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.startswith("Failed to connect to http://127.0.0.1:1: connection refused\n")
    shell = dsdb("-host", "127.0.0.1:1")
    assert shell.returncode == 1
    assert shell.stderr == (
        "Failed to connect to http://127.0.0.1:1: connection refused\n"
        "Please check your connection settings and ensure 'dsdbd' is running.\n"
        "To start a server, use 'dsdb run' or 'dsdbd'; plain 'dsdb' is the shell.\n"
    )
    assert "To start" not in dsdb("-host", "127.0.0.1:1", "-execute", "SHOW DATABASES").stderr
