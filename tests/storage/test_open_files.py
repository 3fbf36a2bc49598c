"""DuckDB and Polars read the files of a running daemon while it writes and merges, and see what its API answers.

The statements are those of docs/format/segment.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.daemons import Daemon, wait_until

pytestmark = pytest.mark.slow

START_NS = 1_577_836_800_000_000_000
"""2020-01-01: the range that is closed before it is read; a second shard begins a week later."""
STEP_NS = 3_600_000_000_000
STEPS = 24 * 10
STOP_NS = START_NS + STEPS * STEP_NS
FIELDS = ("idle", "hits", "note", "up")


def closed_lines() -> list[list[str]]:
    """Bodies that fill the closed range: absent tags and fields, rows in any order, values written again."""
    first, second, third = [], [], []
    for step in range(STEPS):
        time_ns = START_NS + step * STEP_NS
        for host in range(4):
            tags = f",host=h{host}" + (",region=eu\\ west" if host % 2 else "")
            first.append(f"cpu{tags} idle={host + step / 7},hits={step * host}i {time_ns}")
            if step % 3 == 0:
                second.append(f'cpu{tags} note="n{step}",up={"true" if step % 2 else "false"} {time_ns}')
            if step % 5 == 0:
                third.append(f"cpu{tags} idle={-step - host} {time_ns}")
    first.append(f'cpu note="no tags" {START_NS + 5_000}')
    return [first[::-1], second, third]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    quick = ['cache-snapshot-write-cold-duration = "200ms"', "compact-min-file-count = 3"]
    made = Daemon(tmp_path / "node", settings={"data": quick}).start()
    yield made
    made.kill()


def stat(daemon: Daemon, name: str) -> int:
    for line in daemon.get("/metrics").body.decode().splitlines():
        if line.startswith("dsdb_store") and f'name="{name}"' in line:
            return int(float(line.split()[-1]))
    raise AssertionError(f"no dsdb_store {name}")


def answer(daemon: Daemon) -> list[tuple]:
    """The closed range as the API gives it: host, region, time and fields, sorted."""
    statement = f"SELECT {', '.join(FIELDS)}, host, region FROM cpu WHERE time >= {START_NS} AND time < {STOP_NS}"
    rows = daemon.rows(statement, db="d", epoch="ns")
    return sorted(((host or "", region or "", time_ns, *values) for time_ns, *values, host, region in rows), key=repr)


def listed(pattern: str) -> list[Path]:
    return sorted(Path("/").glob(pattern.removeprefix("/")))


def with_duckdb(pattern: str) -> list[tuple]:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed: pip install duckdb")
    newest = ", ".join(f"arg_max({name}, _version) FILTER ({name} IS NOT NULL) AS {name}" for name in FIELDS)
    found = duckdb.sql(
        f"SELECT host, region, epoch_ns(time) AS at, {newest} FROM read_parquet('{pattern}', union_by_name = true) "
        f"WHERE epoch_ns(time) >= {START_NS} AND epoch_ns(time) < {STOP_NS} GROUP BY host, region, time"
    ).fetchall()
    return sorted(((host or "", region or "", *rest) for host, region, *rest in found), key=repr)


def with_polars(pattern: str) -> list[tuple]:
    polars = pytest.importorskip("polars", reason="Polars is not installed: pip install polars")
    files = polars.concat([polars.scan_parquet(path) for path in listed(pattern)], how="diagonal_relaxed")
    found = (
        files.with_columns(polars.col("time").dt.epoch("ns").alias("at"), polars.col("host", "region").cast(str))
        .filter(polars.col("at").is_between(START_NS, STOP_NS, closed="left"))
        .sort("_version")
        .group_by("host", "region", "at")
        .agg(polars.col(*FIELDS).drop_nulls().last())
        .collect()
        .rows()
    )
    return sorted(((host or "", region or "", *rest) for host, region, *rest in found), key=repr)


def while_listed(read: Callable[[str], list[tuple]], pattern: str) -> list[tuple]:
    """Read; once more when a file that was listed had been merged away before it was opened."""
    for _ in range(20):
        try:
            return read(pattern)
        except Exception as error:
            if "No such file" not in str(error) and "Cannot open file" not in str(error):
                raise
    raise AssertionError("files go faster than they can be read")


@pytest.mark.parametrize("read", [with_duckdb, with_polars])
def test_files_of_a_running_daemon_are_what_the_api_answers(
    daemon: Daemon, read: Callable[[str], list[tuple]], tmp_path: Path
) -> None:
    daemon.query("CREATE DATABASE d")
    for lines in closed_lines():
        assert daemon.write("\n".join(lines), db="d").status == 204
    expected = answer(daemon)
    assert len(expected) == STEPS * 4 + 1 and len({row[:3] for row in expected}) == len(expected)
    pattern = f"{daemon.root}/data/d/autogen/*/cpu/*.parquet"
    # The last write of the closed range reaches its file within the flush age.
    wait_until(lambda: listed(pattern) and stat(daemon, "head_bytes") == 0, "everything is written out")
    assert while_listed(read, pattern) == expected
    ended = threading.Event()
    problems: list[Any] = []

    def write_on() -> None:
        """New points behind the closed range, in its second shard: files come, and are merged with those being read."""
        step = 0
        while not ended.is_set():
            lines = [f"cpu,host=h{n % 9} idle={step},extra={n}i {STOP_NS + step * 50 + n}" for n in range(50)]
            status = daemon.write("\n".join(lines), db="d").status
            if status != 204:
                problems.append(status)
            step += 1
            ended.wait(0.02)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        merges = stat(daemon, "merges")
        reads = 0
        while reads < 5 or stat(daemon, "merges") < merges + 2:
            assert while_listed(read, pattern) == expected
            reads += 1
            assert reads < 5_000 and not problems
    finally:
        ended.set()
        writer.join()
    assert answer(daemon) == expected
