"""Removing old backups: which may go, and that no file goes that a newer one names, wherever a crash comes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from dsdbd.backup.directory import BackupDirectory
from dsdbd.backup.flags import parse_restore
from dsdbd.backup.keeping import outdated
from dsdbd.backup.look import chosen
from dsdbd.cluster.archive import FORMAT, FileRecord, Manifest, Scope, ShardRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERYTHING = Scope()


def manifest(*paths: str, scope: Scope = EVERYTHING) -> Manifest:
    files = [FileRecord("cpu", Path(path).name, path, 1, 1, "") for path in paths]
    tombstones = msgspec.Raw(b'{"format":1,"tombstones":[]}')
    shards = [ShardRecord(1, "db", "rp", 0, 10, 2, "u", True, files, tombstones, None)]
    return Manifest(FORMAT, "c" * 32, "1.0", 5, scope, None, [], [], shards)


def test_the_newest_of_the_same_scope_are_kept() -> None:
    held = {number: manifest("f") for number in range(4)}
    assert outdated(held, 1) == [0, 1, 2]
    assert outdated(held, 3) == [0]
    assert outdated(held, 4) == outdated(held, 9) == outdated({}, 1) == []
    other = {**held, 2: manifest("f", scope=Scope("db"))}
    assert outdated(other, 1) == [0, 1]
    assert outdated({**other, 5: manifest("f", scope=Scope("db"))}, 1) == [2]


def test_a_backup_that_leaves_files_out_replaces_none() -> None:
    held = {0: manifest("f"), 1: manifest("f", ""), 2: manifest("f", "")}
    assert outdated(held, 1) == []
    assert outdated({**held, 3: manifest("f")}, 1) == [0, 1, 2]
    assert outdated({**held, 3: manifest("f")}, 2) == []


def test_a_newest_backup_of_a_part_is_not_taken_for_one_of_everything(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path)
    for number, scope in enumerate((EVERYTHING, EVERYTHING, Scope("db", "rp", 1))):
        assert directory.begin() == number
        directory.finish(number, manifest("f", scope=scope))
    directory.manifest_path(1).write_bytes(b"damaged")
    said: list[str] = []
    options = parse_restore([str(tmp_path)], {})
    assert options is not None
    assert chosen(options, said.append)[1] == 2
    assert said[1] == "meta.02 is a backup of shard 1 of db.rp only; the newest of everything is meta.00, -number 0"
    said.clear()
    options = parse_restore(["-number", "0", str(tmp_path)], {})
    assert options is not None
    assert chosen(options, said.append)[1] == 0
    assert said == [f"Using metastore snapshot: {tmp_path / 'meta.00'}"]


FILES = {
    0: ("db.rp.00001.00/cpu/a.parquet", "db.rp.00001.00/cpu/b.parquet"),
    1: ("db.rp.00001.00/cpu/b.parquet", "db.rp.00001.01/cpu/c.parquet"),
    2: ("db.rp.00001.01/cpu/c.parquet", "db.rp.00001.02/cpu/d.parquet"),
}


def fill(directory: BackupDirectory) -> None:
    for number, paths in FILES.items():
        assert directory.begin() == number
        for path in paths:
            (directory.path / path).parent.mkdir(parents=True, exist_ok=True)
            (directory.path / path).write_bytes(b"x")
        directory.finish(number, manifest(*paths))


def files_of(root: Path) -> Sequence[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_files_that_a_newer_backup_names_stay(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path)
    fill(directory)
    assert directory.keep(2) == [0]
    assert files_of(tmp_path) == sorted([FILES[1][0], *FILES[2], "meta.01", "meta.02"])
    assert directory.keep(1) == [1]
    assert files_of(tmp_path) == sorted([*FILES[2], "meta.02"])
    assert not (tmp_path / "db.rp.00001.00").exists(), "no empty directory is left"
    assert directory.begin() == 3


def test_removing_goes_on_where_it_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each file that goes: what is still a backup has all its files, and the next one removes the rest."""
    whole, step, unlink = True, 0, Path.unlink
    while whole:
        root = tmp_path / str(step)
        directory = BackupDirectory(root)
        root.mkdir()
        fill(directory)
        left = [step]

        def broken(path: Path, missing_ok: bool = False, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", broken)
            try:
                directory.keep(1)
                whole = False
            except KeyboardInterrupt:
                step += 1
        for number in directory.numbers():
            assert set(FILES[number]) <= set(files_of(root)), step
        assert directory.begin() == 3
        assert files_of(root) == sorted([*FILES[2], "meta.02"])
    assert step >= 4


def test_nothing_outside_of_the_directory_is_removed(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path / "backups")
    strange = ("../mine", "notes/a", "db.rp.00001.00/../../mine")
    (tmp_path / "backups" / "notes").mkdir(parents=True)
    for path in (tmp_path / "mine", tmp_path / "backups" / "notes" / "a"):
        path.write_bytes(b"x")
    directory.finish(0, manifest(*strange))
    directory.finish(1, manifest())
    assert directory.keep(1) == [0]
    assert (tmp_path / "mine").exists() and (tmp_path / "backups" / "notes" / "a").exists()
