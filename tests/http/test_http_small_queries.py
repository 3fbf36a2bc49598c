"""Small queries that come again are answered before the library: what a client sees must be what the library sends."""

from __future__ import annotations

import gzip
import json
from urllib.parse import quote_plus, urlencode

import pytest

from tests.cluster.daemons import Daemon, wait_until
from tests.http.test_http_front import GENERAL, answers, connect, plain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("http")]
ROUNDS = 6
"""A statement is planned when it comes for the second time, and may have to be read from a file once."""
START_S = 1_700_000_000


@pytest.fixture(scope="module")
def daemon(open_daemon: Daemon) -> Daemon:
    open_daemon.query("CREATE DATABASE small")
    open_daemon.query("CREATE RETENTION POLICY other ON small DURATION INF REPLICATION 1")
    lines = [
        f"cpu,host=h{host},region=r{host % 2} v={second * 0.1 + host},n={second}i,"
        f's="t{second % 3}",b={second % 20 == 0} {START_S + second}'
        for host in range(4)
        for second in range(0, 600, 10)
    ]
    open_daemon.write("\n".join(lines), db="small", precision="s")
    open_daemon.write(f"cpu,host=h1 v=7 {START_S}", db="small", rp="other", precision="s")
    return open_daemon


def message(text: str, *, headers: dict[str, str] | None = None, **parameters: str) -> bytes:
    path = "/query?" + urlencode({"db": "small", "q": text, **parameters}, quote_via=quote_plus)
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "x", **(headers or {})}.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


def is_short(answer: tuple[bytes, bytes]) -> bool:
    """Whether an answer came the short way, which puts the ids before the date."""
    head = answer[0].lower()
    return head.index(b"\r\nrequest-id:") < head.index(b"\r\ndate:")


def ask(daemon: Daemon, first: bytes, again: int = 1) -> list[tuple[bytes, bytes]]:
    found = []
    with connect(daemon) as sock:
        for _ in range(again):
            sock.sendall(first)
            found += answers(sock, 1)
    return found


def at(second: int) -> str:
    minutes, seconds = divmod(START_S + second, 60)
    return f"2023-11-14T{minutes // 60 % 24:02d}:{minutes % 60:02d}:{seconds:02d}Z"


def window(low: int, high: int) -> str:
    return f"time >= '{at(low)}' AND time < '{at(high)}'"


STATEMENTS = [
    f"SELECT max(v) FROM cpu WHERE host = 'h1' AND {window(60, 300)} GROUP BY time(1m)",
    f"SELECT max(v), mean(n), first(s) FROM cpu WHERE (host='h1' OR host='h3') AND {window(3, 400)} GROUP BY time(1m)",
    f"SELECT mean(v) FROM cpu WHERE {window(0, 600)} GROUP BY time(5m), host",
    f"SELECT count(v), sum(n) FROM cpu WHERE {window(0, 600)} GROUP BY region",
    f"SELECT * FROM cpu WHERE host = 'h2' AND {window(0, 100)}",
    f"SELECT v FROM cpu WHERE host = 'h2' AND v > 20 AND {window(0, 600)}",
    "SELECT last(v) FROM cpu WHERE host = 'h2'",
    "SELECT v, s FROM cpu WHERE region = 'r1' ORDER BY time DESC LIMIT 3",
    "SELECT * FROM cpu GROUP BY host ORDER BY time DESC LIMIT 1",
    "SELECT v FROM cpu WHERE host = 'nobody'",
    f"SELECT max(v) FROM cpu WHERE host = 'nobody' AND {window(0, 100)} GROUP BY time(1m)",
    'SELECT v FROM "other".cpu',
    "SELECT mean(v) FROM cpu WHERE time > now() - 1h GROUP BY time(10m)",
    "SELECT derivative(mean(v), 1s) FROM cpu WHERE " + window(60, 300) + " GROUP BY time(1m)",
]
FORMS: list[dict[str, str]] = [{}, {"epoch": "ms"}, {"epoch": "ns", "rp": "other"}]


@pytest.mark.parametrize("text", STATEMENTS)
def test_an_answer_is_that_of_the_library(daemon: Daemon, text: str) -> None:
    for form in FORMS:
        if "now()" in text and form:
            continue
        general = ask(daemon, message(text, headers=GENERAL, **form))[0]
        for answer in ask(daemon, message(text, **form), ROUNDS):
            assert plain(answer) == plain(general)


@pytest.mark.parametrize("text", STATEMENTS[:9])
def test_statements_that_come_again_go_the_short_way(daemon: Daemon, text: str) -> None:
    wait_until(lambda: is_short(ask(daemon, message(text), ROUNDS)[-1]), text)


def test_other_times_and_tags_are_those_asked_for(daemon: Daemon) -> None:
    def text(host: str, low: int, high: int) -> str:
        return f"SELECT max(v), min(v) FROM cpu WHERE host = '{host}' AND {window(low, high)} GROUP BY time(30s)"

    wait_until(lambda: is_short(ask(daemon, message(text("h0", 0, 600)), ROUNDS)[-1]), "the short way")
    for host in ("h0", "h1", "h3", "", "nobody", "a b&c"):
        for low, high in ((0, 600), (77, 305), (590, 900), (300, 200)):
            (short,) = ask(daemon, message(text(host, low, high)))
            (general,) = ask(daemon, message(text(host, low, high), headers=GENERAL))
            assert plain(short) == plain(general)


