"""Who a request says it is, tokens, and what is remembered of passwords."""

from __future__ import annotations

import asyncio
import base64
import time

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.statements.passwords import hash_password
from dsdbd.errors import NotFound, Overloaded, RequestError, Unauthenticated
from dsdbd.http import logins as logins_module
from dsdbd.http.bearer import user_of_token
from dsdbd.http.counters import HttpCounters
from dsdbd.http.credentials import BearerToken, UserPassword, credentials_of
from dsdbd.http.logins import Logins
from dsdbd.http.v2 import write_params
from dsdbd.http.write_head import parse_head

SECRET = "a secret that is long enough for every hash that there is: " + "x" * 32
NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda name: ":" not in name)
PASSWORD = st.text(st.characters(codec="utf-8"), max_size=20)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@given(NAME, PASSWORD)
def test_basic_says_any_name_and_password(name: str, password: str) -> None:
    assert credentials_of({}, f"Basic {encoded(f'{name}:{password}')}") == UserPassword(name, password)
    assert credentials_of({"u": "x", "p": ""}, f"bAsIc {encoded(f'{name}:{password}')}") == UserPassword(name, password)
    assert credentials_of({"u": "x", "p": "y"}, f"Basic {encoded(f'{name}:{password}')}") == UserPassword("x", "y")


@given(st.text(max_size=40))
def test_any_header_is_credentials_or_refused(header: str) -> None:
    try:
        given_ = credentials_of({}, header)
    except Unauthenticated as error:
        assert error.message in ("unable to parse authentication credentials", "username required")
    else:
        assert isinstance(given_, UserPassword | BearerToken)


def test_tokens_of_2_x_and_bearer_tokens() -> None:
    assert credentials_of({}, "Token ann:a:b") == UserPassword("ann", "a:b")
    assert credentials_of({}, "Bearer a.b.c") == BearerToken("a.b.c")
    for header in ("Token ann", "token ann:a", "Bearer", "Bearer ", "Bearer a b", "bearer a.b.c", ""):
        with pytest.raises(Unauthenticated, match="unable to parse"):
            credentials_of({}, header)


def test_secrets_do_not_print() -> None:
    assert "hidden" not in repr(UserPassword("ann", "hidden")) + repr(BearerToken("hidden"))


@given(st.text(max_size=60) | st.text("ab.=-_", max_size=60))
def test_any_text_for_a_token_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        user_of_token(text, SECRET, 1e9)


@pytest.mark.parametrize("method", ["HS256", "HS384", "HS512"])
def test_a_token_counts_until_its_end(method: str) -> None:
    token = jwt.encode({"username": "ann", "exp": 1_000, "nbf": 500, "iat": 400}, SECRET, algorithm=method)
    assert user_of_token(token, SECRET, 999.5) == user_of_token(token, SECRET, 500) == "ann"
    for now_s, reason in ((1_001, "Token is expired"), (450, "Token is not valid yet")):
        with pytest.raises(Unauthenticated, match=reason):
            user_of_token(token, SECRET, now_s)
    with pytest.raises(Unauthenticated, match="signature is invalid"):
        user_of_token(token, SECRET + "x", 600)
    head, _, signature = token.rpartition(".")
    for changed in (head + "x." + signature, f"{head}.{signature[:-2]}", f"x{token}"):
        with pytest.raises(Unauthenticated):
            user_of_token(changed, SECRET, 600)


def test_a_verdict_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    verify = logins_module.verify_password

    def counted(password: str, stored: str) -> bool:
        calls.append(password)
        return verify(password, stored)

    monkeypatch.setattr(logins_module, "verify_password", counted)
    stored = hash_password("right")

    async def ask() -> None:
        logins, right, wrong = Logins(), UserPassword("ann", "right"), UserPassword("ann", "wrong")
        assert logins.known(right, stored) is None
        assert await asyncio.gather(*(logins.check(right, stored) for _ in range(20))) == [True] * 20
        assert (logins.known(right, stored), logins.known(wrong, stored)) == (True, None)
        for _ in range(3):
            assert not await logins.check(wrong, stored)
            assert not await logins.check(UserPassword("nobody", "right"), None)
        assert len(calls) == 3
        # Another hash is another password, or another user of the same name.
        assert logins.known(right, hash_password("right")) is None
        assert logins.known(right, None) is None

    asyncio.run(ask())


def test_too_many_passwords_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins_module, "MAX_LOGINS_WAITING", 3)
    stored = hash_password("right")

    async def ask() -> None:
        logins = Logins()
        guesses = [logins.check(UserPassword("ann", f"guess {n}"), stored) for n in range(10)]
        found = await asyncio.gather(*guesses, return_exceptions=True)
        assert [one for one in found if one is False] == [False] * 3
        assert sum(isinstance(one, Overloaded) for one in found) == 7
        assert await logins.check(UserPassword("ann", "right"), stored)

    asyncio.run(ask())


