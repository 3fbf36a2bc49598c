"""The whole benchmark, small, against real servers: it works, and the answers agree. No speed is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tsbs.queries import KINDS
from benchmarks.tsbs.systems import SYSTEMS

REPOSITORY = Path(__file__).resolve().parents[2]
# One worker runs them all, so that the run they share is made once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("benchmarks")]


def needs(name: str) -> Any:
    reason = SYSTEMS[name].missing()
    return pytest.mark.skipif(reason is not None, reason=reason or "")


def run(module: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, "--out", str(directory), "--work", str(directory), "--quiet-s", "0.5"]
    return subprocess.run([*command, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=250)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the benchmark wrote about every system that is installed."""
    directory = tmp_path_factory.mktemp("tsbs")
    done = run(
        "benchmarks.tsbs",
        directory,
        *("--scale", "4", "--hours", "2", "--seed", "5", "--runs", "2", "--budget-s", "0.3", "--requests", "200"),
        *("--ingest", "--queries", "--restart", "--under-load", "--mixed", "--one-point"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (directory / "tsbs.md").read_text() == done.stdout
    return json.loads((directory / "tsbs.json").read_text())


def test_every_phase_runs(document: Any) -> None:
    figures = document["figures"]["dsdb"]
    assert document["failures"] == []
    assert figures["ingest"]["rows"] == 4 * 720
    assert figures["ingest"]["server_cpu_us_per_row"] > 0
    assert figures["ingest"]["bytes_per_value"] > 0
    assert figures["mixed"]["rows"] == 4 * 9 * 360
    assert figures["one-point"]["requests"] == 200
    for kind in KINDS:
        assert {"hot", "cold", "loaded"} == figures["queries"][kind].keys()
    assert figures["restart"]["start_s"] > 0
    assert figures["memory"]["peak_rss_bytes"] >= figures["memory"]["rss_bytes"] > 0


@pytest.mark.debian
@pytest.mark.parametrize(
    "pair",
    [
        pytest.param("influxdb and dsdb", marks=needs("influxdb")),
        pytest.param("influxdb and victoria-metrics", marks=[needs("influxdb"), needs("victoria-metrics")]),
    ],
)
def test_all_fifteen_answers_agree(document: Any, pair: str) -> None:
    assert {kind: verdicts[pair] for kind, verdicts in document["answers"].items()} == dict.fromkeys(KINDS, "equal")


@pytest.mark.debian
@needs("influxdb")
def test_many_series_are_counted_alike(tmp_path: Path) -> None:
    done = run("benchmarks.cardinality", tmp_path, "--systems", "dsdb,influxdb", "--series", "2000")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "cardinality-2000.json").read_text())
    assert found["failures"] == []
    assert found["figures"].keys() == {"dsdb", "influxdb"}
    assert found["figures"]["dsdb"].keys() == found["figures"]["influxdb"].keys()


def test_a_strange_system_is_named(tmp_path: Path) -> None:
    done = run("benchmarks.tsbs", tmp_path, "--systems", "dsdb,cassandra")
    assert done.returncode == 1
    assert "no system is called cassandra; there are dsdb, influxdb, victoria-metrics" in done.stderr
