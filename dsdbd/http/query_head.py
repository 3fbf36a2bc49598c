"""The head of an ordinary query request, read without building a request object. Pure.

Ordinary is what dashboards and client libraries send all day: a GET with a statement and nothing unusual. Whatever else
HTTP and the API allow is left to the library.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl

from dsdbd.http.write_head import FOR_THE_LIBRARY, HEADER_NAME, HEADER_VALUE, PLAIN_QUERY

START = b"GET /query?"
"""What every ordinary query request begins with."""
_VERSION = b" HTTP/1.1"
_PARAMETERS = frozenset(("db", "q", "rp", "epoch"))
_LEFT = FOR_THE_LIBRARY | {b"authorization", b"content-type", b"content-encoding", b"range"}
_JSON = frozenset(("", "*/*", "application/json"))


class QueryHeaders(NamedTuple):
    """What the headers of an ordinary query say."""

    packed: bool
    """Whether the answer is to be gzipped."""
    request_id: str
    """The caller's id of the request; empty without one."""
    referer: str
    agent: str


class QueryLine(NamedTuple):
    """What the first line of an ordinary query says."""

    text: str
    database: str
    policy: str
    epoch: str | None
    path_qs: str


def parse_headers(lines: bytes) -> QueryHeaders | None:
    """The header lines, each with its end, of a request that is ordinary in every way, else None."""
    found: dict[bytes, str] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            return None
        if name in _LEFT or name in found:
            return None
        found[name] = value.strip(b" \t").decode("ascii")
    if found.get(b"content-length", "0") != "0" or found.get(b"connection", "keep-alive").lower() != "keep-alive":
        return None
    if found.get(b"accept", "").partition(",")[0].partition(";")[0].strip() not in _JSON or b"host" not in found:
        return None
    return QueryHeaders(
        "gzip" in found.get(b"accept-encoding", ""),
        found.get(b"x-request-id") or found.get(b"request-id") or "",
        found.get(b"referer", "-"),
        found.get(b"user-agent", "-"),
    )


def parse_line(line: bytes) -> QueryLine | None:
    """The first line of a request that is ordinary in every way, else None."""
    if not line.startswith(START) or not line.endswith(_VERSION):
        return None
    query = line[len(START) : -len(_VERSION)]
    if not PLAIN_QUERY.fullmatch(query):
        return None
    plain = query.decode("ascii")
    try:
        pairs = parse_qsl(plain, keep_blank_values=True, errors="strict")
    except ValueError:
        return None
    given = dict(pairs)
    if len(given) != len(pairs) or not given.keys() <= _PARAMETERS:
        return None
    text = given.get("q", "").strip()
    if text[:6].upper() != "SELECT":
        return None
    epoch = given.get("epoch") or None
    return QueryLine(text, given.get("db", ""), given.get("rp", ""), epoch, f"/query?{plain}")
