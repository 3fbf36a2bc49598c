"""Requests to an influxd and a daemon in the same state, and what of their answers has to be the same."""

from __future__ import annotations

import gzip
import http.client
import re
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.daemons import Daemon
from tests.http.dialogue import unpacked
from tests.reference.influxd import Influxd, influxd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "sesame, and long enough that nobody has to warn about it, whatever the hash"
LIMITS = ["max-row-limit = 5", "max-body-size = 4000", f'shared-secret = "{SECRET}"', 'realm = "r"']
COMPARED = ("Content-Type", "Content-Encoding", "X-Influxdb-Error", "X-Influxdb-Build", "WWW-Authenticate")
COMPARED += tuple(f"Access-Control-{name}" for name in ("Allow-Origin", "Allow-Methods", "Allow-Headers"))
COMPARED += ("Access-Control-Expose-Headers", "X-Content-Type-Options")


@dataclass(frozen=True)
class HttpPair:
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


@contextmanager
def both(directory: Path, *, auth: bool) -> Iterator[HttpPair]:
    settings = {"http": [f"auth-enabled = {str(auth).lower()}", "log-enabled = false", *LIMITS]}
    with influxd(directory, auth=auth, http=LIMITS) as theirs:
        ours = Daemon(directory / "dsdb", settings=settings).start()
        try:
            yield HttpPair(theirs, ours)
            assert "Traceback" not in ours.log
        finally:
            ours.kill()


def same(pair: HttpPair, request: Request) -> Reply:
    theirs, ours = pair.answers(request)
    if ours != theirs:
        pytest.fail(f"{request}\ninfluxd: {theirs}\n   ours: {ours}", pytrace=False)
    return ours


def query(text: str, *, method: str = "GET", headers: dict[str, str] | None = None, **parameters: str) -> Request:
    parameters = {key.removesuffix("_"): value for key, value in parameters.items()}
    return Request(method, "/query?" + urllib.parse.urlencode({"q": text, **parameters}), b"", headers or {})
