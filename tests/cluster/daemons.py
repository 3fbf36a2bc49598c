"""Real daemons for tests: each with its own loopback addresses, directories, configuration file and log."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.preloaded import start_dsdbd

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence

    from tests.cluster.preloaded import ForkedProcess

META_ONLY = {"data": ["enabled = false"]}
"""Settings of a node that has a vote and stores no points."""
START_TIMEOUT_S = 60.0
"""Long: on a machine busy with other tests the imports of a daemon alone may take ten seconds."""


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of an HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


_PORTS = range(10_000, 32_000)
_SLICES = 8
_given_ports: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on and nobody was given before, outside the range of outgoing connections.

    One of that range may be taken by any client while a daemon is down between two starts. Each worker of a test run
    has a slice of its own, because a port is taken only some time after it was given.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    mine = _PORTS[int(worker) % _SLICES :: _SLICES]
    while True:
        port = random.choice(mine)
        if port in _given_ports and len(_given_ports) < len(mine) // 2:
            continue
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((host, port))
            _given_ports.add(port)
            return port


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0, pause_s: float = 0.02) -> Any:
    """The first true value of ``condition``; fails with ``what`` after ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g}s: {what}")
        time.sleep(pause_s)


def request(
    method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, timeout_s: float = 15.0
) -> Answer:
    """One HTTP request; error statuses are answers, a refused or broken connection raises OSError."""
    asked = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(asked, timeout=timeout_s) as response:
            return Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read())


@dataclass
class Daemon:
    """One dsdbd process. ``settings`` are further lines of its configuration, per section.

    ``installed``: start the installed program, which loads its libraries, instead of a process that has them. What
    measures daemons, outside of tests, starts the program.
    """

    root: Path
    host: str = "127.0.0.1"
    http_port: int = 0
    meta_port: int = 0
    join: Sequence[str] = ()
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    installed: bool = field(default_factory=lambda: "PYTEST_VERSION" not in os.environ)
    process: subprocess.Popen[bytes] | ForkedProcess | None = None

    def __post_init__(self) -> None:
        self.http_port = self.http_port or free_port(self.host)
        self.meta_port = self.meta_port or free_port(self.host)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.http_port}"

    @property
    def meta_address(self) -> str:
        return f"{self.host}:{self.meta_port}"

    @property
    def log_path(self) -> Path:
        return self.root / "log"

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def write_config(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        sections: dict[str, list[str]] = {
            "meta": [
                f'dir = "{self.root}/meta"',
                f'bind-address = "{self.address}"',
                f'http-bind-address = "{self.meta_address}"',
            ],
            "data": [f'dir = "{self.root}/data"', f'wal-dir = "{self.root}/wal"'],
            "hinted-handoff": [f'dir = "{self.root}/hh"'],
            "http": [f'bind-address = "{self.address}"', 'alias-bind-address = ""'],
        }
        top: list[str] = []
        for section, lines in self.settings.items():
            if section:
                sections.setdefault(section, []).extend(lines)
            else:
                top.extend(lines)
        text = "\n".join(top) + "\n"
        for section, lines in sections.items():
            text += f"[{section}]\n" + "\n".join(lines) + "\n"
        path = self.root / "dsdb.conf"
        path.write_text(text)
        return path

    def start(self, *, wait: bool = True) -> Daemon:
        """Start the process; with ``wait`` until it is a member and its storage is open."""
        config = self.write_config()
        arguments = ["-config", str(config), *self.arguments]
        if self.join:
            arguments += ["-join", ",".join(self.join)]
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("DSDB_", "INFLUXDB_"))}
        with self.log_path.open("ab") as log:
            self.process = start_dsdbd(arguments, {**environ, **self.environ}, log, installed=self.installed)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        def ready() -> bool:
            if self.process is None or self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.exit_code}:\n{self.log[-3000:]}")
            try:
                return self.get("/ready", timeout_s=2).status == 200
            except OSError:
                return False

        wait_until(ready, f"{self.address} is ready; log:\n{self.log[-3000:]}", timeout_s)

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def wait_exit(self, timeout_s: float = 20.0) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    # --- HTTP

    def url(self, path: str, **params: str) -> str:
        return f"http://{self.address}{path}" + ("?" + urllib.parse.urlencode(params) if params else "")

    def get(self, path: str, *, timeout_s: float = 15.0, **params: str) -> Answer:
        return request("GET", self.url(path, **params), timeout_s=timeout_s)

    def query(self, statement: str, *, timeout_s: float = 15.0, **params: str) -> Any:
        """The decoded JSON of /query."""
        body = urllib.parse.urlencode({"q": statement, **params}).encode()
        return request("POST", self.url("/query"), body, timeout_s=timeout_s).json

    def rows(self, statement: str, **params: str) -> list[list[Any]]:
        """All rows of all series of a statement that must succeed."""
        document = self.query(statement, **params)
        assert "error" not in document, document
        found: list[list[Any]] = []
        for result in document["results"]:
            assert "error" not in result, result
            for series in result.get("series", ()):
                found += series.get("values", [])
        return found

    def write(self, lines: str | bytes, *, timeout_s: float = 15.0, **params: str) -> Answer:
        body = lines.encode() if isinstance(lines, str) else lines
        return request("POST", self.url("/write", **params), body, timeout_s=timeout_s)

    def servers(self) -> dict[str, list[list[Any]]]:
        """SHOW SERVERS as series name to rows."""
        result = self.query("SHOW SERVERS")["results"][0]
        return {series["name"]: series.get("values", []) for series in result["series"]}

    def status(self) -> Any:
        """GET /cluster/status."""
        return self.get("/cluster/status").json

    def served(self, route: str) -> int:
        """How many requests of a route the node has answered."""
        text = self.get("/metrics").body.decode()
        found = re.search(rf'_count\{{[^}}]*"{re.escape(route)}"[^}}]*\}} ([0-9.]+)', text)
        return int(float(found[1])) if found else 0

    def is_leader(self) -> bool:
        try:
            leader = self.status()["leader"]
        except (OSError, ValueError):
            return False
        return leader is not None and leader["tcp_addr"] == self.address


