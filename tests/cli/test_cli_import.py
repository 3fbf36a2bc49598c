"""Import files: the reader as a machine, and whole imports into a real server."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdb_cli import importing
from dsdb_cli.errors import ShellError
from dsdb_cli.importing import Batch, ImportReader, Statement, go_duration, pause_s, retry_wait_s
from tests.examples import examples


def read(text: bytes, database: str = "") -> list[Statement | Batch]:
    reader = ImportReader(database=database)
    items = [reader.feed(line) for line in text.splitlines(keepends=True)]
    return [item for item in [*items, reader.finish()] if item is not None]


def test_sections_and_contexts() -> None:
    text = b"""\
# a comment
# DDL
CREATE DATABASE a

CREATE DATABASE b
# DML
# CONTEXT-DATABASE: a
m v=1 1\r
# another comment

m v=2 2
# CONTEXT-RETENTION-POLICY: week
m v=3 3
# CONTEXT-DATABASE:b
m v=4 4
"""
    assert read(text) == [
        Statement("CREATE DATABASE a"),
        Statement("CREATE DATABASE b"),
        Batch("a", "", (b"m v=1 1", b"m v=2 2")),
        Batch("a", "week", (b"m v=3 3",)),
        Batch("b", "week", (b"m v=4 4",)),
    ]


def test_a_database_from_the_command_line() -> None:
    assert read(b"# DML\nm v=1", database="d") == [Batch("d", "", (b"m v=1",))]


def test_a_point_without_a_database_names_the_line_and_the_way_out() -> None:
    with pytest.raises(ShellError, match=r"Line 3 is a point.*-database"):
        read(b"# DDL\n# DML\nm v=1\n")


@settings(deadline=None, max_examples=examples(30))
@given(st.integers(0, 12_345), st.integers(1, 6000))
def test_batches_are_full_and_lose_nothing(lines: int, batch_lines: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "BATCH_LINES", batch_lines)
        reader = ImportReader(database="d")
        reader.feed(b"# DML\n")
        batches = [batch for n in range(lines) if isinstance(batch := reader.feed(b"%d\n" % n), Batch)]
        assert all(len(batch.lines) == batch_lines for batch in batches)
        last = reader.finish()
    sent = [line for batch in [*batches, *([last] if last else [])] for line in batch.lines]
    assert sent == [b"%d" % n for n in range(lines)]


def test_batches_are_bounded_in_bytes_and_lines_too() -> None:
    reader = ImportReader(database="d")
    reader.feed(b"# DML\n")
    line = b"x" * (importing.MAX_LINE_BYTES - 1) + b"\n"
    fed = 1
    while (batch := reader.feed(line)) is None:
        fed += 1
    assert isinstance(batch, Batch)
    assert fed * len(line) <= importing.BATCH_BYTES + len(line)
    with pytest.raises(ShellError, match="longer than 1048576 bytes"):
        reader.feed(b"x" * (importing.MAX_LINE_BYTES + 1))


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0s"),
        (7, "7ns"),
        (1_500, "1.5µs"),
        (2_000_000, "2ms"),
        (999_999_999, "999.999999ms"),
        (1_000_000_000, "1s"),
        (56_740_578_415, "56.740578415s"),
        (60_000_000_000, "1m0s"),
        (3_723_500_000_000, "1h2m3.5s"),
    ],
)
def test_durations_as_go_prints_them(duration_ns: int, text: str) -> None:
    assert go_duration(duration_ns) == text


def test_rate_and_retries() -> None:
    assert pause_s(1000, 0.25, 0) == 0
    assert pause_s(1000, 0.25, 1000) == 0.75
    assert pause_s(1000, 5.0, 1000) == 0
    waits = [retry_wait_s(tries, None) for tries in range(1, importing.MAX_TRIES + 1)]
    assert waits[:4] == [0.25, 0.5, 1.0, 2.0]
    assert waits[-1] is None
    assert max(wait for wait in waits if wait is not None) == importing.MAX_WAIT_S
    assert retry_wait_s(1, 3.0) == 3.0
    assert retry_wait_s(1, 900.0) == importing.MAX_WAIT_S


DATED = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d "


@pytest.mark.slow
@pytest.mark.debian
@pytest.mark.parametrize("compressed", [False, True])
def test_an_import(influxd: Any, dsdb: Any, database: str, tmp_path: Path, compressed: bool) -> None:
    points = b"".join(b"big v=%di %d\n" % (number, number) for number in range(105_000))
    text = f"# DDL\nCREATE NONSENSE\n# DML\n# CONTEXT-DATABASE: {database}\n".encode()
    text += b"# CONTEXT-RETENTION-POLICY: autogen\n" + points
    path = tmp_path / "export"
    path.write_bytes(gzip.compress(text, 1) if compressed else text)
    flags = ["-compressed"] if compressed else []
    done = dsdb("-port", influxd.port, "-import", "-path", path, "-precision=s", *flags)
    assert (done.stdout, done.returncode) == ("", 0)
    assert re.fullmatch(
        f"{DATED}error: error parsing query: found NONSENSE.*\n"
        f"{DATED}Processed 100000 lines\\.  Time elapsed: [0-9.ms]+s\\.  Points per second \\(PPS\\): [0-9]+\n"
        f"{DATED}Processed 1 commands\n{DATED}Processed 105000 inserts\n{DATED}Failed 0 inserts\n",
        done.stderr,
    )
    words = ("-port", influxd.port, "-database", database, "-format", "csv", "-precision", "s", "-execute")
    assert dsdb(*words, "SELECT count(v), last(v) FROM big").stdout.splitlines()[1] == "big,0,105000,104999"
    assert dsdb(*words, "SELECT v FROM big WHERE v = 77").stdout.splitlines()[1] == "big,77,77"


@pytest.mark.slow
@pytest.mark.debian
def test_lines_that_fail_are_given_back(influxd: Any, dsdb: Any, database: str, tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_text(f"# DML\n# CONTEXT-DATABASE: {database}\nm v=1 1\n# CONTEXT-DATABASE: nope\nm v=2 2\nm v=3 3\n")
    done = dsdb("-port", influxd.port, "-import", "-path", path)
    assert (done.stdout, done.returncode) == ("m v=2 2\nm v=3 3\n", 1)
    assert re.fullmatch(
        f'{DATED}error writing batch: {{"error":"database not found: .*\n'
        f"{DATED}Processed 0 commands\n{DATED}Processed 1 inserts\n{DATED}Failed 2 inserts\n"
        f"{DATED}2 points were not inserted\n",
        done.stderr,
    )


@pytest.mark.slow
@pytest.mark.debian
def test_the_rate_is_kept(influxd: Any, dsdb: Any, database: str, tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_text("# DML\n" + "".join(f"m v=1 {number}\n" for number in range(10_001)))
    started_s = time.monotonic()
    done = dsdb("-port", influxd.port, "-import", "-path", path, "-database", database, "-pps", 5_000)
    assert done.returncode == 0
    # The third batch, of one line, waits until two seconds' worth of lines is through.
    assert time.monotonic() - started_s >= 2.0


@pytest.mark.slow
@pytest.mark.debian
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-import"], "file argument required\n"),
        (["-import", "-path", "nope"], "Cannot read nope: No such file or directory\n"),
        (["-import", "-path", "."], "Cannot read .: Is a directory\n"),
        (["-import", "-path", "plain", "-compressed"], "Cannot read plain as gzip: Not a gzipped file (b'# ')"),
        (["-import", "-path", "plain", "-precision", "rfc3339"], "The times of an import file are numbers"),
        (["-import", "-path", "plain"], "Line 2 is a point, and no database is known"),
    ],
)
def test_imports_that_cannot_be(influxd: Any, dsdb: Any, tmp_path: Path, flags: list[str], message: str) -> None:
    (tmp_path / "plain").write_text("# DML\nm v=1\n")
    done = dsdb("-port", influxd.port, *flags)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith(message)
