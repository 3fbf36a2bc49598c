"""Bodies that are large, packed, cut short or hostile, and answers that are large."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time
import zlib

import pytest

from tests.cluster.daemons import Daemon, request, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("http")]
MB = 1_000_000


@pytest.fixture(scope="module")
def daemon(open_daemon: Daemon) -> Daemon:
    open_daemon.query("CREATE DATABASE bodies")
    return open_daemon


def write(daemon: Daemon, body: bytes, **headers: str) -> tuple[int, dict]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = request("POST", daemon.url("/write", db="bodies"), body, named, timeout_s=60)
    return answer.status, json.loads(answer.body) if answer.body else {}


def resident_mb(daemon: Daemon) -> float:
    assert daemon.process is not None
    with open(f"/proc/{daemon.process.pid}/status") as status:
        return next(int(line.split()[1]) / 1000 for line in status if line.startswith("VmRSS"))


def test_body_over_the_limit_is_refused_before_it_is_sent(daemon: Daemon) -> None:
    host, port = daemon.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"POST /write?db=bodies HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        head = sock.recv(65536)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in head


def test_chunked_body_over_the_limit_is_refused(daemon: Daemon) -> None:
    connection = http.client.HTTPConnection(daemon.address, timeout=60)
    line = b"big value=1 1\n" * 10_000
    try:
        connection.request("POST", "/write?db=bodies", (line for _ in range(220)), encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 413
        answer.read()
    except (BrokenPipeError, ConnectionResetError):
        # The daemon need not read on to say no.
        pass
    finally:
        connection.close()
    assert daemon.rows("SELECT count(value) FROM big", db="bodies") == []


@pytest.fixture(scope="module")
def large(daemon: Daemon) -> None:
    """500,000 points in one body just below the limit."""
    lines = b"".join(b"large,host=h%d value=%d %d\n" % (n % 100, n, n) for n in range(500_000))
    assert 15 * MB < len(lines) < 25 * MB
    assert write(daemon, lines)[0] == 204


@pytest.mark.usefixtures("large")
def test_body_just_below_the_limit_is_stored(daemon: Daemon) -> None:
    assert daemon.rows("SELECT count(value) FROM large", db="bodies", epoch="ns") == [[0, 500_000]]


def test_a_line_of_ten_megabytes_is_refused_by_name_and_the_others_stored(daemon: Daemon) -> None:
    status, error = write(daemon, b'ok value=1 1\nlong value="' + b"x" * 10 * MB + b'" 2\nok value=2 2\n')
    assert status == 400
    assert error["error"].startswith("partial write: unable to parse 'long value=")
    assert len(error["error"]) < 10_000
    assert daemon.rows("SELECT value FROM ok", db="bodies", epoch="ns") == [[1, 1], [2, 2]]


def test_gzip_bomb_costs_no_more_than_the_limit(daemon: Daemon) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b"\n" * 10 * MB) for _ in range(15)) + packer.flush()
    assert len(bomb) < 2 * MB
    before = resident_mb(daemon)
    for _ in range(3):
        assert write(daemon, bomb, Content_Encoding="gzip")[0] == 413
    assert resident_mb(daemon) - before < 150


def test_packed_body_cut_short_stores_nothing(daemon: Daemon) -> None:
    packed = gzip.compress(b"".join(b"cut value=%d %d\n" % (n, n) for n in range(5000)))
    for size in (1, 5, 11, 100, len(packed) - 9, len(packed) - 1):
        status, error = write(daemon, packed[:size], Content_Encoding="gzip")
        assert status == 400, size
        assert error["error"] == "unexpected EOF"
    assert daemon.rows("SELECT * FROM cut", db="bodies") == []


def test_packed_body_with_a_flipped_bit_stores_nothing(daemon: Daemon) -> None:
    packed = bytearray(gzip.compress(b"".join(b"flip value=%d %d\n" % (n * 7919 % 1000, n) for n in range(2000))))
    packed[len(packed) // 2] ^= 4
    status, error = write(daemon, bytes(packed), Content_Encoding="gzip")
    assert status == 400
    assert error["error"] in ("gzip: invalid checksum", "flate: corrupt input", "unexpected EOF")
    assert daemon.rows("SELECT * FROM flip", db="bodies") == []


def test_several_members_are_one_body(daemon: Daemon) -> None:
    body = gzip.compress(b"members value=1 1\n") + gzip.compress(b"members value=2 2\n")
    assert write(daemon, body, Content_Encoding="gzip")[0] == 204
    assert daemon.rows("SELECT value FROM members", db="bodies", epoch="ns") == [[1, 1], [2, 2]]


def test_unknown_content_encoding_is_refused(daemon: Daemon) -> None:
    status, error = write(daemon, b"br value=1 1", Content_Encoding="br")
    assert status == 400
    assert "br" in error["error"]


def test_client_that_stops_sending_holds_nothing(daemon: Daemon) -> None:
    host, port = daemon.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"POST /write?db=bodies HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf value=1 1\nhalf va")
        time.sleep(0.1)
    wait_until(lambda: daemon.get("/ping").status == 204, "the daemon answers")
    assert daemon.rows("SELECT * FROM half", db="bodies") == []
    assert "Traceback" not in daemon.log


def test_new_fields_that_fit_into_no_single_metadata_command(daemon: Daemon) -> None:
    fields = ",".join(f"field_with_a_rather_long_name_{n:06}={n}" for n in range(12_000))
    assert write(daemon, f"wide {fields} 1".encode())[0] == 204
    assert len(daemon.rows("SHOW FIELD KEYS FROM wide", db="bodies")) == 12_000


def test_many_new_series_in_a_request(daemon: Daemon) -> None:
    body = b"".join(b"many,id=%d value=1 1\n" % n for n in range(30_000))
    assert write(daemon, body)[0] == 204
    assert daemon.rows("SELECT count(value) FROM many", db="bodies", epoch="ns") == [[0, 30_000]]


def test_new_shard_groups_of_a_request_have_a_bound(daemon: Daemon) -> None:
    week_ns = 7 * 86400 * 10**9
    status, error = write(daemon, b"".join(b"spread value=1 %d\n" % (n * week_ns) for n in range(1500)))
    assert status == 400
    assert "1000" in error["error"]
    assert daemon.rows("SELECT * FROM spread", db="bodies") == []


@pytest.mark.usefixtures("large")
def test_long_statement_in_the_url(daemon: Daemon) -> None:
    hosts = " OR ".join(f"host = 'h{n}'" for n in range(2000))
    rows = daemon.get("/query", db="bodies", q=f"SELECT count(value) FROM large WHERE {hosts}", epoch="ns").json
    assert rows["results"][0]["series"][0]["values"] == [[0, 500_000]]


@pytest.mark.usefixtures("large")
def test_large_answer_packed_equals_plain(daemon: Daemon) -> None:
    url = daemon.url("/query", db="bodies", q="SELECT * FROM large WHERE time < 100000")
    plain = request("GET", url, timeout_s=60)
    packed = request("GET", url, headers={"Accept-Encoding": "gzip"}, timeout_s=60)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 3
    assert len(plain.json["results"][0]["series"][0]["values"]) == 100_000