@dataclass
class Cluster:
    """Several daemons in one directory."""

    root: Path
    daemons: list[Daemon] = field(default_factory=list)

    def add(self, **options: Any) -> Daemon:
        daemon = Daemon(self.root / f"node{len(self.daemons) + 1}", **options)
        self.daemons.append(daemon)
        return daemon

    def grow(self, count: int, **options: Any) -> list[Daemon]:
        """Start ``count`` nodes: the first founds, the others join through it."""
        first = self.add(**options).start()
        rest = [self.add(join=[first.meta_address], **options) for _ in range(count - 1)]
        for daemon in rest:
            daemon.start(wait=False)
        for daemon in rest:
            daemon.wait_ready()
        self.wait_servers(count)
        return self.daemons[-count:]

    def wait_servers(self, count: int, timeout_s: float = 20.0) -> None:
        """Wait until every running daemon lists ``count`` nodes of each role, all the same."""

        def agree() -> bool:
            try:
                tables = [daemon.servers() for daemon in self.running()]
            except (OSError, KeyError, ValueError):
                return False
            first = tables[0]
            return all(table == first for table in tables) and all(len(rows) == count for rows in first.values())

        wait_until(agree, f"{count} servers everywhere", timeout_s, 0.1)

    def running(self) -> list[Daemon]:
        return [daemon for daemon in self.daemons if daemon.process is not None and daemon.process.poll() is None]

    def leader(self, timeout_s: float = 20.0) -> Daemon:
        """The running daemon that leads, as soon as there is one."""
        return wait_until(
            lambda: next((daemon for daemon in self.running() if daemon.is_leader()), None), "a leader", timeout_s, 0.05
        )

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.kill()