@pytest.mark.parametrize("wrong", ["yesterday", "2023-13-14T00:00:00Z", "9999-01-01T00:00:00Z"])
def test_what_is_no_time_is_told_in_the_same_words(daemon: Daemon, wrong: str) -> None:
    def text(time: str) -> str:
        return f"SELECT v FROM cpu WHERE time >= '{time}'"

    ask(daemon, message(text(at(0))), ROUNDS)
    (short,) = ask(daemon, message(text(wrong)))
    (general,) = ask(daemon, message(text(wrong), headers=GENERAL))
    assert plain(short) == plain(general)
    assert b"error" in short[1]


def test_new_rows_are_seen_at_once(daemon: Daemon) -> None:
    text = f"SELECT count(v) FROM fresh WHERE time >= '{at(0)}'"
    for turn in range(1, 20):
        daemon.write(f"fresh v={turn} {START_S + turn}", db="small", precision="s")
        for _, body in ask(daemon, message(text), 2):
            assert json.loads(body)["results"][0]["series"][0]["values"][0][1] == turn


def test_new_fields_tags_and_policies_are_seen_at_once(daemon: Daemon) -> None:
    text = f"SELECT * FROM grown WHERE time >= '{at(0)}'"

    def columns() -> list[str]:
        return [json.loads(body)["results"][0]["series"][0]["columns"] for _, body in ask(daemon, message(text), 3)][-1]

    daemon.write(f"grown a=1 {START_S}", db="small", precision="s")
    assert columns() == ["time", "a"]
    daemon.write(f"grown b=1 {START_S + 1}", db="small", precision="s")
    assert columns() == ["time", "a", "b"]
    daemon.write(f"grown,tag=x b=1 {START_S + 2}", db="small", precision="s")
    assert columns() == ["time", "a", "b", "tag"]
    daemon.query('DROP MEASUREMENT "grown"', db="small")
    assert all(b"series" not in body for _, body in ask(daemon, message(text), 3))


def test_a_database_that_is_dropped_is_gone_at_once(daemon: Daemon) -> None:
    text = "SELECT v FROM m"
    for _ in range(2):
        daemon.query("CREATE DATABASE brief")
        daemon.write("m v=1 1", db="brief")
        assert all(b'"series"' in body for _, body in ask(daemon, message(text, db="brief"), ROUNDS))
        daemon.query("DROP DATABASE brief")
        assert all(b"database not found: brief" in body for _, body in ask(daemon, message(text, db="brief"), 2))


def test_answers_are_packed_for_who_asks_so(daemon: Daemon) -> None:
    text = STATEMENTS[0]
    wait_until(lambda: is_short(ask(daemon, message(text), ROUNDS)[-1]), "the short way")
    packed = message(text, headers={"Accept-Encoding": "gzip, deflate"})
    (short,) = ask(daemon, packed)
    (general,) = ask(daemon, message(text, headers={"Accept-Encoding": "gzip, deflate", **GENERAL}))
    assert is_short(short)
    assert b"\r\nContent-Encoding: gzip" in short[0]
    assert gzip.decompress(short[1]) == gzip.decompress(general[1]) == ask(daemon, message(text))[0][1]


def test_a_connection_goes_to_the_library_and_back(daemon: Daemon) -> None:
    text = STATEMENTS[0]
    wait_until(lambda: is_short(ask(daemon, message(text), ROUNDS)[-1]), "the short way")
    with connect(daemon) as sock:

        def asked(**headers: str) -> tuple[bytes, bytes]:
            sock.sendall(message(text, headers=headers))
            return answers(sock, 1)[0]

        for _ in range(3):
            # Right behind an answer of the library it may not wait for the next request yet.
            short = wait_until(lambda: next(filter(is_short, [asked()]), None), "the short way")
            general = asked(**GENERAL)
            assert not is_short(general)
            assert plain(short) == plain(general)
        sock.sendall(message(text) * 5)
        assert {body for _, body in answers(sock, 5)} == {short[1]}
        whole = message(text)
        sock.sendall(whole[:40])
        sock.sendall(whole[40:])
        assert answers(sock, 1)[0][1] == short[1]


@pytest.mark.parametrize(
    ("headers", "parameters"),
    [
        ({"Accept": "application/csv"}, {}),
        ({"Accept": "application/x-msgpack"}, {}),
        ({"Origin": "http://x"}, {}),
        ({}, {"pretty": "true"}),
        ({}, {"chunked": "true"}),
        ({}, {"u": "a", "p": "b"}),
        ({"Connection": "close"}, {}),
    ],
)
def test_everything_else_is_left_to_the_library(
    daemon: Daemon, headers: dict[str, str], parameters: dict[str, str]
) -> None:
    text = STATEMENTS[0]
    wait_until(lambda: is_short(ask(daemon, message(text), ROUNDS)[-1]), "the short way")
    with connect(daemon) as sock:
        sock.sendall(message(text, headers=headers, **parameters))
        head = sock.recv(65536).partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert not is_short((head, b""))


def test_they_are_counted(daemon: Daemon) -> None:
    def counted() -> int:
        for series in daemon.query("SHOW STATS")["results"][0]["series"]:
            figures = dict(zip(series["columns"], series["values"][0], strict=True))
            if "queriesFinished" in figures:
                return int(figures["queriesFinished"])
        raise AssertionError("SHOW STATS does not count queries")

    text = STATEMENTS[0]
    wait_until(lambda: is_short(ask(daemon, message(text), ROUNDS)[-1]), "the short way")
    before = counted()
    ask(daemon, message(text), 5)
    assert counted() == before + 6
