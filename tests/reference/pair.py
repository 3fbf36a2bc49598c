"""Our daemon and an influxd side by side, both with the points of the dataset, and statements that both answer."""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.daemons import Answer, Daemon
from tests.http.servers import dsdbd_settings
from tests.reference.compare import difference
from tests.reference.dataset import SETUP, Body, bodies
from tests.reference.influxd import influxd
from tests.reference.intended_table import explained

TIMEOUT_S = 60.0


@dataclass
class Connection:
    """A kept-alive connection to one server: thousands of statements would otherwise be thousands of connections."""

    host: str
    port: int
    _connection: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One request; a connection that the server closed meanwhile is opened again, once."""
        for last in (False, True):
            connection = self._connection or http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
            self._connection = connection
            try:
                connection.request(method, path, body, dict(headers))
                response = connection.getresponse()
                return Answer(response.status, dict(response.headers), response.read())
            except (http.client.RemoteDisconnected, ConnectionError):
                self.close()
                if last:
                    raise
        raise AssertionError("unreachable")

    def query(self, statement: str, accept: str = "application/json", **parameters: str) -> Answer:
        """POST /query in database ``d``, unless ``parameters`` name another."""
        body = urllib.parse.urlencode({"q": statement}).encode()
        path = "/query?" + urllib.parse.urlencode({"db": "d", **parameters})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": accept}
        return self.request("POST", path, body, headers)

    def try_write(self, body: Body) -> Answer:
        """POST /write, whatever comes of it."""
        path = "/write?" + urllib.parse.urlencode({"db": body.database, "rp": body.policy})
        return self.request("POST", path, "\n".join(body.lines).encode(), {})

    def write(self, body: Body) -> None:
        """Store every line."""
        answer = self.try_write(body)
        assert answer.status == 204, answer.body

    def fill(self, setup: Iterable[str] = SETUP) -> None:
        """Create the databases and write the dataset."""
        for statement in setup:
            answer = self.query(statement)
            assert answer.status == 200, answer.body
            assert b"error" not in answer.body, answer.body
        for body in bodies():
            self.write(body)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass
class Pair:
    """Both servers. Two threads, so that both answer at the same time."""

    ours: Connection
    theirs: Connection
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def ask(self, statement: str, accept: str = "application/json", **parameters: str) -> tuple[Answer, Answer]:
        """What both say: ours, theirs."""
        theirs = self.threads.submit(self.theirs.query, statement, accept, **parameters)
        return self.ours.query(statement, accept, **parameters), theirs.result()

    def difference(self, statement: str, accept: str = "application/json", **parameters: str) -> str:
        """Where the answers part without being meant to, or an empty text."""
        ours, theirs = self.ask(statement, accept, **parameters)
        found = difference(ours, theirs)
        return "" if explained(statement, ours, theirs) else found

    def close(self) -> None:
        self.threads.shutdown()
        self.ours.close()
        self.theirs.close()


@contextmanager
def running_pair(directory: Path) -> Iterator[Pair]:
    """Start both servers under ``directory`` and fill them; without influxd the test is skipped."""
    (directory / "influxd").mkdir(parents=True)
    with influxd(directory / "influxd") as server:
        daemon = Daemon(directory / "dsdbd", settings=dsdbd_settings(auth=False))
        pair = Pair(Connection(daemon.host, daemon.http_port), Connection(server.host, server.port))
        try:
            daemon.start()
            pair.ours.fill()
            pair.theirs.fill()
            yield pair
        finally:
            pair.close()
            daemon.kill()
