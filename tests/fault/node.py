"""One node under test: a daemon in its own namespace, on its own disk, with its own clock."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fault.clock import Clock
from tests.fault.disk import Disk
from tests.fault.netns import Network, address

HTTP_PORT, META_PORT = 8088, 8091
READY_TIMEOUT_S = 180.0
"""Long: on a machine busy with other things a start takes ten times as long as alone."""
_SETTINGS = """
[meta]
dir = "{disk}/meta"
bind-address = "{host}:8088"
http-bind-address = "{host}:8091"
cluster-secret-file = "{secret}"
[data]
dir = "{disk}/data"
wal-dir = "{disk}/wal"
cache-snapshot-memory-size = 1048576
compact-min-file-count = 4
read-cache-size = 33554432
query-log-enabled = false
[cluster]
write-timeout = "2s"
shard-writer-timeout = "2s"
shard-mapper-timeout = "2s"
[http]
bind-address = "{host}:8088"
alias-bind-address = ""
log-enabled = false
[hinted-handoff]
dir = "{disk}/hh"
retry-interval = "100ms"
retry-max-interval = "1s"
[anti-entropy]
check-interval = "2s"
[transfer]
retry-interval = "200ms"
retry-max-interval = "2s"
[admin]
enabled = false
"""


@dataclass
class FaultNode:
    """A daemon and what can be done to it. ``broken`` names a broken build of :mod:`tests.fault.broken`."""

    number: int
    root: Path
    network: Network
    disk: Disk
    clock: Clock
    secret: Path
    broken: str = ""
    settings: str = ""
    process: subprocess.Popen[bytes] | None = None
    paused: bool = False
    wanted: bool = False
    """Whether the harness wants it to run: one that is not running then ended by itself."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def host(self) -> str:
        return address(self.number)

    @property
    def log_path(self) -> Path:
        return self.root / "log"

    @property
    def pid(self) -> int:
        return 0 if self.process is None else self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, join: Sequence[str] = ()) -> None:
        """Start the daemon; does not wait for it."""
        with self.lock:
            config = self.root / "dsdb.conf"
            text = _SETTINGS.format(disk=self.disk.mount_point, host=self.host, secret=self.secret)
            config.write_text(text + self.settings)
            program = [str(Path(sys.executable).parent / "dsdbd")]
            if self.broken:
                program = [sys.executable, "-m", "tests.fault.broken", self.broken]
            command = [*self.network.inside(self.number), *program, "-config", str(config)]
            if join:
                command += ["-join", ",".join(f"{host}:{META_PORT}" for host in join)]
            environ = {**os.environ, **self.clock.environ}
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=self.root
                )
            self.paused = False
            self.wanted = True

    def kill(self) -> None:
        """kill -9."""
        with self.lock:
            self.wanted = False
            if self.process is not None:
                self.process.kill()
                self.disk.thaw()
                self.process.wait(60)
                self.paused = False

    def pause(self) -> None:
        """SIGSTOP."""
        with self.lock:
            if self.alive and self.process is not None:
                self.process.send_signal(signal.SIGSTOP)
                self.paused = True

    def resume(self) -> None:
        """SIGCONT."""
        with self.lock:
            if self.alive and self.process is not None:
                self.process.send_signal(signal.SIGCONT)
            self.paused = False

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; the exit code."""
        with self.lock:
            self.wanted = False
            if self.process is None:
                return 0
            self.resume()
            if self.alive:
                self.process.send_signal(signal.SIGTERM)
            return self.process.wait(timeout_s)

    def request(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 5.0, **params: str
    ) -> tuple[int, bytes]:
        """One request on a connection of its own. Raises OSError."""
        url = f"http://{self.host}:{HTTP_PORT}{path}" + ("?" + urllib.parse.urlencode(params) if params else "")
        asked = urllib.request.Request(url, data=body, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=timeout_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def query(self, statement: str, *, timeout_s: float = 5.0, **params: str) -> list[dict[str, Any]]:
        """Results of statements. Raises OSError where one fails or does not answer in time."""
        body = urllib.parse.urlencode({"q": statement, **params}).encode()
        status, answer = self.request("POST", "/query", body, timeout_s=timeout_s)
        try:
            document = json.loads(answer)
        except ValueError:
            raise OSError(f"{status}: {answer[:200]!r}") from None
        results = document.get("results", [])
        failed = document.get("error") or next((one["error"] for one in results if "error" in one), None)
        if failed or status != 200:
            raise OSError(f"{status}: {failed}")
        return list(results)

    def is_ready(self, timeout_s: float = 1.0) -> bool:
        """Whether it would be given requests."""
        if not self.alive or self.paused:
            return False
        with contextlib.suppress(OSError):
            return self.request("GET", "/ready", timeout_s=timeout_s)[0] == 200
        return False

    def health(self, timeout_s: float = 1.0) -> tuple[str, str]:
        """Its own verdict, and the sentences; ``silent`` where it does not answer.

        Clocks are left out: versions that a wrong one brought stay ahead until the time has passed.
        """
        if not self.alive or self.paused:
            return "silent", ""
        try:
            document = json.loads(self.request("GET", "/health", timeout_s=timeout_s)[1])
        except (OSError, ValueError):
            return "silent", ""
        ill = [one for one in document.get("checks", ()) if one["status"] != "pass" and one["name"] != "clock"]
        return "; ".join(sorted({one["status"] for one in ill})) or "pass", "; ".join(one["message"] for one in ill)

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until it is ready; False when it is not within ``timeout_s`` or has ended."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if self.is_ready():
                return True
            if not self.alive:
                return False
            time.sleep(0.05)
        return False

    def usage(self) -> tuple[int, int]:
        """Resident bytes and open files of the process; zeros when it is gone."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 only names
        except (OSError, IndexError, ValueError):
            return 0, 0

    def log_tail(self, size: int = 1500) -> str:
        """The end of its log."""
        return self.log_path.read_text(errors="replace")[-size:] if self.log_path.exists() else ""
