"""What a kill leaves at every file operation of writing out and merging: copies of the directory, each opened anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsdbd import fsio
from dsdbd.storage import Shard, StoreSettings
from tests.storage.storage_model import KEY, Model, Row, make_batch, scan

CALLS: dict[str, Any] = {"fsync": os, "rename": Path, "unlink": Path, "mkdir": Path, "fsync_dir": fsio, "open": os}


def rows_of(turn: int) -> list[Row]:
    """Some new rows, and some that replace a field of earlier ones."""
    new = [(f"h{n % 3}", turn * 100 + n, {"i": n, "s": f"t{turn}"}) for n in range(6)]
    return [*new, *((f"h{n % 3}", (turn - 1) * 100 + n, {"i": -turn}) for n in range(3) if turn)]


def put(shard: Shard, model: Model, turn: int) -> None:
    batch = make_batch(turn + 1, rows_of(turn))
    shard.check_types(batch)
    shard.insert(batch, 1, 0.0)
    model.write(turn + 1, rows_of(turn))


class Copies:
    """Copies of a directory, one before and one after each file operation."""

    def __init__(self, source: Path, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.source = source
        self.place = place
        self.taken: list[tuple[str, Path]] = []
        self.copying = False
        for name, owner in CALLS.items():
            patch.setattr(owner, name, self.watched(name, getattr(owner, name)))

    def watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.take(f"before {name}")
            result = original(*arguments, **options)
            self.take(f"after {name}")
            return result

        return call

    def take(self, label: str) -> None:
        if self.copying:
            return
        self.copying = True
        target = self.place / str(len(self.taken))
        if self.source.exists():
            shutil.copytree(self.source, target)
        else:
            target.mkdir(parents=True)
        self.taken.append((label, target))
        self.copying = False


def found_in(directory: Path) -> list[tuple]:
    notes: list[str] = []
    shard = Shard(KEY, directory, StoreSettings(merge_files=2), notes.append)
    rows = scan(shard)
    assert notes == []
    names = [path.name for path in directory.rglob("*") if path.is_file()]
    assert not any(name.endswith(".parquet" + fsio.TEMPORARY_SUFFIX) for name in names), "left-overs are removed"
    return rows


@pytest.mark.slow
def test_a_kill_at_any_file_operation_leaves_a_shard_that_opens(tmp_path: Path) -> None:
    home = tmp_path / "shard"
    shard = Shard(KEY, home, StoreSettings(merge_files=2), pytest.fail)
    model = Model()
    before: list[tuple] = []
    merges = 0
    for turn in range(6):
        put(shard, model, turn)
        with pytest.MonkeyPatch.context() as patch:
            flushing = Copies(home, tmp_path / f"flush{turn}", patch)
            shard.flush()
        assert {label.split()[1] for label, _ in flushing.taken} >= {"fsync", "rename", "fsync_dir"}
        states = [found_in(copy) for _, copy in flushing.taken]
        # What is not in a file is still in the log; a file shows all at once.
        assert all(state in (before, model.rows()) for state in states)
        assert states[-1] == model.rows()
        with pytest.MonkeyPatch.context() as patch:
            merging = Copies(home, tmp_path / f"merge{turn}", patch)
            merges += shard.merge()
        for label, copy in merging.taken:
            assert found_in(copy) == model.rows(), label
        before = model.rows()
    assert merges >= 3 and scan(shard) == before
    assert {label.split()[1] for label, _ in merging.taken} >= {"fsync", "rename", "fsync_dir", "unlink"}
    assert len(list(home.rglob("*.parquet"))) < 6


@pytest.mark.slow
def test_a_merge_that_the_disk_refuses_changes_nothing(tmp_path: Path) -> None:
    """Every file operation of a merge fails once; the shard answers as before and merges the next time."""
    shard = Shard(KEY, tmp_path / "shard", StoreSettings(merge_files=2), pytest.fail)
    model = Model()
    for turn in range(2):
        put(shard, model, turn)
        shard.flush()
    for name, owner in (("fsync", os), ("rename", Path), ("open", os)):
        with pytest.MonkeyPatch.context() as patch:

            def refuse(*arguments: Any, **options: Any) -> Any:
                raise OSError(28, "No space left on device")

            patch.setattr(owner, name, refuse)
            with pytest.raises(OSError, match="No space"):
                shard.merge()
        assert scan(shard) == model.rows()
        assert len(list((tmp_path / "shard").rglob("*.parquet*"))) == 2, name
    assert shard.merge() == 1 and scan(shard) == model.rows()
    assert len(list((tmp_path / "shard").rglob("*.parquet"))) == 1
