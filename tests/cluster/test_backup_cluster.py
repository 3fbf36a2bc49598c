"""Backups of a real cluster through any node, and restores into clusters of other sizes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from dsdbd.backup import program
from dsdbd.backup.bring import Restore
from dsdbd.backup.flags import parse_backup, parse_restore
from dsdbd.backup.link import Link
from dsdbd.backup.take import Backup
from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.cluster.preloaded import DSDBD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

HOUR_S = 3600
START_S = 1_700_000_000 // HOUR_S * HOUR_S
STATEMENTS = (
    "SELECT * FROM cpu",
    "SELECT * FROM long.events",
    "SELECT mean(idle), count(label), last(up), sum(n) FROM cpu WHERE time > 0 GROUP BY time(1h), host FILL(none)",
    "SHOW FIELD KEYS",
    "SHOW TAG VALUES WITH KEY = host",
    "SHOW SERIES",
)


@dataclass
class Run:
    """What a run of the program gave."""

    code: int
    output: str


def run(*words: str | Path) -> Run:
    """Run ``dsdb backup`` or ``dsdb restore``, in this process: starting another one takes longer than most backups."""
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        code = program.run([str(word) for word in words], {})
    return Run(code, output.getvalue())


def must_run(*words: str | Path) -> str:
    done = run(*words)
    assert done.code == 0, done.output
    return done.output


def answers(node: Daemon, database: str = "telegraf") -> dict[str, Any]:
    found = {}
    for statement in STATEMENTS:
        document = node.query(statement, db=database, epoch="ns", timeout_s=60)
        assert "error" not in json.dumps(document), document
        found[statement] = document["results"][0].get("series")
    return found


def lines(first_hour: int, hours: int, note: str = "a") -> str:
    """Ten minutes apart, of three hosts, all types; over several shard groups."""
    made = []
    for minute in range(0, hours * 60, 10):
        time_ns = (START_S + first_hour * HOUR_S + minute * 60) * 10**9
        for host in ("one", "two", "three"):
            made.append(f"cpu,host={host} idle={minute / 7},n={minute}i,up={'t' if minute % 20 else 'f'} {time_ns}")
            if minute % 30 == 0:
                made.append(f'cpu,host={host},rack=r\\ 1 label="{note} \\"{minute}\\" ö" {time_ns}')
    return "\n".join(made)


def must_write(node: Daemon, text: str, **parameters: str) -> None:
    answer = node.write(text, db="telegraf", consistency="all", timeout_s=60, **parameters)
    assert answer.status == 204, answer.body


def must_query(node: Daemon, statement: str, **parameters: str) -> None:
    document = node.query(statement, timeout_s=60, **parameters)
    assert "error" not in json.dumps(document), document


@dataclass
class Source:
    """The cluster that was backed up twice into ``path``; ``first`` and ``second`` are what it answered then."""

    cluster: Cluster
    path: Path
    outputs: list[str]
    first: dict[str, Any]
    second: dict[str, Any]

    @property
    def node(self) -> Daemon:
        return self.cluster.daemons[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    root = tmp_path_factory.mktemp("source")
    cluster = Cluster(root)
    try:
        cluster.grow(3)
        node = cluster.daemons[-1]
        must_query(node, "CREATE DATABASE telegraf WITH REPLICATION 2 SHARD DURATION 4h NAME short")
        must_query(node, "CREATE RETENTION POLICY long ON telegraf DURATION INF REPLICATION 1 SHARD DURATION 52w")
        must_query(node, "CREATE USER reader WITH PASSWORD 'x'")
        must_query(node, "GRANT READ ON telegraf TO reader")
        must_write(node, lines(0, 8))
        # Points that were overwritten, in part and later, and others that were deleted.
        must_write(node, f'cpu,host=one idle=-1 {START_S * 10**9}\ncpu,host=two label="b" {START_S * 10**9}')
        must_query(node, "DELETE FROM cpu WHERE host = 'three'", db="telegraf")
        must_write(node, f"cpu,host=three idle=33 {START_S * 10**9 + 5}")
        must_write(node, 'events,kind=boot text="up",code=1i 1000\nevents,kind=halt code=2i 2000', rp="long")
        must_write(node, "gone v=1 1000", rp="long")
        must_query(node, "DROP MEASUREMENT gone", db="telegraf")
        path = root / "backups"
        outputs = [must_run("backup", "-host", node.address, path)]
        first = answers(node)
        must_write(node, lines(6, 6, "later"))
        must_query(node, f"DELETE FROM cpu WHERE host = 'two' AND time < {(START_S + 600) * 10**9}", db="telegraf")
        outputs.append(must_run("backup", "-host", cluster.daemons[0].address, path))
        yield Source(cluster, path, outputs, first, answers(node))
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    cluster = Cluster(tmp_path_factory.mktemp("single"))
    try:
        yield cluster.add().start()
    finally:
        cluster.close()


def manifest(path: Path, number: int) -> Any:
    return json.loads((path / f"meta.{number:02d}").read_text())


def test_the_node_that_was_asked_owns_not_everything(source: Source) -> None:
    rows = source.node.rows("SHOW SHARDS")
    owners = [str(row[-1]) for row in rows]
    own = {row[0] for name, table in source.node.servers().items() if "data" in name for row in table}
    assert len(own) == 3
    assert any(len(set(owner.split(","))) == 2 for owner in owners), owners
    mine = [number for number in own if any(str(number) not in owner.split(",") for owner in owners)]
    assert len(mine) == 3, owners


def test_the_report_names_what_was_copied(source: Source) -> None:
    report = [line[20:] for line in source.outputs[0].splitlines()]
    shards = manifest(source.path, 0)["shards"]
    assert report[0] == "backing up rp=short"
    assert f"backing up metastore to {source.path}/meta.00" in report
    for shard in shards:
        name = f"telegraf.{shard['policy']}.{shard['id']:05d}.00"
        assert f"backing up db=telegraf rp={shard['policy']} shard={shard['id']} to {source.path}/{name}" in report
    assert report[-2].startswith(f"verified {len(shards)} shards: ")
    assert report[-1] == "backup complete"
    assert "not compared" not in source.outputs[0]


def test_the_command_of_the_shell_is_the_same_program(source: Source, tmp_path: Path) -> None:
    words = [DSDBD.with_name("dsdb"), "backup", "-host", source.node.address, "-retention", "long", tmp_path / "x"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("DSDB_", "INFLUX"))}
    done = subprocess.run([*map(str, words)], capture_output=True, timeout=120, env=clean, check=False)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode() == "backup: a retention policy is backed up with its database: name both\n"


def test_the_files_are_parquet_that_anyone_reads(source: Source) -> None:
    files = [file for shard in manifest(source.path, 1)["shards"] for file in shard["files"]]
    assert {file["measurement"] for file in files} == {"cpu", "events"}
    for file in files:
        table = pq.read_table(source.path / file["path"])
        assert table.num_rows == file["rows"]
        assert {"time", "_version"} <= set(table.column_names)


def test_duckdb_reads_them(source: Source) -> None:
    duckdb = pytest.importorskip("duckdb")
    paths = f"{source.path}/telegraf.short.*/cpu/*.parquet"
    query = (
        "SELECT count(*) FROM (SELECT DISTINCT host, rack, time FROM read_parquet($1, union_by_name = true)) "
        "WHERE host = 'one' AND rack IS NULL"
    )
    with duckdb.connect() as connection:
        (count,) = connection.execute(query, [paths]).fetchone()
    assert count == 12 * 6


def test_a_second_backup_copies_only_what_is_new(source: Source) -> None:
    first, second = (manifest(source.path, number) for number in (0, 1))
    held = {file["path"] for shard in first["shards"] for file in shard["files"]}
    now = {file["path"] for shard in second["shards"] for file in shard["files"]}
    assert held & now, "nothing was shared"
    assert now - held, "nothing is new"
    copied = int(re.search(r"copied now (\d+) files", source.outputs[1])[1])
    assert copied == len(now - held)
    assert (source.path / "meta.00").stat().st_mode & 0o077 == 0


def test_everything_comes_back_on_a_single_node(source: Source, single: Daemon) -> None:
    report = must_run("restore", "-host", single.address, source.path)
    assert f"Using metastore snapshot: {source.path}/meta.01" in report
    assert "created database telegraf" in report
    assert "created user reader" in report
    assert "verified telegraf.short: its points have the digests of the backup" in report
    assert "verified telegraf.long: its points have the digests of the backup" in report
    assert report.rstrip().endswith("restore complete")
    assert answers(single) == source.second
    assert ["telegraf", "READ"] in single.rows("SHOW GRANTS FOR reader")
    # Again: nothing is made, nothing changes.
    again = must_run("restore", "-host", single.address, source.path)
    assert "database telegraf is there already; restored points are added to those it holds" in again
    assert "created" not in again
    assert "its points have the digests of the backup" in again
    assert answers(single) == source.second


def test_a_directory_is_looked_at_without_a_cluster(source: Source) -> None:
    listed = must_run("restore", "-list", source.path).splitlines()
    assert [line.split()[0] for line in listed[:2]] == ["meta.00", "meta.01"]
    files = [file for shard in manifest(source.path, 0)["shards"] for file in shard["files"]]
    rows, size_bytes = sum(file["rows"] for file in files), sum(file["size_bytes"] for file in files)
    assert re.fullmatch(
        rf"meta\.00  20\S+Z  everything: \d+ shards, {len(files)} files, {rows} rows, {size_bytes} bytes", listed[0]
    )
    report = must_run("restore", "-verify", "-host", "127.0.0.1:1", "-number", "0", source.path)
    assert f"{len(files)} files, {rows} rows are as they were written" in report
    part = must_run("restore", "-verify", "-database", "telegraf", "-retention", "long", source.path)
    assert "2 rows are as they were written" in part
    assert "holds no database" in run("restore", "-verify", "-database", "nosuch", source.path).output


def test_the_earlier_backup_comes_back_under_a_new_name(source: Source, single: Daemon) -> None:
    report = must_run(
        "restore", "-host", single.address, "-database", "telegraf", "-newdb", "before", "-number", "0", source.path
    )
    assert f"Using metastore snapshot: {source.path}/meta.00" in report
    assert answers(single, "before") == source.first


def test_one_policy_and_one_shard_alone(source: Source, single: Daemon) -> None:
    place = ("restore", "-host", single.address, "-database", "telegraf")
    must_run(*place, "-retention", "long", "-newdb", "part", source.path)
    assert single.rows("SELECT count(code) FROM long.events", db="part") == [["1970-01-01T00:00:00Z", 2]]
    assert [row[0] for row in single.rows("SHOW RETENTION POLICIES ON part")] == ["long"]
    shard = next(one for one in manifest(source.path, 1)["shards"] if one["policy"] == "short")
    must_run(*place, "-retention", "short", "-shard", str(shard["id"]), "-newdb", "piece", source.path)
    bounds = f"time >= {shard['start_ns']} AND time < {shard['end_ns']}"
    statement = "SELECT idle, host FROM cpu"
    rows = single.rows(statement, db="piece")
    inside = source.node.rows(f"{statement} WHERE {bounds}", db="telegraf")
    assert rows
    assert {tuple(row) for row in rows} <= {tuple(row) for row in inside}
    assert len(rows) < len(source.node.rows(statement, db="telegraf"))


def test_newer_points_and_deletions_hold(source: Source, single: Daemon) -> None:
    place = ("restore", "-host", single.address, "-database", "telegraf", "-newdb", "kept", source.path)
    must_run(*place)
    time_ns = (START_S + 4 * HOUR_S) * 10**9
    assert single.write(f"cpu,host=one idle=777 {time_ns}\nmore v=1", db="kept").status == 204
    must_run(*place)
    found = single.rows(f"SELECT idle, n FROM cpu WHERE host = 'one' AND time = {time_ns}", db="kept")
    assert [row[1:] for row in found] == [[777, 240]]
    must_query(single, "DELETE FROM cpu WHERE host = 'one'", db="kept")
    done = run(*place)
    assert done.code == 1
    assert re.search(r"[1-9]\d* of \d+ rows stay deleted", done.output), done.output
    assert single.rows("SELECT count(idle) FROM cpu WHERE host = 'one'", db="kept") == []
    # A database that was dropped left nothing behind that could hide points.
    must_query(single, "DROP DATABASE kept")
    must_run(*place)
    assert answers(single, "kept") == source.second


def test_points_older_than_the_policy_keeps_them_are_counted(source: Source, single: Daemon) -> None:
    must_query(single, "CREATE DATABASE brief")
    must_query(single, "CREATE RETENTION POLICY long ON brief DURATION 1h REPLICATION 1")
    place = ("restore", "-host", single.address, "-database", "telegraf", "-newdb", "brief")
    report = must_run(*place, source.path)
    assert "retention policy brief.long stays as it is; in the backup it has other durations" in report
    assert "2 rows were not stored: points beyond retention policy" in report
    assert single.rows("SELECT count(code) FROM long.events", db="brief") == []
    assert single.rows("SELECT count(idle) FROM short.cpu", db="brief") != []
    done = run(*place, "-retention", "long", source.path)
    assert done.code == 1
    assert "no row was stored" in done.output


def test_a_damaged_file_is_named_before_anything_is_restored(source: Source, single: Daemon, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(source.path), str(copy)], check=True)
    file = next(file for shard in manifest(copy, 1)["shards"] for file in shard["files"])
    damaged = copy / file["path"]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(bytes(content))
    looked = run("restore", "-verify", copy)
    assert looked.code == 1
    assert f"{damaged} is damaged" in looked.output
    done = run("restore", "-host", single.address, "-database", "telegraf", "-newdb", "damaged", copy)
    assert done.code == 1
    assert f"{damaged} is damaged" in done.output
    assert "nothing was restored" in done.output
    assert ["damaged"] not in single.rows("SHOW DATABASES")
    # The next backup finds it, too, and copies the file anew.
    report = must_run("backup", "-host", source.node.address, copy)
    assert "is damaged" in report
    must_run("restore", "-host", single.address, "-database", "telegraf", "-newdb", "mended", copy)


def test_what_cannot_be_done_is_said_in_a_sentence(source: Source, single: Daemon, tmp_path: Path) -> None:
    for words, message in (
        (("backup", "-host", single.address, "-database", "nosuch", tmp_path / "x"), "database not found: nosuch"),
        (("backup", "-host", single.address, source.path), "holds backups of cluster"),
        (("backup", "-host", "127.0.0.1:1", tmp_path / "x"), "Failed to connect"),
        (("restore", "-host", single.address, tmp_path), "holds no backup"),
        (("restore", "-host", single.address, "-database", "nosuch", source.path), 'holds no database "nosuch"'),
        (("restore", "-host", single.address, "-number", "9", source.path), "there is no backup"),
    ):
        done = run(*words)
        assert done.code == 1, done.output
        assert message in done.output
        assert "Traceback" not in done.output


def test_a_cluster_of_two_and_an_empty_backup(source: Source, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        nodes = cluster.grow(2)
        done = run("backup", "-host", nodes[0].address, tmp_path / "empty")
        assert done.code == 1
        assert "there is nothing to back up" in done.output
        assert list((tmp_path / "empty").iterdir()) == []
        must_run("restore", "-host", nodes[1].address, "-consistency", "all", "-database", "telegraf", source.path)
        assert answers(nodes[0]) == source.second
    finally:
        cluster.close()


def test_files_of_before_a_time_are_left_out(source: Source, single: Daemon, tmp_path: Path) -> None:
    done = must_run("backup", "-host", source.node.address, "-since", "2100-01-01T00:00:00Z", tmp_path / "since")
    assert "backing up rp=short since 2100-01-01 00:00:00 +0000 UTC" in done
    assert "restore an earlier backup first" in done
    assert not any(file["path"] for shard in manifest(tmp_path / "since", 0)["shards"] for file in shard["files"])
    refused = run("restore", "-host", single.address, tmp_path / "since")
    assert refused.code == 1
    assert "holds no points there" in refused.output
    # Where the directory holds the earlier files, they are part of the new backup.
    must_run("backup", "-host", source.node.address, "-since", "2100-01-01T00:00:00Z", source.path)
    assert all(file["path"] for shard in manifest(source.path, 2)["shards"] for file in shard["files"])
    must_run("restore", "-host", single.address, "-database", "telegraf", "-newdb", "since", source.path)
    assert answers(single, "since") == answers(source.node)


def test_a_backup_while_points_are_written(source: Source, single: Daemon, tmp_path: Path) -> None:
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        while not stop.is_set():
            number = len(written)
            time_ns = START_S * 10**9 + number
            if source.node.write(f"live v={number}i {time_ns}", db="telegraf", consistency="all").status == 204:
                written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: len(written) > 20, "points are written")
        before = len(written)
        must_run("backup", "-host", source.node.address, "-database", "telegraf", tmp_path / "live")
    finally:
        stop.set()
        writer.join()
    assert len(written) > before
    must_run("restore", "-host", single.address, "-database", "telegraf", "-newdb", "live", tmp_path / "live")
    found = {row[1] for row in single.rows("SELECT v FROM live", db="live")}
    assert set(range(before)) <= found
    assert found <= set(written)


def test_only_administrators_back_up_and_restore(source: Source, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        node = cluster.add(settings={"http": ["auth-enabled = true"]}).start()
        must_query(node, "CREATE USER root WITH PASSWORD 'secret' WITH ALL PRIVILEGES")
        must_query(node, "CREATE USER plain WITH PASSWORD 'secret'", u="root", p="secret")
        host = ("-host", node.address)
        for user, message in (
            ((), "give -username and -password"),
            (("-username", "root", "-password", "wrong"), "authorization failed"),
            (("-username", "plain", "-password", "secret"), "requires admin privilege"),
        ):
            for words in (("backup", *host, *user, tmp_path / "x"), ("restore", *host, *user, source.path)):
                done = run(*words)
                assert done.code == 1
                assert message in done.output
        assert not (tmp_path / "x").exists()
        must_run("restore", *host, "-username", "root", "-password", "secret", source.path)
        must_run("backup", *host, "-username", "root", "-password", "secret", tmp_path / "x")
        # Users came back with the privileges they had.
        text = "SELECT count(idle) FROM cpu"
        assert "error" not in node.query(text, db="telegraf", u="reader", p="x")["results"][0]
        assert "not authorized" in json.dumps(node.query("DROP SERIES FROM cpu", db="telegraf", u="reader", p="x"))
    finally:
        cluster.close()


def interrupted(program_class: type[Backup] | type[Restore], words: list[str], at: str, do: Callable[[], None]) -> None:
    """Run a backup or a restore, and do something at the first line of its report that begins with ``at``."""
    options = parse_backup(words, {}) if program_class is Backup else parse_restore(words, {})
    done: list[str] = []

    def say(line: str) -> None:
        if line.startswith(at) and not done:
            done.append(line)
            do()

    link = Link(options.server, say)
    try:
        program_class(options, link, say).run()
    finally:
        link.close()
        assert done, f"no line begins with {at}"


def test_a_restore_that_was_broken_off_is_completed_by_another(source: Source, single: Daemon) -> None:
    place = ["-host", single.address, "-database", "telegraf", "-newdb", "halves"]
    words = [*place, "-number", "1", str(source.path)]

    def break_off() -> None:
        raise InterruptedError("as if it was killed")

    with pytest.raises(InterruptedError):
        interrupted(Restore, words, "restoring db=halves rp=long", break_off)
    must_run("restore", *words)
    assert answers(single, "halves") == source.second


def test_a_backup_that_was_broken_off_leaves_nothing(source: Source, tmp_path: Path) -> None:
    def break_off() -> None:
        raise InterruptedError("as if it was killed")

    with pytest.raises(InterruptedError):
        interrupted(Backup, ["-host", source.node.address, str(tmp_path / "x")], "backing up metastore", break_off)
    assert list((tmp_path / "x").iterdir()) == []


def test_an_owner_that_lacks_points_and_one_that_dies(source: Source, tmp_path: Path) -> None:
    """The backup holds all that was acknowledged, whichever owner it copies, and although that one dies on the way."""
    first, second, asked = source.cluster.daemons
    must_query(asked, "CREATE DATABASE pair WITH REPLICATION 3")
    second.kill()
    text = "\n".join(f"m,host=h{n} v={n} {START_S * 10**9}" for n in range(50))
    assert asked.write(text, db="pair", consistency="quorum").status == 204
    # What was kept for the node that was away is lost, so that only a comparison can bring it the points.
    for node in (first, asked):
        node.kill()
        shutil.rmtree(node.root / "hh")
    for node in (second, first, asked):
        node.start(wait=False)
    for node in (second, first, asked):
        node.wait_ready()
    words = ["-host", asked.address, "-database", "pair", str(tmp_path / "x")]
    interrupted(Backup, words, "backing up db=pair", first.kill)
    shards = manifest(tmp_path / "x", 0)["shards"]
    assert sum(file["rows"] for shard in shards for file in shard["files"]) == 50
    assert all(shard["clean"] for shard in shards)
    # Two copies, one of them at the node that is gone: what there is, and a word about it.
    report = must_run("backup", "-host", asked.address, "-database", "telegraf", "-retention", "short", tmp_path / "y")
    assert "no majority of its owners answers" in report
    assert {shard["clean"] for shard in manifest(tmp_path / "y", 0)["shards"]} == {True, False}
    # One node of three is left: no majority of the meta nodes, and what it has is worth more than ever.
    second.kill()
    words = ["-host", asked.address, "-database", "pair", "-stale", str(tmp_path / "z")]
    report = must_run("backup", *words)
    assert f"metadata are taken as http://{asked.address} knows them" in report
    assert "; metadata of one node" in must_run("restore", "-list", tmp_path / "z")
    assert sum(file["rows"] for one in manifest(tmp_path / "z", 0)["shards"] for file in one["files"]) == 50
