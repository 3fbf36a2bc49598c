"""The shell of InfluxDB 1.6 that Debian has."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.clients.conftest import PASSWORD, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.daemons import Daemon

_PROGRAM = shutil.which("influx")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.debian,
    pytest.mark.xdist_group("clients"),
    pytest.mark.skipif(_PROGRAM is None, reason="influx (Debian package influxdb-client) is not installed"),
]


def influx(daemon: Daemon, *arguments: str) -> str:
    command = [str(_PROGRAM), "-host", daemon.host, "-port", str(daemon.http_port), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_create_write_query_drop(server: Daemon) -> None:
    assert influx(server, "-execute", "CREATE DATABASE shell") == ""
    assert influx(server, "-database", "shell", "-execute", "INSERT cpu,host=a v=1.5,n=2i 1000") == ""
    found = influx(server, "-database", "shell", "-execute", "SELECT * FROM cpu")
    assert found.splitlines() == [
        "name: cpu",
        "time host n v",
        "---- ---- - -",
        "1000 a    2 1.5",
    ]
    assert influx(server, "-execute", "DROP DATABASE shell") == ""
    assert "shell" not in influx(server, "-execute", "SHOW DATABASES")


def test_forms_and_precision(server: Daemon) -> None:
    server.query("CREATE DATABASE forms")
    server.write("cpu,host=a v=1.5 1500000000000000000\ncpu,host=b v=2 1500000001000000000", db="forms")
    say = ("-database", "forms", "-execute", "SELECT v FROM cpu GROUP BY host")
    assert influx(server, "-format", "csv", *say).splitlines() == [
        "name,tags,time,v",
        "cpu,host=a,1500000000000000000,1.5",
        "name,tags,time,v",
        "cpu,host=b,1500000001000000000,2",
    ]
    document = json.loads(influx(server, "-format", "json", "-precision", "s", *say))
    series = [one for result in document["results"] for one in result["series"]]
    assert [one["values"] for one in series] == [[[1500000000, 1.5]], [[1500000001, 2]]]
    assert "2017-07-14T02:40:00Z 1.5" in influx(server, "-precision", "rfc3339", *say)


def test_import(server: Daemon, tmp_path: Path) -> None:
    lines = "".join(f"m,n={n % 5} v={n} {n}\n" for n in range(3_000))
    path = tmp_path / "points"
    path.write_text(f"# DDL\nCREATE DATABASE imported\n# DML\n# CONTEXT-DATABASE: imported\n{lines}")
    said = influx(server, "-import", "-path", str(path), "-precision", "ns")
    assert "Processed 3000 inserts" in said and "Failed 0 inserts" in said
    assert server.rows("SELECT count(v) FROM m", db="imported", epoch="ns") == [[0, 3_000]]


def test_errors_and_users(guarded: Daemon) -> None:
    assert "unable to parse authentication credentials" in influx(guarded, "-execute", "SHOW DATABASES")
    wrong = influx(guarded, "-username", ROOT, "-password", "wrong", "-execute", "SHOW DATABASES")
    assert "authorization failed" in wrong
    right = ("-username", ROOT, "-password", PASSWORD)
    assert "error parsing query: found FROM" in influx(guarded, *right, "-execute", "SELECT FROM")
    assert "databases" in influx(guarded, *right, "-execute", "SHOW DATABASES")
