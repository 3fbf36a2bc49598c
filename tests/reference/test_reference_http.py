"""The same requests to both servers: equal status, headers and body, whatever form the answer has.

What is meant to differ is in docs/reference/http.md, and the requests here keep clear of it.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.reference.http_pair import HttpPair, Request, ask, both, query, same
from tests.reference.influxd import needs_influxd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd, pytest.mark.xdist_group("reference_http")]
POINTS = "\n".join(
    [
        *(f"m,h={host} v={n} {n}" for host in "ab" for n in range(4)),
        *(f"n v={n} {n}" for n in range(7)),
        'a,h=x f=1.5,i=300i,j=-5i,k=-40i,s="text <&>",b=true 1500000000123456789',
        "a,h=y i=70000i,j=9223372036854775807i -5",
    ]
)
FORMS = ("application/json", "application/csv", "text/csv", "application/x-msgpack", "*/*", "text/csv, */*")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpPair]:
    with both(tmp_path_factory.mktemp("http"), auth=False) as servers:
        yield servers


@pytest.fixture(scope="module")
def filled(pair: HttpPair) -> HttpPair:
    for database in ("d", "e"):
        same(pair, query(f"CREATE DATABASE {database}", method="POST"))
    assert same(pair, Request("POST", "/write?db=d", POINTS.encode())).status == 204
    return pair


STATEMENTS = (
    "SELECT v FROM m GROUP BY h",
    "SELECT v FROM n",
    "SELECT v FROM n LIMIT 5",
    "SELECT v FROM n LIMIT 4; SELECT v FROM m",
    "SELECT v FROM n LIMIT 5; SELECT v FROM m",
    "SHOW DATABASES; SHOW MEASUREMENTS; SELECT v FROM n",
    "SHOW TAG VALUES WITH KEY = h; SELECT v FROM n",
    "SHOW TAG KEYS",
    "SHOW FIELD KEYS FROM a",
    "SHOW SERIES FROM m",
    "SHOW CONTINUOUS QUERIES",
    "SHOW USERS",
    "SHOW SUBSCRIPTIONS",
    "SELECT * FROM a",
    "SELECT * FROM a GROUP BY *",
    "SELECT mean(i), count(s), first(s), last(b) FROM a",
    "SELECT nothing FROM a",
    "SELECT v FROM nowhere; SELECT v FROM n LIMIT 1",
    "SELECT v FROM nowhere..n",
    "SELECT v FROM",
    "SELECT v FROM n WHERE v < 'a' AND <",
    "CREATE DATABASE e",
    "DROP DATABASE nosuch",
)
CHUNKS = (
    {},
    {"epoch": "ms"},
    {"chunked": "true", "chunk_size": "2"},
    {"chunked": "true", "epoch": "ns"},
    {"pretty": "true"},
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("statement", STATEMENTS)
def test_statements_in_every_form(filled: HttpPair, statement: str, form: str) -> None:
    for parameters in CHUNKS:
        if "chunked" in parameters and "csv" not in form and "pretty" in parameters:
            continue
        same(filled, query(statement, headers={"Accept": form}, db="d", **parameters))


@pytest.mark.parametrize("form", ["application/json", "application/csv", "application/x-msgpack"])
def test_packed_answers(filled: HttpPair, form: str) -> None:
    for statement in ("SELECT * FROM a", "SELECT v FROM"):
        reply = same(filled, query(statement, headers={"Accept": form, "Accept-Encoding": "gzip, deflate"}, db="d"))
        assert ("Content-Encoding" in reply.headers) is (reply.status == 200)


CHANGES = (
    "CREATE DATABASE d",
    "CREATE RETENTION POLICY p ON d DURATION 1d REPLICATION 1",
    "ALTER RETENTION POLICY p ON d DURATION 2d",
    "DROP RETENTION POLICY p ON d",
    "CREATE USER u WITH PASSWORD 'p'",
    "SET PASSWORD FOR u = 'x'",
    "GRANT READ ON d TO u",
    "REVOKE READ ON d FROM u",
    "DROP USER u",
    "DELETE FROM nosuch",
    "DROP SERIES FROM nosuch",
    "DROP MEASUREMENT nosuch",
    "CREATE DATABASE f",
    "DROP DATABASE f",
    "KILL QUERY 4711",
)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_changes_by_get_are_warned_of(filled: HttpPair, method: str) -> None:
    warned = 0
    for statement in CHANGES:
        theirs, ours = filled.answers(query(statement, method=method, db="d"))
        assert (ours.status, ours.headers) == (theirs.status, theirs.headers), statement
        assert messages(ours.body) == messages(theirs.body), statement
        assert ("error" in result(ours.body)) is ("error" in result(theirs.body)), statement
        warned += bool(messages(ours.body))
    assert (warned > 8) is (method == "GET")


def result(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body)["results"][0])


def messages(body: bytes) -> Any:
    return result(body).get("messages")


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
UPLOAD = {"Content-Type": "multipart/form-data; boundary=b"}


def upload(name: str, content: str, *, file: bool) -> bytes:
    filename = '; filename="f.iql"' if file else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n'
    kind = "Content-Type: application/octet-stream\r\n" if file else ""
    return f"{head}{kind}\r\n{content}\r\n--b--\r\n".encode()


# Names of tests are made of these bodies, and two processes have to make the same: without the time of day in them.
PACKED = gzip.compress(b"w v=1 1\n" * 50, mtime=0)
TWO_MEMBERS = gzip.compress(b"w v=3 3", mtime=0) + gzip.compress(b"\nw v=4 4", mtime=0)
BROKEN = (
    b"",
    b"w v=1 1",
    b"w v=1 1 and more",
    PACKED[:5],
    PACKED[:-12],
    PACKED[:-1],
    PACKED[:-8] + b"abcd" + PACKED[-4:],
    PACKED[:-1] + b"x",
    PACKED + b"x",
    PACKED + b"x" * 20,
    PACKED[:2] + b"\7" + PACKED[3:],
)
REQUESTS = (
    Request("POST", "/query?db=d", b"q=SELECT+v+FROM+n+LIMIT+1", FORM),
    Request("POST", "/query", b"q=SELECT+v+FROM+n+LIMIT+1&db=d&epoch=s", FORM),
    Request("POST", "/query?db=d&q=SHOW+DATABASES", b"q=SELECT+v+FROM+n+LIMIT+1", FORM),
    Request("POST", "/query?db=d", upload("q", "SELECT v FROM n LIMIT 2", file=True), UPLOAD),
    Request("POST", "/query?db=d", upload("q", "SELECT v FROM n LIMIT 2", file=False), UPLOAD),
    Request("POST", "/query?db=d", upload("z", "SELECT v FROM n LIMIT 2", file=True), UPLOAD),
    Request("POST", "/query?db=d", b"SELECT v FROM n", {"Content-Type": "text/plain"}),
    Request("POST", "/query?db=d", b"", FORM),
    Request("GET", "/query?db=d"),
    Request("GET", "/query?db=d&q=%20%20"),
    Request("GET", "/query?db=d&q=%3B"),
    Request("GET", "/query?db=d&q=%3B&pretty=true"),
    Request("GET", "/query?db=d&q=%3B", b"", {"Accept": "application/x-msgpack"}),
    Request("GET", "/query?db=d&q=%3B%3BSELECT+v+FROM+n+LIMIT+1%3B%3B"),
    Request("GET", "/query?db=d&q=SELECT+v+FROM+n+LIMIT+1&async=true"),
    Request("GET", "/query?db=d&q=SELECT+v+FROM+n+LIMIT+1&epoch=%20ms%20"),
    Request("GET", "/query?db=d&q=SELECT+v+FROM+n+LIMIT+1&pretty=1"),
    Request("GET", "/query?db=d&q=SELECT+v+FROM+n+LIMIT+1&chunked=1"),
    Request("GET", "/query?db=d&q=SELECT+v+FROM+n&chunked=true&chunk_size=-1"),
    Request("GET", "/query?db=d&q=SELECT+v+FROM+n&chunked=true&chunk_size=0"),
    Request("GET", "/query?db=d&q=SELECT+v+FROM+n+LIMIT+1&rp=nosuch"),
    Request("GET", "/query?db=d&q=SELECT+v+FROM+n+LIMIT+1&rp=autogen&node_id=7"),
    Request("GET", "/query?db=d&q=SHOW+DATABASES", b"", {"X-Request-Id": "x-1", "Request-Id": "r-1"}),
    Request("GET", "/query?db=d&q=SHOW+DATABASES", b"", {"Request-Id": "r-1"}),
    Request("GET", "/query?db=d&q=SHOW+DATABASES", b"", {"Origin": "http://elsewhere"}),
    Request("GET", "/query?db=d&q=SELECT", b"", {"Origin": "http://elsewhere"}),
    Request("POST", "/write?db=d", b"w v=1 1", {"Origin": "http://elsewhere"}),
    Request("POST", "/write?db=d", gzip.compress(b"w v=2 2", mtime=0), {"Content-Encoding": "gzip"}),
    Request("POST", "/write?db=d", TWO_MEMBERS, {"Content-Encoding": "gzip"}),
    *(Request("POST", "/write?db=d", body, {"Content-Encoding": "gzip"}) for body in BROKEN),
    Request("POST", "/write?db=d", b"w v=5 5", {"Content-Encoding": "identity"}),
    Request("POST", "/write?db=d", b"w v=1 1\n" * 1000),
    Request("POST", "/write?db=d", b"# nothing\n\n"),
    Request("POST", "/write?db=d", b""),
    Request("POST", "/write?db=d", b"w"),
    Request("POST", "/write?db=d", b"w v=<&>"),
    Request("POST", "/write?db=d&pretty=true", b"w", {"Accept": "application/json"}),
    Request("POST", "/write?db=d", b"w", {"Accept": "application/csv"}),
    Request("POST", "/write?db=d", b"w", {"Accept": "application/x-msgpack"}),
    Request("POST", "/write?db=d", b"w v=6 6", {"Accept": "application/csv"}),
    Request("POST", "/write?db=d&consistency=any", b"w v=7 7"),
    Request("POST", "/write?db=d&consistency=ONE", b"w v=7 7"),
    Request("POST", "/write?db=d&consistency=most", b"w v=7 7"),
    Request("POST", "/write?db=d&rp=autogen&precision=s", b"w v=8 8"),
    Request("POST", "/write", b"w v=1"),
    Request("POST", "/write?db=nosuch", b"w v=1"),
    Request("POST", "/write?db=nosuch", b"w v=1", {"Accept": "text/csv"}),
    Request("GET", "/write?db=d"),
    Request("HEAD", "/query?db=d&q=SHOW+DATABASES"),
    Request("PUT", "/query?q=SHOW+DATABASES"),
    Request("GET", "/nosuch"),
    Request("GET", "/ping"),
    Request("HEAD", "/ping", b"", {"Accept": "application/csv"}),
    Request("GET", "/ping", b"", {"Origin": "http://elsewhere", "X-Request-Id": "p"}),
    Request("POST", "/ping"),
    Request("GET", "/status"),
    Request("GET", "/debug/requests?seconds=0"),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: f"{one.method} {one.path} {one.body[:20]!r}")
def test_requests(filled: HttpPair, request_: Request) -> None:
    same(filled, request_)


def test_what_was_written_is_the_same(filled: HttpPair) -> None:
    for request in REQUESTS:
        if request.path.startswith("/write"):
            same(filled, request)
    same(filled, query("SELECT * FROM w WHERE time < 9s", db="d", epoch="ns"))


def test_bound_parameters(filled: HttpPair) -> None:
    statements = (
        "SELECT * FROM a WHERE h = $p",
        "SELECT v FROM n WHERE v > $p",
        "SELECT v FROM n WHERE v > $p LIMIT 2",
    )
    values: tuple[Any, ...] = ("x", "y'; DROP DATABASE d", 1, 2.5, True, -3)
    for statement in statements:
        for value in values:
            same(filled, query(statement, db="d", epoch="ns", params=json.dumps({"p": value, "unused": 1})))
    same(filled, query("SELECT v FROM n WHERE v > $q", db="d", params='{"p": 1}'))
    same(filled, query("SELECT v FROM n LIMIT 1", db="d", params="null"))


@pytest.mark.parametrize("seconds", ["x", "99999", "1.5"])
def test_requests_for_a_profile_that_cannot_be(filled: HttpPair, seconds: str) -> None:
    theirs, ours = filled.answers(Request("GET", f"/debug/requests?seconds={seconds}"))
    assert (ours.status, ours.headers, ours.body.strip()) == (theirs.status, theirs.headers, theirs.body.strip())


def test_figures_for_watching_programs(filled: HttpPair) -> None:
    pages = [json.loads(ask(one.address, Request("GET", "/debug/vars")).body) for one in (filled.theirs, filled.ours)]
    theirs, ours = ({page["name"]: page for page in pages_of(page)} for page in pages)
    assert {"httpd", "queryExecutor", "write", "runtime"} <= ours.keys() & theirs.keys()
    assert set(pages[0]["system"]) == set(pages[1]["system"])
    assert isinstance(pages[1]["cmdline"], list) and set(pages[1]["memstats"]) <= set(pages[0]["memstats"])
    assert set(theirs["queryExecutor"]["values"]) - {"recoveredPanics"} <= set(ours["queryExecutor"]["values"])
    missing = set(theirs["httpd"]["values"]) - set(ours["httpd"]["values"])
    assert missing == {
        "pointsWrittenOK",
        "pointsWrittenFail",
        "pointsWrittenDropped",
        "recoveredPanics",
        "promReadReq",
        "promWriteReq",
    }
    assert ours["httpd"]["values"]["queryReq"] > 100 and ours["httpd"]["values"]["clientError"] > 10


def pages_of(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in page.values() if isinstance(one, dict) and "values" in one]
