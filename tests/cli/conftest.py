"""A real server of the InfluxDB 1.x kind, and the shell as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.reference import influxd as reference
from tests.reference.influxd import Influxd

REPOSITORY = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S = 60.0


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with reference.influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture(scope="session")
def influxd_auth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with reference.influxd(tmp_path_factory.mktemp("influxd-auth"), auth=True) as server:
        yield server


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
def database(influxd: Influxd, dsdb: Run) -> Iterator[str]:
    """An empty database of its own for a test."""
    name = f"t{uuid.uuid4().hex[:12]}"
    assert dsdb("-port", influxd.port, "-execute", f"CREATE DATABASE {name}").returncode == 0
    yield name
    dsdb("-port", influxd.port, "-execute", f"DROP DATABASE {name}")
