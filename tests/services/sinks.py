"""Destinations for subscriptions: servers that keep what they are sent."""

from __future__ import annotations

import socket
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType


@dataclass
class HttpSink:
    """Takes POST /write. ``status`` is what it answers; it answers nothing before ``open`` is set."""

    host: str = "127.0.0.1"
    status: int = 204
    bodies: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    """The Authorization header of every request."""
    open: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        sink = self
        self.open.set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                path, _, query = self.path.partition("?")
                sink.open.wait(60)
                sink.users.append(self.headers.get("Authorization", ""))
                if sink.status < 300:
                    sink.bodies.append(({"path": path, **dict(urllib.parse.parse_qsl(query))}, body))
                self.send_response(sink.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((self.host, 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server.server_address[1]}"

    @property
    def lines(self) -> list[str]:
        return [line for _, body in self.bodies for line in body.decode().splitlines()]

    def __enter__(self) -> HttpSink:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class UdpSink:
    """Takes datagrams."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.sock.setblocking(False)
        self.datagrams: list[bytes] = []
        self.url = f"udp://{host}:{self.sock.getsockname()[1]}"

    @property
    def lines(self) -> list[str]:
        """Lines of all datagrams that have come so far."""
        while True:
            try:
                self.datagrams.append(self.sock.recv(65_536))
            except BlockingIOError:
                return [line for datagram in self.datagrams for line in datagram.decode().splitlines()]

    def __enter__(self) -> UdpSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()
