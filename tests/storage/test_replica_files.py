"""Files of a shard that another replica takes: held while they are read, adopted whole or not at all."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dsdbd import fsio
from dsdbd.errors import CorruptData, ShardUnavailable
from dsdbd.storage import Store
from dsdbd.storage.compaction import Pace
from dsdbd.storage.tombstones import Tombstone
from tests.storage.crash_disk import CrashDisk
from tests.storage.storage_model import KEY, MAX_NS, MIN_NS, Model, Row, open_store, put, scan

END_NS = 1_000


def replica_of(store: Store):
    return store.make_replica(KEY, 0, END_NS)


def rows_of(turn: int) -> list[Row]:
    return [(f"h{n % 3}", turn * 10 + n, {"i": turn, "s": f"t{n}"}) for n in range(5)]


def copies_of(store: Store, place: Path) -> list[tuple[str, Path]]:
    """Copies of all files of the shard, in the directory of another one."""
    place.mkdir(parents=True, exist_ok=True)
    with replica_of(store).files() as held:
        found = [(one.measurement, place / f"{at}.tmp") for at, one in enumerate(held.files)]
        for (_, target), one in zip(found, held.files, strict=True):
            assert one.path.stat().st_size == one.size_bytes and one.rows > 0
            shutil.copyfile(one.path, target)
    return found


def test_files_are_whole_and_stay_while_they_are_held(tmp_path: Path) -> None:
    store = open_store(tmp_path, merge_files=2)
    model = Model()
    for turn in range(2):
        put(store, turn + 1, rows_of(turn))
        model.write(turn + 1, rows_of(turn))
        store.flush()
    put(store, 3, rows_of(2), measurement="other")
    replica = replica_of(store)
    with replica.files() as held:
        assert sorted(one.measurement for one in held.files) == ["m", "m", "other"]
        assert sum(one.rows for one in held.files) == 15 and held.tombstones == ()
        replica.shard.merge(full=True)
        assert all(one.path.exists() for one in held.files)
    assert [one.path.exists() for one in held.files if one.measurement == "m"] == [False, False]
    assert scan(replica.shard) == model.rows()
    store.close()


def test_adopted_files_count_by_version_and_survive_a_start(tmp_path: Path) -> None:
    source, target = open_store(tmp_path / "a"), open_store(tmp_path / "b", merge_files=2)
    model = Model()
    for store, version, rows in ((source, 5, rows_of(1)), (target, 4, rows_of(1)), (target, 9, rows_of(0))):
        put(store, version, rows)
        model.write(version, rows)
    replica = replica_of(target)
    for measurement, path in copies_of(source, replica.shard.directory):
        changes = replica.shard.changes
        replica.adopt(measurement, path)
        assert not path.exists() and replica.shard.changes > changes
    assert scan(replica.shard) == model.rows()
    target.flush()
    replica.shard.merge(full=True)
    assert scan(replica.shard) == model.rows()
    target.close()
    target = open_store(tmp_path / "b")
    assert scan(target.shard(1)) == model.rows() and target.problems() == []
    source.close()
    target.close()


@pytest.mark.parametrize("reopened", [False, True])
def test_deletions_hide_what_an_adopted_file_brings(tmp_path: Path, reopened: bool) -> None:
    source, target = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    put(source, 5, rows_of(0))
    put(source, 5, rows_of(0), measurement="erased")
    replica = replica_of(target)
    target.delete(KEY, [Tombstone("m", None, 0, 1, 7), Tombstone("erased", None, MIN_NS, MAX_NS, 6)])
    assert {one.version for one in replica.tombstones()} == {6, 7}
    files = copies_of(source, replica.shard.directory)
    for measurement, path in files:
        replica.adopt(measurement, path)
    # The deletion is remembered for the sake of the new file, and not for that of one that was not taken.
    assert replica.shard.forget_tombstones(100) == 1
    if reopened:
        target.close()
        target = open_store(tmp_path / "b")
        replica = replica_of(target)
    assert [row[1] for row in scan(replica.shard)] == [3, 4, 2] and scan(replica.shard, "erased") == []
    assert replica.shard.measurements() == ["m"] and replica.shard.field_types("erased") == {}
    assert replica.shard.purge(100) == 1 and replica.shard.forget_tombstones(100) == 0
    assert [row[1] for row in scan(replica.shard)] == [3, 4, 2]
    source.close()
    target.close()


def test_what_is_damaged_or_of_another_measurement_is_refused(tmp_path: Path) -> None:
    source, target = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    put(source, 1, rows_of(0))
    replica = replica_of(target)
    ((_, path),) = copies_of(source, replica.shard.directory)
    with pytest.raises(CorruptData, match="is of measurement 'm'"):
        replica.adopt("n", path)
    whole = path.read_bytes()
    refused = 0
    for at in range(4, len(whole) - 4, 97):
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 0xFF,)) + whole[at + 1 :])
        try:
            replica.adopt("m", path)
        except CorruptData:
            refused += 1
            assert path.exists()
        else:
            # What Parquet keeps for others beside the checked parts may differ, rows may not.
            assert scan(replica.shard) == scan(source.shard(1))
            path.write_bytes(whole)
    assert refused > 5
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptData):
        replica.adopt("m", path)
    path.write_bytes(whole)
    target.retain(lambda key: False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole)
    with pytest.raises(ShardUnavailable):
        replica.adopt("m", path)
    source.close()
    target.close()


def failing_behind_renames(real: Callable[[Path], None]) -> Callable[[Path], None]:
    """Of directories only: what a rename put there is there, but nobody can say for how long."""

    def call(path: Path) -> None:
        if any(one.suffix == ".parquet" for one in path.iterdir()):
            raise OSError(errno.EMFILE, "Too many open files")
        real(path)

    return call


def test_a_file_that_could_not_be_made_known_does_not_bring_back_what_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = open_store(tmp_path / "a"), open_store(tmp_path / "b", flush_age_s=1e9)
    put(source, 5, rows_of(0))
    put(target, 6, rows_of(1))
    replica = replica_of(target)
    ((_, path),) = copies_of(source, replica.shard.directory)
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "fsync_dir", failing_behind_renames(fsio.fsync_dir))
        with pytest.raises(OSError, match="Too many"):
            replica.adopt("m", path)
        with pytest.raises(OSError, match="Too many"):
            replica.shard.flush()
    assert path.exists() and list(replica.shard.directory.rglob("*.parquet")) == []
    path.unlink()
    replica.shard.delete(Tombstone("m", None, MIN_NS, MAX_NS, 7))
    target.flush()
    assert replica.shard.forget_tombstones(8) == 0
    assert list(replica.shard.directory.rglob("*.parquet")) == []
    source.close()
    target.close()


@pytest.mark.parametrize("deleted", [False, True])
def test_a_merge_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deleted: bool) -> None:
    store = open_store(tmp_path, merge_files=9)
    for turn in range(2):
        put(store, turn + 1, rows_of(turn))
        store.flush()
    shard = replica_of(store).shard
    before, files = scan(shard), sorted(shard.directory.rglob("*.parquet"))

    def failing(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def delete_once(size_bytes: int) -> None:
        # While the merge goes on: it has to note what it did not apply.
        if deleted and not shard.tombstones:
            shard.delete(Tombstone("m", None, 0, 1, 7))
            patch.setattr(fsio, "write_atomic", failing)

    with monkeypatch.context() as patch:
        if not deleted:
            patch.setattr(fsio, "fsync_dir", failing_behind_renames(fsio.fsync_dir))
        with pytest.raises(OSError, match=r"Too many|No space"):
            shard.merge(Pace(delete_once, lambda: False), full=True)
    assert sorted(shard.directory.rglob("*.parquet")) == files
    assert len(scan(shard)) == len(before) - (2 if deleted else 0)
    assert shard.merge(full=True) == 1
    assert len(list(shard.directory.rglob("*.parquet"))) == 1
    store.close()


def test_deletions_are_kept_while_a_file_lies_there_that_is_no_segment(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put(store, 5, rows_of(0))
    store.flush()
    shard = replica_of(store).shard
    (path,) = shard.directory.rglob("*.parquet")
    strange = path.with_name("00000009.parquet")
    shutil.copyfile(path, strange)
    shard.delete(Tombstone("m", None, MIN_NS, MAX_NS, 7))
    assert not path.exists()
    assert shard.forget_tombstones(8) == 1
    strange.unlink()
    assert shard.forget_tombstones(8) == 0
    store.close()


@pytest.mark.parametrize("deleted", [False, True])
def test_a_crash_of_adopting_leaves_all_of_the_file_or_nothing(tmp_path: Path, deleted: bool) -> None:
    source = open_store(tmp_path / "a")
    put(source, 5, rows_of(0))
    home = tmp_path / "b"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        disk = CrashDisk(home, patch)
        target = open_store(home)
        put(target, 1, [("z", 1, {"f": 1.0})])
        if deleted:
            target.delete(KEY, [Tombstone("m", None, 0, 1, 7)])
        target.flush()
        replica = replica_of(target)
        ((_, path),) = copies_of(source, replica.shard.directory)
        before = scan(replica.shard)
        copies: list[Path] = []

        def crashed(label: str) -> None:
            for take in (disk.after_kill, disk.after_power_cut):
                copies.append(tmp_path / f"copy{len(copies)}")
                take(copies[-1])

        disk.crashed = crashed
        replica.adopt("m", path)
        disk.crashed = lambda label: None
        after = scan(replica.shard)
        target.close()
        disk.close()
    found = []
    for copy in copies:
        opened = open_store(copy)
        found.append(scan(opened.shard(1)))
        assert opened.problems() == []
        opened.close()
    assert all(one in (before, after) for one in found) and found[-1] == after and found[0] == before
    assert len(after) > len(before) and len(copies) > 4
    source.close()
