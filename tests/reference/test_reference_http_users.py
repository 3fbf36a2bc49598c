"""Who may do what, asked of both servers: tokens, passwords and privileges."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from tests.reference.http_pair import SECRET, HttpPair, Request, both, query, same
from tests.reference.influxd import needs_influxd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd, pytest.mark.xdist_group("reference_http_users")]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpPair]:
    with both(tmp_path_factory.mktemp("http"), auth=True) as servers:
        yield servers


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
def users(guarded: HttpPair) -> HttpPair:
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
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_bearer_tokens(users: HttpPair) -> None:
    for what, token in tokens().items():
        theirs, ours = users.answers(query("SHOW DATABASES", headers=bearer(token)))
        assert ours == theirs, what
    same(users, query("SHOW DATABASES", headers={"Authorization": "bearer " + tokens()["good"]}))
    same(users, query("SHOW DATABASES", headers={"Authorization": "Bearer"}))


def test_tokens_that_are_no_json_are_refused(users: HttpPair) -> None:
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
def test_credentials(users: HttpPair, given: dict[str, str]) -> None:
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
def test_privileges_of_a_reader(users: HttpPair, statement: str) -> None:
    theirs, ours = users.answers(query(statement, method="POST", headers=basic("bob", "b"), db="d"))
    assert (ours.status, ours.headers) == (theirs.status, theirs.headers)
    if ours.status != 200:
        assert ours.body == theirs.body
