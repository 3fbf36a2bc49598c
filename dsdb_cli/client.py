"""HTTP to one server, over one connection that is kept open between requests."""

from __future__ import annotations

import base64
import http.client
import json
import select
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from dsdb_cli import jsontext
from dsdb_cli.errors import BadAnswer, ConnectionFailed, WriteRefused
from dsdb_cli.results import Response, merge_documents
from dsdbd.version import VERSION

DEFAULT_PORT = 8088
FALLBACK_PORT = 8086
CONNECT_TIMEOUT_S = 5.0
PING_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 60.0
"""How long a write may take; above every timeout a server has for its own part of it."""

_READ_BYTES = 1 << 16
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is and how it is spoken to."""

    host: str
    port: int
    use_ssl: bool = False
    unsafe_ssl: bool = False

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """``http://host:port`` or ``https://host:port``."""
        return f"{'https' if self.use_ssl else 'http'}://{self.address}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """User name and password; an empty name means none are sent."""

    username: str = ""
    password: str = ""

    def header(self) -> dict[str, str]:
        """The Authorization header, or nothing."""
        if not self.username:
            return {}
        token = base64.b64encode(f"{self.username}:{self.password}".encode(errors="surrogateescape")).decode()
        return {"Authorization": f"Basic {token}"}


class Client:
    """A server's API.

    Every method raises ConnectionFailed when the server cannot be reached and BadAnswer when what answers is no such
    server. A connection the server closed while idle is made anew; a request is never sent twice.
    """

    def __init__(self, endpoint: Endpoint, credentials: Credentials = Credentials()) -> None:
        self.endpoint = endpoint
        self.credentials = credentials
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ping(self) -> str:
        """Version of the server, without authentication."""
        answer = self.open("GET", "/ping", timeout_s=PING_TIMEOUT_S)
        self._body(answer)
        version = answer.headers.get("X-DSDB-Version") or answer.headers.get("X-Influxdb-Version")
        if answer.status not in (200, 204) or version is None:
            raise BadAnswer(
                f"{self.endpoint.url} answers /ping with {answer.status} {answer.reason} and no version: "
                "it is neither DSDB nor InfluxDB 1.x. Check host and port."
            )
        return version

    def query(
        self,
        text: str,
        *,
        database: str = "",
        retention_policy: str = "",
        epoch: str | None = None,
        chunked: bool = False,
        chunk_size: int = 0,
        timeout_s: float | None = None,
    ) -> Response:
        """Run statements; errors of the server are inside the response. ``epoch`` None asks for RFC 3339 times."""
        parameters = {"db": database, "rp": retention_policy, "epoch": epoch or ""}
        if chunked:
            parameters["chunked"] = "true"
            parameters["chunk_size"] = str(chunk_size) if chunk_size > 0 else ""
        target = "/query?" + _form(parameters)
        body = _form({"q": text}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.open("POST", target.rstrip("?"), body, headers, timeout_s)
        response = self._documents(answer)
        if answer.status == 401:
            response.hint = (
                'Give a user name and password with "auth", with -username and -password, or in DSDB_USERNAME and '
                "DSDB_PASSWORD."
            )
        elif answer.status == 503:
            wait_s = answer.headers.get("Retry-After")
            response.hint = "Nothing was changed; try again" + (f" in {wait_s} s." if wait_s else " later.")
        return response

    def write(self, body: bytes, *, database: str, retention_policy: str, precision: str, consistency: str) -> None:
        """Send lines of line protocol. Raises WriteRefused when the server does not take all of them."""
        parameters = {"db": database, "rp": retention_policy, "precision": precision, "consistency": consistency}
        target = "/write?" + _form(parameters)
        answer = self.open("POST", target, body, {"Content-Type": "text/plain; charset=utf-8"}, WRITE_TIMEOUT_S)
        text = self._text(answer)
        if answer.status // 100 != 2:
            raise WriteRefused(answer.status, text, _seconds(answer.headers.get("Retry-After")))

    def get_document(self, path: str, timeout_s: float) -> tuple[int, Any]:
        """Status and JSON document of a GET, the document None when the body is not one JSON document."""
        return self._document(self.open("GET", path, timeout_s=timeout_s))

    def post_document(self, path: str, value: Any, timeout_s: float) -> tuple[int, Any]:
        """As ``get_document``, of a POST whose body is ``value`` as JSON; it may be sent twice."""
        body, headers = json.dumps(value).encode(), {"Content-Type": "application/json"}
        return self._document(self.open("POST", path, body, headers, timeout_s))

    def _document(self, answer: http.client.HTTPResponse) -> tuple[int, Any]:
        try:
            (document,) = jsontext.decode_documents(self._text(answer))
        except (ValueError, RecursionError):
            document = None
        return answer.status, document

    def _documents(self, answer: http.client.HTTPResponse) -> Response:
        text = self._text(answer)
        try:
            documents = jsontext.decode_documents(text)
            if not documents:
                raise ValueError("the answer is empty")
            return merge_documents(documents)
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            shown = " ".join(text[:_SHOWN_CHARS].split()) or "nothing"
            raise BadAnswer(
                f"{self.endpoint.url} answered {answer.status} {answer.reason} with something that is not a result: "
                f"{shown}"
            ) from error

    def open(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> http.client.HTTPResponse:
        """The answer to any request, whatever its status, with a body to be taken by ``pieces``."""
        all_headers = {"User-Agent": f"dsdb/{VERSION}", "Accept-Encoding": "gzip", "Accept": "application/json"}
        if target != "/ping":
            all_headers |= self.credentials.header()
        all_headers |= headers or {}
        try:
            reused = self._connection is not None
            try:
                return self._send(method, target, body, all_headers, timeout_s)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # The server may close an idle connection just as the request leaves. Points are not sent twice on
                # such a guess: without timestamps they would be stored twice.
                if not reused or target.startswith("/write"):
                    raise
                self.close()
                return self._send(method, target, body, all_headers, timeout_s)
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            self.close()
            raise connection_failed(self.endpoint, error) from error
        except KeyboardInterrupt:
            # The answer would arrive on this connection before the next request's.
            self.close()
            raise

    def _send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float | None
    ) -> http.client.HTTPResponse:
        connection = self._open()
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        connection.request(method, target, body, dict(headers))
        return connection.getresponse()

    def _open(self) -> http.client.HTTPConnection:
        connection = self._connection
        if connection is not None and (connection.sock is None or _readable(connection.sock)):
            # An idle connection has nothing to read unless the server closed it.
            self.close()
            connection = None
        if connection is None:
            connection = self._connect()
            self._connection = connection
        return connection

    def _connect(self) -> http.client.HTTPConnection:
        endpoint = self.endpoint
        connection: http.client.HTTPConnection
        if endpoint.use_ssl:
            context = ssl.create_default_context()
            if endpoint.unsafe_ssl:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection(
                endpoint.host, endpoint.port, timeout=CONNECT_TIMEOUT_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=CONNECT_TIMEOUT_S)
        connection.connect()
        # A query has no time limit of its own; keep-alive probes end the wait for a machine that is gone.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return connection

    def _text(self, answer: http.client.HTTPResponse) -> str:
        return self._body(answer).decode("utf-8", errors="replace")

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        return b"".join(self.pieces(answer))

    def pieces(self, answer: http.client.HTTPResponse, size_bytes: int = _READ_BYTES) -> Iterator[bytes]:
        """The body of an answer, unpacked; an answer that is not read to its end costs the connection."""
        try:
            yield from _decoded(answer, size_bytes)
        except (OSError, http.client.HTTPException, zlib.error) as error:
            self.close()
            raise ConnectionFailed(
                f"The connection to {self.endpoint.url} broke in the middle of an answer: {_reason(error)}. "
                "What was asked for may have been done."
            ) from error
        except BaseException:
            self.close()
            raise
        if answer.will_close:
            self.close()


def _form(parameters: Mapping[str, str]) -> str:
    """The parameters that have a value; bytes that were no UTF-8 when they were read are sent as they came."""
    return urlencode({name: value for name, value in parameters.items() if value}, errors="surrogateescape")


def _decoded(answer: http.client.HTTPResponse, size_bytes: int) -> Iterator[bytes]:
    inflate = zlib.decompressobj(wbits=31) if answer.headers.get("Content-Encoding", "").lower() == "gzip" else None
    received = False
    while piece := answer.read(size_bytes):
        received = True
        yield piece if inflate is None else inflate.decompress(piece)
    # http.client tells of an early end only where the transfer is chunked.
    if answer.length or (inflate is not None and received and not inflate.eof):
        raise http.client.IncompleteRead(b"")


def _readable(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; the form with a date is not used by these servers."""
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None


