"""The InfluxDB 1.x of Debian beside which our answers are held: a private server for each use."""

from __future__ import annotations

import shutil
import subprocess
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.daemons import Answer, free_port, request, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_PROGRAM = shutil.which("influxd")
_MISSING = "influxd (Debian package influxdb) is not installed"
_START_TIMEOUT_S = 60.0
# The port for backups is never asked: the kernel picks it.
_CONFIG = """reporting-disabled = true
bind-address = "{host}:0"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
[http]
bind-address = "{host}:{port}"
auth-enabled = {auth}
log-enabled = false
{http}
[monitor]
store-enabled = false
"""

needs_influxd = pytest.mark.skipif(_PROGRAM is None, reason=_MISSING)


@dataclass(frozen=True)
class Influxd:
    """A running server."""

    host: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def query(self, text: str, *, accept: str = "application/json", **parameters: str) -> Answer:
        """POST /query; ``parameters`` go into the address, where alone the server looks for ``pretty``."""
        body = urllib.parse.urlencode({"q": text}).encode()
        url = f"http://{self.address}/query?{urllib.parse.urlencode(parameters)}"
        return request("POST", url, body, {"Accept": accept})

    def result(self, statement: str, **parameters: str) -> dict[str, Any]:
        """What one statement gave: its series, or its error."""
        return dict(self.query(statement, **parameters).json["results"][0])

    def try_write(self, database: str, body: bytes) -> Answer:
        """POST /write, whatever comes of it."""
        return request("POST", f"http://{self.address}/write?{urllib.parse.urlencode({'db': database})}", body)

    def write(self, database: str, lines: str) -> None:
        """Store every line."""
        answer = self.try_write(database, lines.encode())
        assert answer.status == 204, answer.body


@contextmanager
def influxd(
    directory: Path, *, auth: bool = False, host: str = "127.0.0.1", http: Sequence[str] = ()
) -> Iterator[Influxd]:
    """Run a server that keeps everything in ``directory`` and answers; the test is skipped where there is none.

    ``http``: further lines of its section of that name.
    """
    if _PROGRAM is None:
        pytest.skip(_MISSING)
    server = Influxd(host, free_port(host))
    config, log_path = directory / "influxd.conf", directory / "influxd.log"
    config.write_text(
        _CONFIG.format(directory=directory, host=host, port=server.port, auth=str(auth).lower(), http="\n".join(http))
    )
    with log_path.open("wb") as log:
        process = subprocess.Popen([_PROGRAM, "-config", str(config)], stdout=log, stderr=subprocess.STDOUT)

    def answers() -> bool:
        assert process.poll() is None, log_path.read_text()
        try:
            return request("GET", f"http://{server.address}/ping", timeout_s=2).status == 204
        except OSError:
            return False

    try:
        wait_until(answers, "influxd answers", _START_TIMEOUT_S)
        yield server
    finally:
        process.kill()
        process.wait()
