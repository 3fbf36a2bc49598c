"""The head of an ordinary write request, read without building a request object. Pure.

Ordinary is what clients send a thousand times a second; whatever else HTTP allows is left to the library.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from dsdbd.errors import RequestError, Unauthenticated
from dsdbd.http.credentials import UserPassword, credentials_of
from dsdbd.http.responses import OTHER_FORMS
from dsdbd.http.write import target_of

if TYPE_CHECKING:
    from dsdbd.http.credentials import Credentials
    from dsdbd.http.write import Target

START = b"POST /write?"
"""What every ordinary write request begins with."""
HEAD_END = b"\r\n\r\n"
MAX_HEAD_BYTES = 4096
_VERSION = b" HTTP/1.1"
HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(rb"[\t\x20-\x7e]*")
PLAIN_QUERY = re.compile(rb"[!$&'()*+,./0-9:;=?@A-Z_a-z~%-]*")
FOR_THE_LIBRARY = frozenset(
    (b"transfer-encoding", b"expect", b"upgrade", b"origin", b"te", b"trailer", b"sec-websocket-key1")
)
_ONCE = frozenset(
    (b"content-length", b"content-encoding", b"connection", b"x-request-id", b"request-id", b"authorization")
)


class WriteHead(NamedTuple):
    """An ordinary write request without its body."""

    target: Target
    size_bytes: int
    """Length of the body as it is sent."""
    packed: bool
    """Whether the body is gzipped."""
    request_id: str
    """The caller's id of the request; empty without one."""
    path_qs: str
    referer: str
    agent: str
    credentials: Credentials | None = None
    """Who the request says it is; None where it does not, or not in an ordinary way."""

    @property
    def user(self) -> str:
        """The user's name for the access log."""
        return self.credentials.name if isinstance(self.credentials, UserPassword) else "-"


def parse_head(head: bytes) -> WriteHead | None:
    """The head (with its blank line) of a request that is ordinary in every way, else None."""
    request_line, *lines = head[: -len(HEAD_END)].split(b"\r\n")
    if not request_line.startswith(START) or not request_line.endswith(_VERSION):
        return None
    query = request_line[len(START) : -len(_VERSION)]
    found: dict[bytes, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value) or name in FOR_THE_LIBRARY:
            return None
        if name in _ONCE and name in found:
            return None
        found.setdefault(name, value.strip(b" \t").decode("ascii"))
    length, encoding = found.get(b"content-length", ""), found.get(b"content-encoding", "identity").lower()
    if not (length.isdigit() and len(length) < 12) or encoding not in ("identity", "gzip", ""):
        return None
    if found.get(b"connection", "keep-alive").lower() != "keep-alive" or not PLAIN_QUERY.fullmatch(query):
        return None
    params = _params(query)
    if params is not None and (params.get("pretty") == "true" or found.get(b"accept") in OTHER_FORMS):
        return None
    target = None if params is None else _target(params)
    if params is None or target is None:
        return None
    return WriteHead(
        target,
        int(length),
        encoding == "gzip",
        found.get(b"x-request-id") or found.get(b"request-id") or "",
        (b"/write?" + query).decode("ascii"),
        found.get(b"referer", "-"),
        found.get(b"user-agent", "-"),
        _credentials(params, found.get(b"authorization", "")),
    )


def _params(query: bytes) -> dict[str, str] | None:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        return None
    params: dict[str, str] = {}
    for key, value in pairs:
        params.setdefault(key, value)
    return params


def _target(params: dict[str, str]) -> Target | None:
    try:
        return target_of(params)
    except RequestError:
        return None


def _credentials(params: dict[str, str], authorization: str) -> Credentials | None:
    try:
        return credentials_of(params, authorization)
    except Unauthenticated:
        return None


def body_bytes_after(data: bytes) -> int | None:
    """Bytes of a request that have still to come after ``data``, which begins with it; None where that is not plain.

    Negative when the next request has begun already.
    """
    end = data.find(HEAD_END)
    if end < 0:
        return None
    head = data[:end].lower()
    if b"\r\ntransfer-encoding:" in head or b"\r\nupgrade:" in head or head.count(b"\r\ncontent-length:") > 1:
        return None
    _, _, rest = head.partition(b"\r\ncontent-length:")
    length = rest.partition(b"\r\n")[0].strip() or b"0"
    return int(length) - (len(data) - end - len(HEAD_END)) if length.isdigit() else None
