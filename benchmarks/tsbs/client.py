"""A keep-alive HTTP/1.1 connection with little work: the client shares the processors with the server."""

from __future__ import annotations

import socket
from dataclasses import dataclass

_PIECE_BYTES = 1 << 18


class BadAnswer(Exception):
    """The server closed the connection or sent what is not HTTP."""


@dataclass(frozen=True)
class HttpAnswer:
    """Status, the head as it came, and the body."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, without regard to the case of its name."""
        return header(self.head, name)


def header(head: bytes, name: str) -> str | None:
    """Find a header in the head of an answer."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name.lower().encode():
            return value.strip().decode()
    return None


def message(method: str, target: str, host: str, body: bytes | bytearray = b"") -> bytes:
    """The bytes of a request."""
    length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n".encode() + body


class Connection:
    """One connection, opened at once. Every method raises OSError or BadAnswer."""

    def __init__(self, host: str, port: int, timeout_s: float = 300.0) -> None:
        self.host = f"{host}:{port}"
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def get(self, target: str) -> HttpAnswer:
        """GET."""
        return self.exchange(message("GET", target, self.host))

    def post(self, target: str, body: bytes | bytearray = b"") -> HttpAnswer:
        """POST; the body is not copied."""
        head = f"POST {target} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self._socket.sendall(head)
        if body:
            self._socket.sendall(body)
        return self._read()

    def exchange(self, request: bytes) -> HttpAnswer:
        """Send the bytes of a request and read its answer."""
        self._socket.sendall(request)
        return self._read()

    def _more(self) -> None:
        piece = self._socket.recv(_PIECE_BYTES)
        if not piece:
            raise BadAnswer("the server closed the connection in the middle of an answer")
        self._buffer += piece

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken

    def _take_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._more()
        return self._take(end + 2)[:-2]

    def _read(self) -> HttpAnswer:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._more()
        head = self._take(end + 4)[:-2]
        if not head.startswith(b"HTTP/1.1 "):
            raise BadAnswer(f"not an HTTP answer: {head[:80]!r}")
        status = int(head[9:12])
        if status == 204:
            return HttpAnswer(status, head, b"")
        if (length := header(head, "Content-Length")) is not None:
            return HttpAnswer(status, head, self._take(int(length)))
        if header(head, "Transfer-Encoding") != "chunked":
            raise BadAnswer(f"an answer of unknown length: {head!r}")
        pieces = []
        while size := int(self._take_line().partition(b";")[0], 16):
            pieces.append(self._take(size))
            self._take_line()
        while self._take_line():
            pass
        return HttpAnswer(status, head, b"".join(pieces))
