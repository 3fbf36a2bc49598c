"""Answers as InfluxDB 1.x shapes them: JSON error bodies, version headers, request ids."""

from __future__ import annotations

import time
import uuid

import msgspec
from aiohttp import web

from dsdbd.cluster.peers import ErrorBody
from dsdbd.errors import DSDBError, Unauthenticated, Unavailable, VersionBehind
from dsdbd.query import encode_error_msgpack
from dsdbd.version import VERSION

JSON = "application/json"
CSV = "text/csv"
MSGPACK = "application/x-msgpack"
OTHER_FORMS = {"application/csv": CSV, CSV: CSV, MSGPACK: MSGPACK}
"""Forms of an answer by the Accept header that asks for them; all else means JSON."""
REALM = web.AppKey("realm", str)
"""Key of an application: what a 401 says that the credentials are for."""
REQUEST_ID = web.RequestKey("request_id", str)
USER_NAME = web.RequestKey("user_name", str)
"""Key of the name that was given with a request, which may be nobody's."""
_CORS_METHODS = "DELETE, GET, OPTIONS, POST, PUT"
_CORS_HEADERS = (
    "Accept, Accept-Encoding, Authorization, Content-Length, Content-Type, X-CSRF-Token, X-HTTP-Method-Override"
)
ERROR_CODE = "X-DSDB-Error-Code"
"""Header with the stable code of an error."""
_SHAPED = frozenset(("/query", "/write", "/api/v2/write"))
_MAX_HEADER_CHARS = 1024
_GREGORIAN = 0x01B21DD213814000
"""Steps of 100 ns from the start of the Gregorian calendar, where such ids count from, to the Unix epoch."""


def error_response(error: DSDBError, request: web.Request | None = None) -> web.Response:
    """The error as status, body and header; a 503 says when to try again, a 401 asks for credentials.

    The body is JSON; for clients' requests it is as they ask for: indented, CSV or MessagePack. The code is in a
    header; the document has it too, but for what a query itself is refused for: that one is InfluxDB's, byte for byte.
    """
    plain = request is not None and request.path == "/query" and error.http_status < 500
    body = error_body(error, with_code=not plain)
    content_type = JSON
    if request is not None and request.path in _SHAPED:
        content_type = accepted(request)
        if content_type == CSV:
            body = f"error\n{_csv_field(error.message)}\n".encode()
        elif content_type == MSGPACK:
            body = encode_error_msgpack(error.message)
        elif request.query.get("pretty") == "true":
            body = msgspec.json.format(body, indent=4) + b"\n"
    response = web.Response(status=error.http_status, body=body, content_type=content_type)
    if isinstance(error, Unauthenticated):
        realm = "InfluxDB" if request is None else request.app.get(REALM, "InfluxDB")
        response.headers["WWW-Authenticate"] = f'Basic realm="{realm}"'
    else:
        response.headers["X-Influxdb-Error"] = header_text(error.message)
    response.headers[ERROR_CODE] = error.code
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _csv_field(text: str) -> str:
    """A field of CSV, in quotes where Go writes them."""
    if text[:1].isspace() or any(char in text for char in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def error_body(error: DSDBError, *, with_code: bool = True) -> bytes:
    """The error as a JSON document with a newline at its end."""
    seen = error.seen if isinstance(error, VersionBehind) else 0
    text = msgspec.json.encode(ErrorBody(error.message, error.code if with_code else "", seen=seen))
    # As Go writes them; JSON has these characters in strings only.
    return text.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026") + b"\n"


def no_content(request: web.Request) -> web.Response:
    """204, with the Content-Type that InfluxDB 1.x sends even so."""
    return web.Response(status=204, content_type=accepted(request))


def accepted(request: web.Request) -> str:
    """The form of the answer that the caller asks for: JSON, CSV or MSGPACK.

    Only a header that names nothing else counts, as in InfluxDB 1.x: browsers name many forms.
    """
    return OTHER_FORMS.get(request.headers.get("Accept", ""), JSON)


def json_response(value: object, *, status: int = 200) -> web.Response:
    """A JSON document with a newline at its end."""
    return web.Response(status=status, body=msgspec.json.encode(value) + b"\n", content_type=JSON)


async def add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Version, request id and CORS headers of every answer, added just before it is sent."""
    headers = response.headers
    headers["Request-Id"] = headers["X-Request-Id"] = header_text(request_id(request))
    headers["X-Influxdb-Build"] = "OSS"
    headers["X-Influxdb-Version"] = headers["X-DSDB-Version"] = VERSION
    origin = request.headers.get("Origin")
    if origin:
        headers["Access-Control-Allow-Origin"] = header_text(origin)
        headers["Access-Control-Allow-Methods"] = _CORS_METHODS
        headers["Access-Control-Allow-Headers"] = _CORS_HEADERS
        headers["Access-Control-Expose-Headers"] = "Date, X-InfluxDB-Version, X-InfluxDB-Build"


def request_id(request: web.Request) -> str:
    """The caller's id of the request, or one made for it."""
    known = request.get(REQUEST_ID)
    if known is None:
        known = request.headers.get("X-Request-Id") or request.headers.get("Request-Id") or _ids.next()
        request[REQUEST_ID] = known
    return known


class _RequestIds:
    """Time-based UUIDs (RFC 4122, version 1) that differ from request to request and from process to process.

    The library's ``uuid1`` takes tens of microseconds, which is a good part of a one-point write.
    """

    def __init__(self) -> None:
        self._last = 0
        self._era = -1
        self._ending = ""
        place = uuid.uuid4().bytes
        # The multicast bit says that these six bytes are no network address.
        self._place = f"{(place[0] & 0x3F) | 0x80:02x}{place[1]:02x}-{place[2] | 1:02x}{place[3:8].hex()}"

    def next(self) -> str:
        self._last = now = max(self._last + 1, time.time_ns() // 100 + _GREGORIAN)
        if now >> 32 != self._era:
            self._era = now >> 32
            self._ending = f"-{now >> 32 & 0xFFFF:04x}-1{now >> 48 & 0xFFF:03x}-{self._place}"
        return f"{now & 0xFFFFFFFF:08x}{self._ending}"


_ids = _RequestIds()


def new_request_id() -> str:
    """An id for a request that came without one."""
    return _ids.next()


def header_text(text: str) -> str:
    """Text that may stand in a header: one line, printable ASCII, bounded."""
    if len(text) <= _MAX_HEADER_CHARS and text.isascii() and text.isprintable():
        return text
    return "".join(char if " " <= char < "\x7f" else " " for char in text)[:_MAX_HEADER_CHARS]
