"""Taking a backup from a node that answers what a test says: shards that go meanwhile, files that are reused."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from dsdbd.backup import program
from dsdbd.backup.flags import parse_backup
from dsdbd.backup.link import Link, Refused
from dsdbd.backup.take import Backup
from dsdbd.cluster.segment_messages import new_digest
from tests.storage.storage_model import KEY, open_store, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DROPPED = 7


class Node:
    """Shard 1 has one file; shard 7 was there when the shards were listed. ``requests``: method and path of each."""

    def __init__(self, content: bytes, rows: int) -> None:
        self.content = content
        self.rows = rows
        self.modified_ns = 1_000
        self.requests: list[str] = []

    def answer(self, method: str, path: str) -> tuple[int, bytes]:
        if path == "/ping":
            return 204, b""
        self.requests.append(f"{method} {path}")
        place = {"database": "db", "policy": "autogen", "start_ns": 0, "end_ns": 1_000}
        if path == "/cluster/backup":
            shards = [{"id": number, **place} for number in (1, DROPPED)]
            there = {"databases": [], "users": [], "shards": shards}
            return 200, json.dumps({"cluster_id": "c", "version": "1", "taken_ns": 5, **there}).encode()
        if path == f"/cluster/backup/shards/{DROPPED}":
            return 404, json.dumps({"error": "shard not found: 7", "code": "not_found"}).encode()
        if method == "GET":
            digest = new_digest()
            digest.update(self.content)
            return 200, self.content + digest.digest()
        if method == "DELETE":
            return 204, b""
        name = {"measurement": "m", "name": "00000001.parquet"}
        file = {**name, "size_bytes": len(self.content), "rows": self.rows, "modified_ns": self.modified_ns}
        opened = {"owner": 1, "uuid": "u", "token": "t", "clean": True, "files": [file], "digests": None}
        return 200, json.dumps({**opened, "tombstones": {"format": 1, "tombstones": []}}).encode()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    store = open_store(tmp_path / "store")
    put(store, 1, [("a", 1, {"i": 1}), ("b", 2, {"i": 2})], KEY)
    store.flush()
    shard = store.shard(1)
    assert shard is not None
    (path,) = shard.directory.rglob("*.parquet")
    content = path.read_bytes()
    store.close()
    return Node(content, 2)


@pytest.fixture
def address(node: Node) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, body = node.answer(self.command, urlsplit(self.path).path)
            self.send_response(status)
            self.send_header("X-DSDB-Version", "1")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names are those of the library

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def back_up(address: str, *words: str | Path) -> list[str]:
    options = parse_backup(["-host", address, *map(str, words)], {})
    assert options is not None
    said: list[str] = []
    link = Link(options.server, said.append)
    try:
        Backup(options, link, said.append).run()
    finally:
        link.close()
    return said


def test_a_shard_that_is_dropped_meanwhile_is_left_out(address: str, tmp_path: Path) -> None:
    said = back_up(address, tmp_path / "kept")
    assert "shard 7 was dropped meanwhile; left out" in said
    assert any(line.startswith("verified 1 shards: 1 files, 2 rows") for line in said)
    with pytest.raises(Refused, match="shard not found: 7"):
        back_up(address, "-shard", "7", tmp_path / "other")


def test_a_file_is_reused_when_it_is_the_same_and_checked_behind_the_hold(
    address: str, node: Node, tmp_path: Path
) -> None:
    file = "GET /cluster/backup/shards/1/files/0"
    kept = tmp_path / "kept"
    back_up(address, kept)
    assert node.requests.count(file) == 1
    back_up(address, kept)
    assert node.requests.count(file) == 1
    # One of the same name, size and rows that was written later.
    node.modified_ns += 1
    assert any("copied now 1 files" in line for line in back_up(address, kept))
    assert node.requests.count(file) == 2
    # A copy that is damaged is found, and taken again.
    (copy,) = kept.glob("*.02/m/*.parquet")
    copy.write_bytes(bytes(len(node.content)))
    node.requests.clear()
    assert any("copying shard 1 again" in line for line in back_up(address, kept))
    shard = "/cluster/backup/shards/1"
    assert [one for one in node.requests if shard in one] == [
        f"POST {shard}",
        f"DELETE {shard}",
        f"POST {shard}",
        file,
        f"DELETE {shard}",
    ]


def at_a_segment(error: BaseException) -> Callable[[int], None]:
    """A sync that fails for segment files and does nothing for all else."""

    def sync(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().suffix == ".parquet":
            raise error

    return sync


def test_a_full_disk_is_named_and_nothing_is_left(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    back_up(address, kept)
    before = sorted(kept.rglob("*"))
    monkeypatch.setattr(os, "fsync", at_a_segment(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    assert program.run(["backup", "-host", address, "-full", str(kept)], {}) == 1
    report = capsys.readouterr().err.splitlines()
    assert report[-2].endswith("no backup was made: what was copied is removed, earlier backups are as they were")
    assert report[-1] == f"backup: {kept}/db.autogen.00001.01.pending/m/00000001.parquet: No space left on device"
    assert sorted(kept.rglob("*")) == before


def test_what_is_copied_stays_within_the_rate(
    address: str, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    back_up(address, "-rate", "64k", tmp_path / "slow")
    # A burst of a tenth of a second goes at once.
    assert sum(slept) == pytest.approx(max(0, len(node.content) / 65536 - 0.1), abs=0.05)
    slept.clear()
    back_up(address, "-rate", "0", tmp_path / "fast")
    assert sum(slept) == 0


def test_older_backups_go_when_the_new_one_is_complete(address: str, node: Node, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for _ in range(2):
        back_up(address, kept)
        node.modified_ns += 1
    said = back_up(address, "-keep", "2", kept)
    assert "removed older backups but the newest 2: meta.00" in said
    assert sorted(path.name for path in kept.iterdir()) == [
        "db.autogen.00001.01",
        "db.autogen.00001.02",
        "meta.01",
        "meta.02",
    ]
    # What an older one copied and the new one names stays.
    said = back_up(address, "-keep", "1", kept)
    assert "removed older backups but the newest 1: meta.01, meta.02" in said
    assert sorted(path.name for path in kept.iterdir()) == ["db.autogen.00001.02", "meta.03"]


def test_an_interrupted_run_says_so(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", at_a_segment(KeyboardInterrupt()))
    assert program.run(["backup", "-host", address, str(tmp_path / "x")], {}) == program.EXIT_INTERRUPTED
    report = capsys.readouterr().err.splitlines()
    assert report[-2].endswith("no backup was made: what was copied is removed, earlier backups are as they were")
    assert report[-1] == "backup: interrupted"
    assert list((tmp_path / "x").iterdir()) == []