def connection_failed(endpoint: Endpoint, error: Exception) -> ConnectionFailed:
    """The sentence for a server that cannot be reached."""
    return ConnectionFailed(
        f"Failed to connect to {endpoint.url}: {_reason(error)}\n"
        "Please check your connection settings and ensure 'dsdbd' is running."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted ({error.verify_message}); -unsafeSsl accepts it unverified"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection ({error.reason or error}); leave out -ssl if the server speaks plain HTTP"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror | UnicodeError | http.client.InvalidURL):
        return "the host name does not resolve"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server closed the connection without an answer; if it expects TLS, add -ssl"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ended early"
    if isinstance(error, http.client.HTTPException):
        return "what answers there does not speak HTTP"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error) or type(error).__name__


def connect(
    host: str, port: int | None, *, use_ssl: bool, unsafe_ssl: bool, credentials: Credentials
) -> tuple[Client, str]:
    """A client whose server answered, and that server's version.

    Without a port the default port is tried, then the one of InfluxDB. Raises ConnectionFailed or BadAnswer of the
    first port when none answers.
    """
    first: ConnectionFailed | BadAnswer | None = None
    for candidate in (port,) if port is not None else (DEFAULT_PORT, FALLBACK_PORT):
        client = Client(Endpoint(host, candidate, use_ssl, unsafe_ssl), credentials)
        try:
            return client, client.ping()
        except (ConnectionFailed, BadAnswer) as error:
            client.close()
            first = first or error
    assert first is not None
    if port is None:
        head, newline, tail = first.message.partition("\n")
        raise type(first)(f"{head} (nor does port {FALLBACK_PORT} answer){newline}{tail}")
    raise first


def split_address(text: str) -> tuple[str, int | None]:
    """``host``, ``host:port``, ``:port``, ``[::1]:port`` or a bare IPv6 address; host empty where missing.

    Raises ValueError for a port that is not a number from 1 to 65535.
    """
    host, port_text = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port_text = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port_text = text.partition(":")
    if not port_text:
        return host, None
    port = int(port_text)
    if not 1 <= port <= 65535:
        raise ValueError(port_text)
    return host, port
