"""The same requests to both servers: equal status, headers and body, whatever form the answer has.

What is meant to differ is in docs/reference/http.md, and the requests here keep clear of it.
"""

from __future__ import annotations

import gzip
import http.client
import json
import re
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from tests.cluster.daemons import Daemon
from tests.http.dialogue import unpacked
from tests.reference.influxd import Influxd, influxd, needs_influxd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd, pytest.mark.xdist_group("reference_http")]
SECRET = "sesame, and long enough that nobody has to warn about it, whatever the hash"
LIMITS = ["max-row-limit = 5", "max-body-size = 4000", f'shared-secret = "{SECRET}"', 'realm = "r"']
COMPARED = ("Content-Type", "Content-Encoding", "X-Influxdb-Error", "X-Influxdb-Build", "WWW-Authenticate")
COMPARED += tuple(f"Access-Control-{name}" for name in ("Allow-Origin", "Allow-Methods", "Allow-Headers"))
COMPARED += ("Access-Control-Expose-Headers", "X-Content-Type-Options")
POINTS = "\n".join(
    [
        *(f"m,h={host} v={n} {n}" for host in "ab" for n in range(4)),
        *(f"n v={n} {n}" for n in range(7)),
        'a,h=x f=1.5,i=300i,j=-5i,k=-40i,s="text <&>",b=true 1500000000123456789',
        "a,h=y i=70000i,j=9223372036854775807i -5",
    ]
)
FORMS = ("application/json", "application/csv", "text/csv", "application/x-msgpack", "*/*", "text/csv, */*")


@dataclass(frozen=True)
class Pair:
    """Both servers, in the same state."""

    theirs: Influxd
    ours: Daemon

    def answers(self, request: Request) -> tuple[Reply, Reply]:
        return ask(self.theirs.address, request), ask(self.ours.address, request)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: Any


def ask(address: str, request: Request) -> Reply:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(request.method, request.path, request.body or None, request.headers)
        answer = connection.getresponse()
        body: Any = answer.read()
    finally:
        connection.close()
    headers = {name: answer.headers[name] for name in COMPARED if name in answer.headers}
    if "Allow" in answer.headers:
        headers["Allow"] = ", ".join(sorted(re.split(", *", answer.headers["Allow"])))
    sent_id = request.headers.get("X-Request-Id") or request.headers.get("Request-Id")
    if sent_id:
        headers["ids"] = f"{answer.headers['Request-Id']} {answer.headers['X-Request-Id']}"
    if headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return Reply(answer.status, headers, comparable(headers.get("Content-Type", ""), body))


def comparable(content_type: str, body: bytes) -> Any:
    if content_type == "application/x-msgpack":
        return unpacked(body)
    found = re.fullmatch(rb'(\{\s*"error": ?"(?:[^"\\]|\\.)*"),\s*"code": ?"[a-z_]+"(\s*\}\s*)', body)
    return found[1] + found[2] if found else body