def test_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins_module, "MAX_VERDICTS_KEPT", 2)
    monkeypatch.setattr(logins_module, "verify_password", lambda password, stored: password == stored)

    async def ask() -> None:
        logins, users = Logins(), [UserPassword(f"u{n}", "p") for n in range(3)]
        for user in users:
            assert await logins.check(user, "p")
        assert [logins.known(user, "p") for user in users] == [None, True, True]
        for n in range(5):
            assert not await logins.check(UserPassword("u2", f"guess {n}"), "p")
        assert [logins.known(user, "p") for user in users] == [None, True, True]
        assert [logins.known(UserPassword("u2", f"guess {n}"), "p") for n in range(5)] == [None] * 3 + [False] * 2

    asyncio.run(ask())


def test_parameters_of_2_x() -> None:
    assert write_params({"bucket": "d/p", "org": "o", "precision": "ms", "rp": "ignored"}) == {
        "db": "d",
        "rp": "p",
        "precision": "ms",
        "consistency": "",
    }
    assert write_params({"bucket": "d"})["db"] == "d"
    assert write_params({"bucket": "d/p/q", "consistency": "all"}) == {
        "db": "d",
        "rp": "p/q",
        "precision": "",
        "consistency": "all",
    }
    for bucket in ("", "/p"):
        with pytest.raises(NotFound, match="bucket name"):
            write_params({"bucket": bucket})
    with pytest.raises(RequestError, match="use ns, us, ms or s"):
        write_params({"bucket": "d", "precision": "h"})


def test_heads_of_writes_say_who() -> None:
    head = "POST /write?db=d{} HTTP/1.1\r\nContent-Length: 1\r\n{}\r\n"
    for parameters, line, wanted, user in (
        ("", "", None, "-"),
        ("&u=ann&p=x", "", UserPassword("ann", "x"), "ann"),
        ("", f"Authorization: Basic {encoded('bob:y')}\r\n", UserPassword("bob", "y"), "bob"),
        ("", "authorization: Bearer a.b.c\r\n", BearerToken("a.b.c"), "-"),
        ("", "Authorization: Basic %%%\r\n", None, "-"),
    ):
        found = parse_head(head.format(parameters, line).encode())
        assert found is not None
        assert (found.credentials, found.user) == (wanted, user)
    assert parse_head(head.format("", "Accept: application/csv\r\n").encode()) is None
    assert parse_head(head.format("&pretty=true", "").encode()) is None


def test_counters_and_profiles() -> None:
    counters = HttpCounters()
    with counters.profile() as profile:
        for user, address in (("ann", "::1"), ("-", "10.0.0.1"), ("-", "10.0.0.1")):
            counters.note("/query", user, address)
        counters.note("/api/v2/write", "ann", "::1")
        counters.note("/ping", "ann", "::1")
    counters.note("/query", "ann", "::1")
    assert profile == {"ann:::1": {"writes": 1, "queries": 1}, "10.0.0.1": {"writes": 0, "queries": 2}}
    with counters.active("/write"):
        assert (counters.values["reqActive"], counters.values["writeReqActive"]) == (1, 1)
    counters.count("/write", 204, 0.5, received=10, sent=0)
    counters.count("/query", 401, 0.25, received=0, sent=20)
    counters.count("/nosuch", 503, 0.25, received=0, sent=20)
    assert {name: value for name, value in counters.values.items() if value} == {
        "req": 3,
        "reqDurationNs": 10**9,
        "writeReq": 1,
        "writeReqBytes": 10,
        "writeReqDurationNs": 5 * 10**8,
        "queryReq": 1,
        "queryReqDurationNs": 25 * 10**7,
        "queryRespBytes": 20,
        "clientError": 1,
        "authFail": 1,
        "serverError": 1,
    }


def test_too_many_profiles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdbd.http.counters.MAX_REQUEST_PROFILES", 1)
    monkeypatch.setattr("dsdbd.http.counters.MAX_REQUEST_SENDERS", 1)
    counters = HttpCounters()
    with counters.profile() as profile, pytest.raises(Overloaded), counters.profile():
        pass
    with counters.profile() as profile:
        for n in range(3):
            counters.note("/query", "-", f"10.0.0.{n}")
    assert list(profile) == ["10.0.0.0"]


def test_now_is_in_seconds() -> None:
    token = jwt.encode({"username": "ann", "exp": int(time.time()) + 60}, SECRET)
    assert user_of_token(token, SECRET, time.time()) == "ann"
