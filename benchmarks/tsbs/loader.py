"""Send bodies that were made before, over a few connections, and count what the server accepted."""

from __future__ import annotations

import contextlib
import itertools
import resource
import selectors
import socket
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.tsbs.bodies import moved
from benchmarks.tsbs.client import Connection, header, message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.tsbs.bodies import Body

_ACCEPTED = b"HTTP/1.1 204"
_LONGEST_RETRY_S = 5.0
_MAX_RETRIES = 1_000
"""Of one loader altogether: a server that never recovers ends the run."""


class Refused(Exception):
    """The server answered a write with something other than 204 or 503."""


@dataclass(frozen=True)
class Target:
    """Where to write: the path holds the database and whatever else the server needs."""

    host: str
    port: int
    path: str


@dataclass
class Loaded:
    """What was accepted. Times in seconds; ``client_cpu_s`` is this process's own, ``latencies_ms`` one per request."""

    rows: int = 0
    values: int = 0
    requests: int = 0
    retries: int = 0
    elapsed_s: float = 0.0
    client_cpu_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Sums and percentiles, for JSON."""
        found = asdict(self)
        latencies = found.pop("latencies_ms") or [0.0]
        for share in (50, 95, 99):
            found[f"p{share}_ms"] = float(np.percentile(latencies, share))
        return found


def cpu_s() -> float:
    """Processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def retry_pause_s(head: bytes) -> float:
    """How long a 503 asks to wait, within bounds."""
    asked = header(head, "Retry-After")
    return min(float(asked), _LONGEST_RETRY_S) if asked is not None else 0.1


def endless(bodies: Sequence[Body], span_ns: int) -> Iterator[Body]:
    """The bodies again and again, ``span_ns`` later in the first round and in each that follows."""
    for turn in itertools.count(1):
        for body in bodies:
            yield moved(body, turn * span_ns)


class Load:
    """Threads that take bodies from one iterator in turn, each with a connection of its own.

    With ``rate`` (rows/s) body by body waits for its moment; a late one is sent at once.
    """

    def __init__(self, target: Target, bodies: Iterator[Body], connections: int, rate: float | None = None) -> None:
        self._target = target
        self._bodies = bodies
        self._rate = rate
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._taken_rows = 0
        self._failure: Exception | None = None
        self.loaded = Loaded()
        self._began_s = time.perf_counter()
        self._began_cpu_s = cpu_s()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def wait(self) -> Loaded:
        """Wait until the bodies are sent; raises what went wrong in a thread."""
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure
        self.loaded.elapsed_s = time.perf_counter() - self._began_s
        self.loaded.client_cpu_s = cpu_s() - self._began_cpu_s
        return self.loaded

    def stop(self) -> Loaded:
        """Take no further body, and wait."""
        self._stopped.set()
        return self.wait()

    def _next(self) -> Body | None:
        with self._lock:
            body = next(self._bodies, None)
            before = self._taken_rows
            self._taken_rows += body.rows if body is not None else 0
        if body is not None and self._rate is not None:
            self._stopped.wait(max(0.0, self._began_s + before / self._rate - time.perf_counter()))
        return body

    def _run(self) -> None:
        try:
            with Connection(self._target.host, self._target.port) as connection:
                while not self._stopped.is_set() and (body := self._next()) is not None:
                    self._send(connection, body)
        except Exception as error:  # whatever ends a thread ends the run, in wait()
            self._failure = error
            self._stopped.set()

    def _send(self, connection: Connection, body: Body) -> None:
        began_s = time.perf_counter()
        while (answer := connection.post(self._target.path, body.data)).status == 503:
            with self._lock:
                self.loaded.retries += 1
                if self.loaded.retries > _MAX_RETRIES:
                    raise Refused(f"{self._target.host}:{self._target.port} still answers 503 to {self._target.path}")
            time.sleep(retry_pause_s(answer.head))
        if answer.status != 204:
            raise Refused(f"{self._target.path}: {answer.status} {answer.body[:500].decode(errors='replace')}")
        with self._lock:
            self.loaded.rows += body.rows
            self.loaded.values += body.values
            self.loaded.requests += 1
            self.loaded.latencies_ms.append((time.perf_counter() - began_s) * 1e3)


class _OnePoint:
    """One connection of the one-point loader: where it is in its answer, and when its request left."""

    def __init__(self, target: Target) -> None:
        self.socket = socket.create_connection((target.host, target.port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer = b""
        self.sent_s = 0.0

    def send(self, request: bytes) -> None:
        self.answer = b""
        self.sent_s = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Read what is there; True when the answer is whole. Raises Refused when it is not a 204."""
        piece = self.socket.recv(65_536)
        self.answer += piece
        if not piece or not (self.answer.startswith(_ACCEPTED) or _ACCEPTED.startswith(self.answer)):
            raise Refused(f"a request of one line: {self.answer[:500].decode(errors='replace') or 'closed'}")
        return self.answer.endswith(b"\r\n\r\n")


def one_point_requests(bodies: Iterator[Body], count: int, target: Target) -> list[bytes]:
    """The first ``count`` lines, each as a request of its own."""
    requests: list[bytes] = []
    for body in bodies:
        for line in bytes(body.data).splitlines(keepends=True):
            requests.append(message("POST", target.path, f"{target.host}:{target.port}", line))
            if len(requests) == count:
                return requests
    return requests


def load_one_by_one(target: Target, requests: Sequence[bytes], connections: int) -> Loaded:
    """Send each request alone over ``connections`` connections, each the next one when it has its answer.

    One thread with a selector. Raises Refused at an answer other than 204.
    """
    loaded = Loaded()
    began_s, began_cpu_s = time.perf_counter(), cpu_s()
    waiting = iter(requests)
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
        for request in itertools.islice(waiting, connections):
            one = _OnePoint(target)
            opened.callback(one.socket.close)
            selector.register(one.socket, selectors.EVENT_READ, one)
            one.send(request)
        while selector.get_map():
            for key, _ in selector.select():
                one = key.data
                if not one.receive():
                    continue
                loaded.latencies_ms.append((time.perf_counter() - one.sent_s) * 1e3)
                if (following := next(waiting, None)) is None:
                    selector.unregister(one.socket)
                else:
                    one.send(following)
    loaded.requests = loaded.rows = len(loaded.latencies_ms)
    loaded.elapsed_s, loaded.client_cpu_s = time.perf_counter() - began_s, cpu_s() - began_cpu_s
    return loaded
