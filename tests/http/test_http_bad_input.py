"""Requests made to hurt, and noise: a bounded, quick refusal, and a daemon that goes on answering."""

from __future__ import annotations

import http.client
import json
import re
import string
import urllib.parse

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cluster.daemons import Answer, Daemon, request

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("http")]
DEADLINE_S = 120
"""For what would otherwise hang; these requests are answered in seconds."""
YEAR = "time >= '2017-01-01' AND time < '2018-01-01'"
SENT = (200, 204)
REFUSED = (400, 401, 403, 404, 405, 411, 413, 414, 415, 431)


@pytest.fixture(scope="module")
def daemon(open_daemon: Daemon) -> Daemon:
    open_daemon.query("CREATE DATABASE bad")
    line = 'm,h=a,t=b v=1.5,n=2i,s="aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",b=true'
    assert open_daemon.write(f"{line} 1\n{line} 1500000000000000000", db="bad").status == 204
    return open_daemon


def ask(daemon: Daemon, text: str) -> Answer:
    body = urllib.parse.urlencode({"q": text}).encode()
    return request("POST", daemon.url("/query", db="bad"), body, timeout_s=DEADLINE_S)


def error_of(answer: Answer) -> str:
    document = answer.json
    return str(document.get("error") or document["results"][0].get("error", ""))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("SELECT " + "(" * 10_000 + "v" + ")" * 10_000 + " FROM m", "nested more than 64 levels deep"),
        ("SELECT v FROM m WHERE " + "(" * 10_000 + "v > 1" + ")" * 10_000, "nested more than 64 levels deep"),
        ("SELECT v FROM " + "(SELECT v FROM " * 1_000 + "m" + ")" * 1_000, "nested more than 64 levels deep"),
        ("SELECT " + "abs(" * 10_000 + "v" + ")" * 10_000 + " FROM m", "nested more than 64 levels deep"),
        ("SELECT " + "(" * 500_000, "nested more than 64 levels deep"),
        ("SELECT v" + " + 1" * 250_000 + " FROM m", "more than 200 operators deep"),
        ("SELECT " + "-" * 1_000_000 + "v FROM m", "found EOF"),
        ("SELECT " + ",".join(f"v + {n}" for n in range(100_000)) + " FROM m", "SELECT names more than 5000 fields"),
        ("SELECT v FROM m WHERE h = '" + "x" * 2_000_000 + "'", "the query has 2000028 characters"),
        ("SELECT v FROM m WHERE s =~ /(a+)+$/", ""),
        ("SELECT v FROM m WHERE s =~ /(a|a)*(a|a)*(a|a)*(a|a)*b/", ""),
        ("SELECT v FROM m WHERE h =~ /((a{100}){100}){100}/", "invalid repeat count"),
        ("SELECT v FROM m WHERE h =~ /(\\pL?){300}/", "pattern too large"),
        ("SELECT v FROM m WHERE h =~ /" + "a?" * 20_000 + "/", "more than 1000 optional repetitions"),
        ("SELECT v FROM m WHERE h =~ /" + "a{0,1000}" * 3 + "/", "more than 1000 optional repetitions"),
        ("SELECT v FROM m WHERE h =~ /" + "a" * 100_000 + "/", "at most 65536 are read"),
        (f"SELECT mean(v) FROM m WHERE {YEAR} GROUP BY time(1ns)", "31536000000000000 buckets"),
        (f"SELECT mean(v) FROM m WHERE {YEAR} GROUP BY time(1ns) fill(none)", "31536000000000000 buckets"),
        ("SELECT mean(v) FROM m GROUP BY time(1ns)", "rows of groups and buckets"),
        ("SELECT v FROM m WHERE h = '" + "x" * 1_000_000 + "'", ""),
        ("SELECT v FROM m WHERE " + " OR ".join(f"h = 'x{n}'" for n in range(20_000)), ""),
        ("/*" + "x" * 1_000_000 + "*/ SELECT v FROM nowhere", ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_statements_made_to_hurt(daemon: Daemon, text: str, error: str) -> None:
    answer = ask(daemon, text)
    assert answer.status in (200, 400)
    found = error_of(answer)
    assert error in found and bool(found) is bool(error), found[:300]
    assert len(found) < 1_000
    assert daemon.get("/ping").status == 204


def one_of(words: str) -> st.SearchStrategy[str]:
    """One of some words with bars between them."""
    return st.sampled_from(re.split(r"\s\|\s+", words.strip()))


TEXT = st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1"))
NAMES = one_of("""
    q | db | rp | epoch | precision | params | chunked | chunk_size | pretty | u | p | async | bucket
""")
HEADERS = one_of("""
    Accept | Accept-Encoding | Authorization | Content-Type | Content-Encoding | X-Request-Id | Origin
""")
PATHS = one_of("""
    /query | /write | /api/v2/write | /api/v2/query | /ping | /health | /debug/vars | /ready | /
""")
HEADER_TEXT = st.text(string.printable[:95] + "äöü", max_size=40) | one_of("""
    gzip | multipart/form-data; boundary=b | application/x-www-form-urlencoded | application/x-msgpack | Bearer a.b.c
""")
NOISE = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def send(daemon: Daemon, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(daemon.address, timeout=DEADLINE_S)
    try:
        encoded = {name: text.encode("utf-8", "replace") for name, text in headers.items()}
        connection.request(method, target, body, encoded)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@NOISE
@given(
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"]),
    PATHS,
    st.dictionaries(NAMES, TEXT, max_size=4),
    st.dictionaries(HEADERS, HEADER_TEXT, max_size=3),
    st.binary(max_size=200),
)
def test_noise_is_refused(
    daemon: Daemon, method: str, path: str, parameters: dict[str, str], headers: dict[str, str], body: bytes
) -> None:
    target = f"{path}?{urllib.parse.urlencode(parameters, errors='replace')}"
    status = send(daemon, method, target, body if method in ("POST", "PUT") else None, headers)
    assert status in SENT + REFUSED
    assert "Traceback" not in daemon.log


WORDS = one_of("""
    SELECT | FROM | WHERE | GROUP BY | time(1s) | time | fill(0) | fill(none) | LIMIT | OFFSET | SLIMIT | ORDER | DESC |
    INTO | AND | OR | = | != | > | < | =~ | !~ | ( | ) | , | . | ; | * | + | - | / | % | & | ^ | :: | 1 | 1i | 3s |
    'x' | "v" | "h" | v | n | s | b | h | m | /./ | /m/ | $p | mean( | max( | count( | top(v,2) | sum(v) | now() | 0 |
    percentile(v,50) | derivative(v,1s) | distinct(v) | SHOW | SERIES | TAG | KEYS | VALUES | WITH | KEY | 2.5 |
    MEASUREMENTS | FIELD | DATABASES | '2017-07-14T02:40:00Z' | 1500000000s | true | NOT | EXPLAIN | ANALYZE | ON |
    bad | bad.. |
    bad.autogen.m | tz('UTC') | ::tag | ::field | ::integer
""")


@NOISE
@given(st.lists(WORDS, min_size=1, max_size=25), st.sampled_from(["SELECT v FROM m ", "SELECT ", "SHOW ", ""]))
def test_words_in_any_order(daemon: Daemon, words: list[str], start: str) -> None:
    answer = ask(daemon, start + " ".join(words))
    assert answer.status in (200, 400), answer.body
    json.loads(answer.body)
    assert "Traceback" not in daemon.log


FIELDS = one_of("""
    v | n | s | b | h | nosuch | mean(v) | max(n) | count(s) | first(b) | last(v) | sum(n) | v + n | -v | n / 0 |
    spread(v) | median(n) | stddev(v) | mode(s) | percentile(n, 50) | distinct(v) | derivative(v) | difference(n) |
    v * 2 - n | abs(v) | * | top(v, 1) | elapsed(v) | integral(v) | cumulative_sum(n) | moving_average(v, 2)
""")
CONDITIONS = one_of("""
    v > 1 | n = 2 | s =~ /a/ | b = true | h = 'a' | h != 'a' | h =~ /./ | time > 0 | time < now() | nosuch = 1 |
    v > n | h = v
""")
TAILS = one_of("""
    GROUP BY h | GROUP BY * | GROUP BY time(1w) | GROUP BY time(52w), h fill(0) | GROUP BY time(52w) fill(previous) |
    GROUP BY /./ | GROUP BY time(52w) fill(none)
""")
LIMITS = one_of("LIMIT 1 | LIMIT 1 OFFSET 1 | SLIMIT 1 | ORDER BY time DESC | LIMIT 0 | SOFFSET 5")
SOURCES = one_of("m | /./ | nowhere | m, m | bad..m | nodb..m | (SELECT * FROM m) | (SELECT max(v) FROM m GROUP BY h)")


@NOISE
@given(
    st.lists(FIELDS, min_size=1, max_size=4),
    SOURCES,
    st.lists(CONDITIONS, max_size=3),
    st.sampled_from([" AND ", " OR "]),
    st.just("") | TAILS,
    st.just("") | LIMITS,
)
def test_statements_of_the_grammar(
    daemon: Daemon, fields: list[str], source: str, conditions: list[str], joint: str, tail: str, limit: str
) -> None:
    where = f"WHERE {joint.join(conditions)}" if conditions else ""
    answer = ask(daemon, f"SELECT {', '.join(fields)} FROM {source} {where} {tail} {limit}")
    assert answer.status in (200, 400), answer.body
    assert "Traceback" not in daemon.log
