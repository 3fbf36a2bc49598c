"""The systems that are compared: each a real server in a directory of its own, with a free port on loopback."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tsbs.client import Connection, HttpAnswer
from benchmarks.tsbs.loader import Target
from benchmarks.tsbs.processes import Usage, disk_bytes, files, usage
from tests.cluster.daemons import Daemon, free_port
from tests.cluster.preloaded import DSDBD

if TYPE_CHECKING:
    from benchmarks.tsbs.queries import Query

HOST = "127.0.0.1"
_START_TIMEOUT_S = 900.0
_SETTLE_TIMEOUT_S = 900.0


class ServerFailed(Exception):
    """A server ended, did not answer in time, or refused a request."""


class System(ABC):
    """One server. ``database`` is the one that everything is written to and asked of."""

    name: str
    program: str | Path | None
    durable = True
    """Whether what it acknowledged survives kill -9."""
    quiet_s = 3.0
    """Files that did not change for so long are final: longer than the pause between two background rounds."""

    def __init__(self, root: Path, database: str = "benchmark") -> None:
        self.root = root
        self.database = database
        self.port = free_port(HOST)
        self.process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)

    @classmethod
    def missing(cls) -> str | None:
        """Why the system cannot be run here, or None."""
        found = cls.program is not None and shutil.which(cls.program) is not None
        return None if found else f"{cls.name} is not installed"

    # --- its process

    @abstractmethod
    def _command(self) -> list[str]:
        """Write the configuration and give the command line."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether it serves; may raise OSError or BadAnswer."""

    @property
    def log_path(self) -> Path:
        """Where the server's output goes."""
        return self.root / "server.log"

    def log_end(self, size: int = 1000) -> str:
        """The last characters of the server's output."""
        return self.log_path.read_text(errors="replace")[-size:] if self.log_path.exists() else ""

    def start(self) -> float:
        """Start the process and give the seconds until it serves; raises ServerFailed."""
        command = self._command()
        began_s = time.monotonic()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while True:
            if self.process.poll() is not None:
                raise ServerFailed(f"{self.name} ended with {self.process.returncode}: {self.log_path}")
            try:
                if self._ready():
                    return time.monotonic() - began_s
            except OSError:
                pass
            if time.monotonic() - began_s > _START_TIMEOUT_S:
                raise ServerFailed(f"{self.name} does not serve after {_START_TIMEOUT_S:g} s: {self.log_path}")
            time.sleep(0.01)

    def stop(self) -> float:
        """Ask the process to end and give the seconds that it took."""
        assert self.process is not None
        began_s = time.monotonic()
        self.process.terminate()
        self.process.wait(_START_TIMEOUT_S)
        self.process = None
        return time.monotonic() - began_s

    def kill(self) -> None:
        """Kill -9, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def usage(self) -> Usage:
        """What the process and its children have used since their start."""
        assert self.process is not None
        return usage(self.process.pid)

    def __enter__(self) -> System:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    # --- what it is asked

    def connect(self) -> Connection:
        """A new connection."""
        return Connection(HOST, self.port)

    def get(self, path: str, **parameters: str) -> HttpAnswer:
        """GET on a connection of its own."""
        with self.connect() as connection:
            return connection.get(path + ("?" + urllib.parse.urlencode(parameters) if parameters else ""))

    def write_target(self) -> Target:
        """Where the loader writes."""
        return Target(HOST, self.port, f"/write?db={self.database}")

    @abstractmethod
    def create_database(self) -> None:
        """Make the database, where one has to."""

    @abstractmethod
    def query_path(self, query: Query) -> str:
        """Path and parameters of the GET request that asks a question."""

    def ask(self, connection: Connection, query: Query) -> bytes:
        """The body of the answer; raises ServerFailed with the server's words when it is an error."""
        return self.ask_path(connection, self.query_path(query), query.kind)

    def ask_path(self, connection: Connection, path: str, what: str) -> bytes:
        """The same for any path; ``what`` names the question in the error."""
        answer = connection.get(path)
        if answer.status != 200 or b'"error"' in answer.body[:200]:
            text = answer.body[:500].decode(errors="replace")
            raise ServerFailed(f"{self.name}: {what}: {answer.status} {text}")
        return answer.body

    # --- what it keeps

    @abstractmethod
    def data_directory(self) -> Path:
        """The points, without the log that makes new ones durable."""

    @abstractmethod
    def _busy(self) -> bool:
        """Whether it still has to write out or merge something, as far as it says so."""

    def settle(self) -> float:
        """Wait until everything is written out and merged, and give the seconds; raises ServerFailed."""
        began_s = time.monotonic()
        last: dict[str, int] = {}
        quiet_since_s = began_s
        while True:
            now = files(self.data_directory())
            now_s = time.monotonic()
            if now != last or self._busy():
                last, quiet_since_s = now, now_s
            if now_s - quiet_since_s > self.quiet_s:
                return now_s - began_s
            if now_s - began_s > _SETTLE_TIMEOUT_S:
                raise ServerFailed(f"{self.name} still changes its files after {_SETTLE_TIMEOUT_S:g} s")
            time.sleep(0.2)

    def data_bytes(self) -> int:
        """Size of the points on disk."""
        return disk_bytes(self.data_directory())


