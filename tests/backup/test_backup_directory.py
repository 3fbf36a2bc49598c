"""The directory of backups: manifests, what a broken-off backup leaves, files that are not as they were."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from dsdb_cli.errors import ShellError
from dsdbd import fsio
from dsdbd.backup.directory import PENDING, BackupDirectory
from dsdbd.cluster.archive import (
    FORMAT,
    DatabaseEntry,
    FileRecord,
    Manifest,
    Scope,
    ShardRecord,
    UserEntry,
    add_digests,
    chosen_shards,
    decode_manifest,
    differing,
    encode_manifest,
    number_of,
)
from dsdbd.errors import CorruptData, NotFound

if TYPE_CHECKING:
    from pathlib import Path


def shard(number: int, database: str = "db", policy: str = "rp", files: list[FileRecord] | None = None) -> ShardRecord:
    tombstones = msgspec.Raw(b'{"format":1,"tombstones":[]}')
    return ShardRecord(number, database, policy, 0, 10, 2, "u", True, files or [], tombstones, {"cpu": "00ff"})


def manifest(*shards: ShardRecord) -> Manifest:
    return Manifest(FORMAT, "c" * 32, "1.0", 5, Scope(), None, [], [], list(shards))


def test_a_manifest_comes_back_as_it_was() -> None:
    written = manifest(shard(1), shard(2))
    read = decode_manifest(encode_manifest(written))
    assert [one.id for one in read.shards] == [1, 2]
    assert read.shards[0].digests == {"cpu": "00ff"}
    assert msgspec.json.decode(bytes(read.shards[0].tombstones)) == {"format": 1, "tombstones": []}
    # JSON that people read: one thing a line.
    assert encode_manifest(written).count(b"\n") > 20


@pytest.mark.parametrize("at", ["reader", "write", "60", "1.0", "c" * 32, "sha256", "00ff"])
def test_a_manifest_that_changed_by_one_byte_is_refused(at: str) -> None:
    """Also where it is still JSON with all its keys: a password's hash, a privilege, a duration, a file's digest."""
    user = msgspec.convert({"name": "reader", "hash": "h", "admin": False, "privileges": {"db": 2}}, UserEntry)
    policy = {"name": "write", "duration_ns": 60, "shard_group_duration_ns": 60, "replica_n": 1}
    entry = {"name": "db", "policies": [{**policy, "replica_auto": False, "default": True}]}
    files = [FileRecord("cpu", "1.parquet", path, 7, 1, "") for path in ("", "x/1.parquet")]
    written = msgspec.structs.replace(
        manifest(shard(1, files=files)), users=[user], databases=[msgspec.convert(entry, DatabaseEntry)]
    )
    content = encode_manifest(written)
    assert decode_manifest(content).shards[0].files == files
    place = content.rindex(at.encode()) + (len(at) if at == "sha256" else 0)
    # One bit: another letter or digit. Behind the word "sha256" it is in the digest itself.
    place += content[place:].index(b": ") + 4 if at == "sha256" else 0
    changed = bytearray(content)
    changed[place] ^= 1
    with pytest.raises(CorruptData):
        decode_manifest(bytes(changed))


def test_a_manifest_without_a_digest_of_itself_is_read() -> None:
    old = msgspec.json.decode(encode_manifest(manifest(shard(1))))
    del old["sha256"]
    assert decode_manifest(msgspec.json.encode(old)).shards[0].id == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b"{}", "format"),
        (b'{"format": 2}', "format 2"),
        (b'{"format": 1}', "cluster_id"),
        (b"\xff", "malformed"),
    ],
)
def test_what_is_no_manifest(content: bytes, message: str) -> None:
    with pytest.raises(CorruptData, match=message):
        decode_manifest(content)


def test_a_key_the_format_does_not_know_is_refused() -> None:
    content = encode_manifest(manifest()).replace(b'"since_ns"', b'"until_ns": 0, "since_ns"')
    with pytest.raises(CorruptData, match="until_ns"):
        decode_manifest(content)


@pytest.mark.parametrize(
    ("name", "number"), [("meta.00", 0), ("meta.117", 117), ("meta.0", None), ("meta.00.tmp", None)]
)
def test_names_of_manifests(name: str, number: int | None) -> None:
    assert number_of(name) == number


def test_backups_are_numbered_and_the_manifest_is_private(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path / "new")
    assert directory.numbers() == []
    (tmp_path / "new").mkdir()
    with pytest.raises(NotFound, match="holds no backup"):
        directory.newest()
    assert directory.begin() == 0
    directory.finish(0, manifest())
    assert directory.begin() == 1
    assert directory.newest() == 0
    assert (tmp_path / "new" / "meta.00").stat().st_mode & 0o077 == 0
    with pytest.raises(NotFound, match=r"meta\.07"):
        directory.read(7)


def test_what_a_broken_off_backup_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path)
    directory.begin()
    kept = tmp_path / directory.shard_directory(shard(3), 0)
    left = [tmp_path / directory.shard_directory(shard(3), 1), tmp_path / (kept.name + PENDING)]
    strange = tmp_path / "notes"
    for path in (kept, *left, strange):
        (path / "cpu").mkdir(parents=True)
    directory.finish(0, manifest())
    assert directory.begin() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, strange.name, "meta.00"])


def test_a_discarded_backup_has_no_manifest_whatever_becomes_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = BackupDirectory(tmp_path)
    number = directory.begin()
    copied = tmp_path / directory.shard_directory(shard(3), number)
    (copied / "cpu").mkdir(parents=True)
    directory.finish(number, manifest(shard(3)))

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fsio, "remove_tree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            directory.discard(number)
    assert directory.numbers() == [] and copied.exists()
    assert directory.begin() == number and not copied.exists()


def test_one_backup_at_a_time_is_written(tmp_path: Path) -> None:
    first, second = BackupDirectory(tmp_path / "new"), BackupDirectory(tmp_path / "new")
    with first.locked():
        # Twice: being refused does not end the lock of the other.
        for _ in range(2):
            with pytest.raises(ShellError, match="another backup is being written"), second.locked():
                pytest.fail("two hold the lock")
    with second.locked():
        assert (tmp_path / "new").is_dir()


def test_long_and_strange_names_make_short_plain_directories(tmp_path: Path) -> None:
    name = BackupDirectory(tmp_path).shard_directory(shard(12, "a/b" + "ö" * 100, "../rp" + "x" * 200), 4)
    assert name.endswith(".00012.04")
    assert len(name) < 240
    assert "/" not in name


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path)
    path = tmp_path / "a.parquet"
    path.write_bytes(b"content")
    good = FileRecord("cpu", "a.parquet", "a.parquet", 7, 1, hashlib.sha256(b"content").hexdigest())
    directory.check(good)
    path.write_bytes(b"contenT")
    with pytest.raises(CorruptData, match="is damaged"):
        directory.check(good)
    path.write_bytes(b"conten")
    with pytest.raises(CorruptData, match="has 6 bytes"):
        directory.check(good)
    path.unlink()
    with pytest.raises(CorruptData, match="is missing"):
        directory.check(good)


def test_digests_of_shards_add_up() -> None:
    assert add_digests([{"a": "ffffffffffffffff", "b": "01"}, {"a": "02"}, {"c": "ff"}]) == {
        "a": "0000000000000001",
        "b": "0000000000000001",
        "c": "00000000000000ff",
    }
    # What adds up to nothing is as if it were not there.
    assert add_digests([{"a": "ffffffffffffffff"}, {"a": "01"}]) == {}
    assert differing({"a": "1", "b": "2"}, {"b": "2", "c": "3"}) == ["a", "c"]


def test_a_part_of_a_backup_is_chosen_by_name() -> None:
    held = msgspec.structs.replace(
        manifest(shard(1), shard(2, policy="other"), shard(3, "db2")),
        databases=msgspec.convert(
            [
                {"name": "db", "policies": [_policy("rp"), _policy("other")]},
                {"name": "db2", "policies": [_policy("rp")]},
            ],
            type=list[DatabaseEntry],
        ),
    )

    def ids(scope: Scope) -> list[int]:
        return [one.id for one in chosen_shards(held, scope)]

    assert ids(Scope()) == [1, 2, 3]
    assert ids(Scope("db")) == [1, 2]
    assert ids(Scope("db", "other")) == [2]
    assert ids(Scope("db", "rp", 1)) == [1]
    with pytest.raises(NotFound, match='no database "x"; it holds db, db2'):
        ids(Scope("x"))
    with pytest.raises(NotFound, match='no retention policy "x"'):
        ids(Scope("db", "x"))
    with pytest.raises(NotFound, match="no shard 9 there; it holds 1, 2, 3"):
        ids(Scope("db", "rp", 9))


def _policy(name: str) -> dict[str, object]:
    terms = {"duration_ns": 0, "shard_group_duration_ns": 1, "replica_n": 1, "replica_auto": False, "default": False}
    return {"name": name, **terms}