def config_of(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    yield from both(tmp_path_factory, auth=False)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    yield from both(tmp_path_factory, auth=True)


def both(tmp_path_factory: pytest.TempPathFactory, *, auth: bool) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("http")
    settings = {"http": [f"auth-enabled = {str(auth).lower()}", "log-enabled = false", *LIMITS]}
    with influxd(directory, auth=auth, http=LIMITS) as theirs:
        ours = Daemon(directory / "dsdb", settings=settings).start()
        try:
            yield Pair(theirs, ours)
            assert "Traceback" not in ours.log
        finally:
            ours.kill()


def same(pair: Pair, request: Request) -> Reply:
    theirs, ours = pair.answers(request)
    if ours != theirs:
        pytest.fail(f"{request}\ninfluxd: {theirs}\n   ours: {ours}", pytrace=False)
    return ours


def query(text: str, *, method: str = "GET", headers: dict[str, str] | None = None, **parameters: str) -> Request:
    parameters = {key.removesuffix("_"): value for key, value in parameters.items()}
    return Request(method, "/query?" + urllib.parse.urlencode({"q": text, **parameters}), b"", headers or {})


@pytest.fixture(scope="module")
def filled(pair: Pair) -> Pair:
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
def test_statements_in_every_form(filled: Pair, statement: str, form: str) -> None:
    for parameters in CHUNKS:
        if "chunked" in parameters and "csv" not in form and "pretty" in parameters:
            continue
        same(filled, query(statement, headers={"Accept": form}, db="d", **parameters))


@pytest.mark.parametrize("form", ["application/json", "application/csv", "application/x-msgpack"])
def test_packed_answers(filled: Pair, form: str) -> None:
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
def test_changes_by_get_are_warned_of(filled: Pair, method: str) -> None:
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
def test_requests(filled: Pair, request_: Request) -> None:
    same(filled, request_)


def test_what_was_written_is_the_same(filled: Pair) -> None:
    for request in REQUESTS:
        if request.path.startswith("/write"):
            same(filled, request)
    same(filled, query("SELECT * FROM w WHERE time < 9s", db="d", epoch="ns"))


def test_bound_parameters(filled: Pair) -> None:
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
def test_requests_for_a_profile_that_cannot_be(filled: Pair, seconds: str) -> None:
    theirs, ours = filled.answers(Request("GET", f"/debug/requests?seconds={seconds}"))
    assert (ours.status, ours.headers, ours.body.strip()) == (theirs.status, theirs.headers, theirs.body.strip())


def test_figures_for_watching_programs(filled: Pair) -> None:
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


# --- users


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def signed(claims: dict[str, Any], secret: str = SECRET, method: str = "HS256", **header: Any) -> str:
    return jwt.encode(claims, secret, algorithm=method, headers=header or None)


def tokens() -> dict[str, str]:
    now_s = int(time.time())
    good = {"username": "root", "exp": now_s + 1000}
    token = signed(good)
    return {
        "good": token,
        "HS384": signed(good, method="HS384"),
        "HS512": signed(good, method="HS512"),
        "a fraction": signed({**good, "exp": now_s + 1000.5}),
        "unsigned": jwt.encode(good, None, algorithm="none"),
        "another secret": signed(good, SECRET[::-1]),
        "expired": signed({**good, "exp": now_s - 1000}),
        "expired, another secret": signed({**good, "exp": now_s - 1000}, SECRET[::-1]),
        "no end": signed({"username": "root"}),
        "end at 0": signed({**good, "exp": 0}),
        "end before 0": signed({**good, "exp": -5}),
        "not yet": signed({**good, "nbf": now_s + 500}),
        "issued later": signed({**good, "iat": now_s + 500}),
        "issued later, not yet": signed({**good, "iat": now_s + 500, "nbf": now_s + 500}),
        "nobody": signed({"exp": now_s + 1000}),
        "empty name": signed({**good, "username": ""}),
        "a number for a name": signed({**good, "username": 3}),
        "unknown name": signed({**good, "username": "nosuch"}),
        "two segments": "a.b",
        "four segments": token + ".c",
        "one segment": "abc",
        "no signature": token.rpartition(".")[0] + ".",
    }


@pytest.fixture(scope="module")
def users(guarded: Pair) -> Pair:
    root = basic("root", "pw")
    same(guarded, query("SHOW DATABASES"))
    same(guarded, query("CREATE USER bob WITH PASSWORD 'b'", method="POST"))
    same(guarded, query("CREATE USER root WITH PASSWORD 'pw' WITH ALL PRIVILEGES", method="POST"))
    for statement in (
        "CREATE DATABASE d",
        "CREATE DATABASE e",
        "CREATE USER bob WITH PASSWORD 'b'",
        "GRANT READ ON d TO bob",
    ):
        same(guarded, query(statement, method="POST", headers=root))
    return guarded


def basic(name: str, password: str) -> dict[str, str]:
    import base64

    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_bearer_tokens(users: Pair) -> None:
    for what, token in tokens().items():
        theirs, ours = users.answers(query("SHOW DATABASES", headers=bearer(token)))
        assert ours == theirs, what
    same(users, query("SHOW DATABASES", headers={"Authorization": "bearer " + tokens()["good"]}))
    same(users, query("SHOW DATABASES", headers={"Authorization": "Bearer"}))


def test_tokens_that_are_no_json_are_refused(users: Pair) -> None:
    """In other words: those of influxd are of Go's JSON reader."""
    for token in ("%%%.%%%.%%%", "bm9qc29u.bm9qc29u.x", "W10.W10.x"):
        theirs, ours = users.answers(query("SHOW DATABASES", headers=bearer(token)))
        assert (ours.status, ours.headers) == (theirs.status, theirs.headers)


CREDENTIALS = (
    {},
    basic("root", "pw"),
    basic("root", "no"),
    basic("root", ""),
    basic("", "pw"),
    basic("nosuch", "pw"),
    basic("bob", "b"),
    {"Authorization": "basic cm9vdDpwdw=="},
    {"Authorization": "BASIC cm9vdDpwdw=="},
    {"Authorization": "Basic cm9vdDpwdw"},
    {"Authorization": "Basic"},
    {"Authorization": ""},
    {"Authorization": "Digest x"},
)


@pytest.mark.parametrize("given", CREDENTIALS, ids=str)
def test_credentials(users: Pair, given: dict[str, str]) -> None:
    for parameters in ({}, {"u": "root"}, {"u": "bob", "p": "b"}, {"u": "bob", "p": "no"}, {"p": "pw"}):
        same(users, query("SHOW DATABASES", headers=given, **parameters))
    for path in ("/write?db=d", "/write?db=nosuch", "/write", "/write?db=d&u=bob&p=b", "/write?db=d&u=root&p=pw"):
        same(users, Request("POST", path, b"w v=1 1", given))
    same(users, Request("GET", "/ping", b"", given))


PRIVILEGED = (
    "SELECT v FROM w",
    "SELECT v FROM e..w",
    "SELECT v INTO e..x FROM w",
    "DELETE FROM w",
    "DROP SERIES FROM w",
    "DROP MEASUREMENT w",
    "SHOW MEASUREMENTS",
    "SHOW MEASUREMENTS ON e",
    "SHOW TAG KEYS ON e",
    "SHOW TAG VALUES ON e WITH KEY = h",
    "SHOW SERIES",
    "SHOW FIELD KEYS ON e",
    "SHOW RETENTION POLICIES ON d",
    "SHOW RETENTION POLICIES ON e",
    "SHOW USERS",
    "SHOW GRANTS FOR bob",
    "SHOW STATS",
    "SHOW DIAGNOSTICS",
    "SHOW SHARDS",
    "SHOW SHARD GROUPS",
    "SHOW SUBSCRIPTIONS",
    "SHOW QUERIES",
    "KILL QUERY 4711",
    "CREATE DATABASE x",
    "DROP DATABASE d",
    "CREATE RETENTION POLICY p ON d DURATION 1d REPLICATION 1",
    "ALTER RETENTION POLICY autogen ON d DURATION 1d",
    "DROP RETENTION POLICY autogen ON d",
    "CREATE USER x WITH PASSWORD 'x'",
    "DROP USER root",
    "SET PASSWORD FOR root = 'x'",
    "GRANT ALL ON d TO bob",
    "REVOKE ALL PRIVILEGES FROM root",
    "CREATE CONTINUOUS QUERY c ON e BEGIN SELECT mean(v) INTO x FROM w GROUP BY time(1m) END",
    "DROP CONTINUOUS QUERY c ON e",
    "DROP SHARD 4711",
    "SELECT v FROM w; SHOW USERS",
)


@pytest.mark.parametrize("statement", PRIVILEGED)
def test_privileges_of_a_reader(users: Pair, statement: str) -> None:
    theirs, ours = users.answers(query(statement, method="POST", headers=basic("bob", "b"), db="d"))
    assert (ours.status, ours.headers) == (theirs.status, theirs.headers)
    if ours.status != 200:
        assert ours.body == theirs.body