class InfluxApi(System):
    """What the daemon and InfluxDB share: the HTTP API."""

    def statement(self, text: str) -> dict[str, Any]:
        """POST a statement and give its result; raises ServerFailed with the error it answers."""
        with self.connect() as connection:
            parameters = urllib.parse.urlencode({"q": text, "db": self.database})
            answer = connection.post(f"/query?{parameters}")
        document = json.loads(answer.body)
        result = document.get("results", [{}])[0]
        if "error" in document or "error" in result:
            raise ServerFailed(f"{self.name}: {text}: {document.get('error') or result.get('error')}")
        return dict(result)

    def create_database(self) -> None:
        """CREATE DATABASE."""
        self.statement(f'CREATE DATABASE "{self.database}"')

    def query_path(self, query: Query) -> str:
        """InfluxQL."""
        return self.influxql_path(query.influxql)

    def influxql_path(self, text: str) -> str:
        """A statement that only reads."""
        return f"/query?{urllib.parse.urlencode({'db': self.database, 'q': text})}"


class Dsdb(InfluxApi):
    """The daemon of this project. Every write is synced before its 204; there is no setting for that."""

    name = "dsdb"
    program = DSDBD

    def __init__(self, root: Path, database: str = "benchmark") -> None:
        super().__init__(root, database)
        settings = {
            "data": [
                "query-log-enabled = false",
                'cache-snapshot-write-cold-duration = "2s"',
                'compact-full-write-cold-duration = "2s"',
            ],
            "http": ["log-enabled = false"],
        }
        self._daemon = Daemon(root, HOST, self.port, settings=settings)

    def _command(self) -> list[str]:
        return [str(DSDBD), "-config", str(self._daemon.write_config())]

    def _ready(self) -> bool:
        return self.get("/ready").status == 200

    def data_directory(self) -> Path:
        """The shards."""
        return self.root / "data"

    def _busy(self) -> bool:
        for series in self.statement("SHOW STATS").get("series", ()):
            if series["name"] == "storage":
                figures = dict(zip(series["columns"], series["values"][0], strict=True))
                return bool(figures["head_bytes"] or figures["queue_bytes"])
        raise ServerFailed("dsdb: SHOW STATS says nothing of the storage")


class Influxdb(InfluxApi):
    """InfluxDB 1.x of Debian, every write synced (``wal-fsync-delay`` 0), logs of queries and requests off."""

    name = "influxdb"
    program = "influxd"

    def _command(self) -> list[str]:
        path = self.root / "influxd.conf"
        path.write_text(
            f"""reporting-disabled = true
bind-address = "{HOST}:0"
[meta]
dir = "{self.root}/meta"
[data]
dir = "{self.root}/data"
wal-dir = "{self.root}/wal"
wal-fsync-delay = "0s"
query-log-enabled = false
cache-max-memory-size = 0
cache-snapshot-write-cold-duration = "2s"
compact-full-write-cold-duration = "2s"
max-series-per-database = 0
max-values-per-tag = 0
[http]
bind-address = "{HOST}:{self.port}"
log-enabled = false
[monitor]
store-enabled = false
"""
        )
        return [str(self.program), "-config", str(path)]

    def _ready(self) -> bool:
        return self.get("/ping").status == 204

    def data_directory(self) -> Path:
        """The shards and their index of series."""
        return self.root / "data"

    def _busy(self) -> bool:
        # The log is no sign: the file it wrote last before a crash stays until the next write.
        for module in json.loads(self.get("/debug/vars").body).values():
            values = module.get("values", {}) if isinstance(module, dict) else {}
            if values.get("memBytes", 0) or values.get("snapshotCount", 0):
                return True
            if any(count for name, count in values.items() if name.endswith(("CompactionsActive", "CompactionQueue"))):
                return True
        return False


class VictoriaMetrics(System):
    """VictoriaMetrics of Debian: it answers a write when the points are in memory and writes them out by itself."""

    name = "victoria-metrics"
    program = "victoria-metrics"
    durable = False
    quiet_s = 7.0
    """It writes parts in memory to files every five seconds, and its figures do not tell the two apart."""

    def _command(self) -> list[str]:
        return [
            str(self.program),
            f"-storageDataPath={self.root}/data",
            f"-httpListenAddr={HOST}:{self.port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
            "-search.maxUniqueTimeseries=200000000",
            "-search.maxTagValues=20000000",
            "-search.maxSeries=20000000",
            "-search.maxQueryDuration=300s",
            "-loggerLevel=WARN",
        ]

    def _ready(self) -> bool:
        return self.get("/health").status == 200

    def create_database(self) -> None:
        """There are none: the name of the database is a label."""

    def query_path(self, query: Query) -> str:
        """PromQL, past the cache of answers: no question is asked twice, and the cache would shift the windows."""
        asked = query.promql
        parameters = {"query": asked.expression, "nocache": "1"}
        if asked.step_s is None:
            parameters["time"] = f"{asked.end_ms / 1000:.3f}"
            return f"/api/v1/query?{urllib.parse.urlencode(parameters)}"
        parameters |= {
            "start": f"{asked.start_ms / 1000:.3f}",
            "end": f"{asked.end_ms / 1000:.3f}",
            "step": f"{asked.step_s}s",
        }
        return f"/api/v1/query_range?{urllib.parse.urlencode(parameters)}"

    def data_directory(self) -> Path:
        """Points and index."""
        return self.root / "data"

    def settle(self) -> float:
        """Have everything written out, then merged."""
        self.get("/internal/force_flush")
        written_s = super().settle()
        self.get("/internal/force_merge")
        return written_s + super().settle()

    def _busy(self) -> bool:
        text = self.get("/metrics").body.decode()
        return any(int(count) for count in re.findall(r'^vm_active_merges\{type="storage/[^}]*\} (\d+)', text, re.M))


SYSTEMS: dict[str, type[System]] = {system.name: system for system in (Dsdb, Influxdb, VictoriaMetrics)}
