"""A real server of the InfluxDB 1.x kind, and the shell as a process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
INFLUXD = shutil.which("influxd")
START_TIMEOUT_S = 30.0
RUN_TIMEOUT_S = 60.0

INFLUXD_CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
[http]
bind-address = "127.0.0.1:{port}"
auth-enabled = {auth}
log-enabled = false
[monitor]
store-enabled = false
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    port: int

    def write(self, database: str, lines: str) -> None:
        url = f"http://127.0.0.1:{self.port}/write?db={database}"
        with urllib.request.urlopen(urllib.request.Request(url, lines.encode())) as answer:
            assert answer.status == 204


def start_influxd(directory: Path, *, auth: bool) -> Iterator[Server]:
    port = free_port()
    config = directory / "influxd.conf"
    text = INFLUXD_CONFIG.format(rpc=free_port(), port=port, directory=directory, auth=str(auth).lower())
    config.write_text(text)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([str(INFLUXD), "-config", str(config)], stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline_s, (directory / "log").read_text()
                time.sleep(0.05)
        yield Server(port)
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if INFLUXD is None:
        pytest.skip("influxd is not installed")
    yield from start_influxd(tmp_path_factory.mktemp("influxd"), auth=False)


@pytest.fixture(scope="session")
def influxd_auth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if INFLUXD is None:
        pytest.skip("influxd is not installed")
    yield from start_influxd(tmp_path_factory.mktemp("influxd-auth"), auth=True)


@pytest.fixture
def shell_environment(tmp_path: Path) -> dict[str, str]:
    """Environment of a shell whose home is the test's directory."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": str(home), "TERM": "xterm", "PYTHONPATH": str(REPOSITORY), "PYTHONUTF8": "1"}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dsdb(shell_environment: dict[str, str], tmp_path: Path) -> Run:
    """Run `dsdb` with the words given; standard input is empty unless ``stdin`` is given."""

    def run(
        *words: object, stdin: str = "", environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [sys.executable, "-m", "dsdb_cli.main", *map(str, words)]
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            cwd=tmp_path,
            env={**shell_environment, **(environ or {})},
            check=False,
        )

    return run


@pytest.fixture
def database(influxd: Server, dsdb: Run) -> Iterator[str]:
    """An empty database of its own for a test."""
    name = f"t{uuid.uuid4().hex[:12]}"
    assert dsdb("-port", influxd.port, "-execute", f"CREATE DATABASE {name}").returncode == 0
    yield name
    dsdb("-port", influxd.port, "-execute", f"DROP DATABASE {name}")
