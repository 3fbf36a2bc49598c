"""Which heads of write requests are ordinary, and where a request ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.acks import Consistency
from dsdbd.http.small_writes import is_plain
from dsdbd.http.write import Target
from dsdbd.http.write_head import body_bytes_after, parse_head
from dsdbd.model.line_protocol import parse_lines

HOST = "Host: x"
LENGTH = "Content-Length: 12"


def head(line: str, *lines: str) -> bytes:
    return ("\r\n".join((line, *lines)) + "\r\n\r\n").encode()


def test_an_ordinary_head() -> None:
    found = parse_head(
        head(
            "POST /write?db=a%20b&rp=r&precision=ms&consistency=ALL&db=later HTTP/1.1",
            HOST,
            "content-LENGTH:  12",
            "User-Agent: u",
            "Content-Encoding: gzip",
            "X-Request-Id: abc",
            "Connection: Keep-Alive",
        )
    )
    assert found is not None
    assert found.target == Target("a b", "r", "ms", Consistency.ALL)
    assert (found.size_bytes, found.packed, found.request_id, found.agent, found.referer) == (12, True, "abc", "u", "-")


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("POST /write?db=d HTTP/1.0", [LENGTH]),
        ("POST /write HTTP/1.1", [LENGTH]),
        ("POST /write?rp=r HTTP/1.1", [LENGTH]),
        ("POST /write?db=d&precision=x HTTP/1.1", [LENGTH]),
        ("POST /write?db=d&consistency=x HTTP/1.1", [LENGTH]),
        ("POST /write?db=%ff HTTP/1.1", [LENGTH]),
        ("POST /write?db=d HTTP/1.1 HTTP/1.1", [LENGTH]),
        ("POST /write?db=d#x HTTP/1.1", [LENGTH]),
        ("GET /write?db=d HTTP/1.1", [LENGTH]),
        ("POST /write?db=d HTTP/1.1", []),
        ("POST /write?db=d HTTP/1.1", [LENGTH, LENGTH]),
        ("POST /write?db=d HTTP/1.1", ["Content-Length: +12"]),
        ("POST /write?db=d HTTP/1.1", ["Content-Length: -1"]),
        ("POST /write?db=d HTTP/1.1", ["Content-Length: 1_2"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "Transfer-Encoding: chunked"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "Expect: 100-continue"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "Connection: close"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "Upgrade: h2c"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "Origin: http://x"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "Content-Encoding: br"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "no colon"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "A : b"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, " folded: b"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "A: b\nContent-Length: 3"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "A: \x00"]),
        ("POST /write?db=d HTTP/1.1", [LENGTH, "A: ü"]),
    ],
)
def test_everything_else_is_left_to_the_library(line: str, lines: list[str]) -> None:
    assert parse_head(head(line, HOST, *lines)) is None


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (head("GET / HTTP/1.1"), 0),
        (head("GET / HTTP/1.1") + b"G", -1),
        (head("POST / HTTP/1.1", "content-length: 5"), 5),
        (head("POST / HTTP/1.1", "Content-Length: 5") + b"abc", 2),
        (head("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 5"), None),
        (head("POST / HTTP/1.1", "Content-Length: x"), None),
        (head("POST / HTTP/1.1", "Transfer-Encoding: chunked"), None),
        (head("GET / HTTP/1.1", "Upgrade: x"), None),
        (b"GET / HT", None),
    ],
)
def test_where_a_request_ends(data: bytes, left: int | None) -> None:
    assert body_bytes_after(data) == left


@pytest.mark.parametrize(
    "body",
    [
        b"m v=1",
        b"m v=1 ",
        b"m  v=1",
        b" m v=1",
        b"m v=1 1\n\nm v=1",
        b"m v=1 1\r\n",
        b"m v=1 1\n\n",
        b"#m v=1 1",
        b'm v="a" 1',
        b"m\\ v=1 1",
        b"{m v=1 1",
        b"m\tv=1 1",
        b"m v=1 1 1",
        b"",
        b"\n",
    ],
)
def test_bodies_that_are_stored_by_themselves(body: bytes) -> None:
    assert not is_plain(body)


text = st.text('am,=v1.5 \n"\\#i-\r\t0', max_size=30).map(str.encode)
lines = st.lists(
    st.sampled_from([b"m v=1 1", b"m,a=b v=2i 2\n", b"n v=3,w=t -3", b"m,a=b v=2 2", b"x y z"]), max_size=2
)
body = st.one_of(text, lines.map(b"\n".join))


@given(st.lists(body, max_size=5))
def test_plain_bodies_joined_mean_what_they_mean_alone(bodies: list[bytes]) -> None:
    """Compared where a group of them is stored as one: when no line has a fault."""
    plain = [one for one in bodies if is_plain(one)]
    alone = [parse_lines(one, precision="ns", default_time_ns=0) for one in plain]
    joined = parse_lines(b"\n".join(one.removesuffix(b"\n") for one in plain), precision="ns", default_time_ns=0)
    assert joined.error_count == sum(one.error_count for one in alone)
    if joined.error_count or joined.conflict_count:
        return
    rows = [row for parsed in alone for points in parsed.points for row in cells(points)]
    assert sorted(rows, key=repr) == sorted((row for points in joined.points for row in cells(points)), key=repr)


def cells(points) -> list[tuple]:  # type: ignore[no-untyped-def]
    return [
        (points.series[points.series_index[row]], int(points.time_ns[row]), key, column.to_arrow()[row].as_py())
        for key, column in points.fields.items()
        for row in range(len(points))
        if column.valid is None or column.valid[row]
    ]
