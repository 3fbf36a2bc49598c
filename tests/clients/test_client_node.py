"""The library of npm for InfluxDB 1.x, installed where npm can get it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.daemons import Daemon

pytestmark = [
    pytest.mark.slow,
    pytest.mark.debian,
    pytest.mark.xdist_group("clients"),
    pytest.mark.skipif(not (shutil.which("npm") and shutil.which("node")), reason="npm or node is not installed"),
]
SCRIPT = Path(__file__).with_name("node_client.js")
PACKAGE = "influx@5.12.0"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", PACKAGE]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not get {PACKAGE} within a minute")
    if done.returncode != 0:
        pytest.skip(f"npm cannot get {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
    return directory


def test_create_write_query_drop(library: Path, server: Daemon) -> None:
    shutil.copy(SCRIPT, library / SCRIPT.name)
    command = ["node", SCRIPT.name, server.host, str(server.http_port)]
    done = subprocess.run(command, cwd=library, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "pings": [True],
        "databases": True,
        "measurements": ["cpu"],
        "rows": [{"host": "a", "v": 1.5, "n": 7}, {"host": "b", "v": 2.5, "n": 8}],
        "nanoseconds": "1500000000123456789",
        "groups": [{"host": "a", "mean": 1.5}, {"host": "b", "mean": 2.5}],
        "policies": ["autogen", "week"],
        "error": "found FROM, expected identifier, string, number, bool at line 1, char 8",
        "dropped": True,
    }
