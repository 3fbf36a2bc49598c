"""Writes, deletions and all housekeeping: what a kill or a power cut leaves after every file operation is right."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsdbd.model.predicate import TagEquals
from dsdbd.storage import Shard, Store
from dsdbd.storage.tombstones import Tombstone
from tests.storage.crash_disk import CrashDisk
from tests.storage.storage_model import KEY, MAX_NS, MIN_NS, open_store, put, scan
from tests.storage.test_store_deletes import DeletingModel

pytestmark = pytest.mark.slow

SETTINGS = {"merge_files": 2, "wal_segment_bytes": 2_000}
HOSTS = ("a", "b", "c")
HOUSEKEEPING: dict[str, Callable[[Shard], object]] = {
    "flush": lambda shard: None,
    "merge": lambda shard: shard.merge(),
    "purge": lambda shard: shard.purge(1 << 62),
    # The log may bring back everything: nothing is past.
    "forget": lambda shard: shard.forget_tombstones(0),
}


def steps(chance: random.Random, store: Store, model: DeletingModel, count: int) -> Iterator[tuple[str, Callable]]:
    """What is done, one after the other; the model knows of a write or a deletion before it is acknowledged."""
    for version in range(10, 10 + count):
        name = chance.choice(["write", "write", "write", "delete", *HOUSEKEEPING, "flush"])
        shard = store.shard(KEY.shard_id)
        if name == "write" or shard is None:
            times = chance.sample(range(12), 4)
            rows = [(chance.choice(HOSTS), at, {"i": version, "s": f"v{version}"}) for at in times]
            model.writes.append((version, rows))
            yield "write", lambda version=version, rows=rows: put(store, version, rows)
        elif name == "delete":
            predicate = chance.choice([None, TagEquals("host", chance.choice(HOSTS))])
            low, high = chance.choice([(MIN_NS, MAX_NS), (MIN_NS, 5), (3, 8)])
            one = Tombstone("m", predicate, low, high, version)
            model.deletions.append(one)
            yield "delete", lambda one=one: store.delete(KEY, [one])
        elif name == "flush":
            yield name, store.flush
        else:
            yield name, lambda name=name, shard=shard: HOUSEKEEPING[name](shard)


def found_in(image: Path) -> list[tuple]:
    store = open_store(image, **SETTINGS)
    try:
        assert store.problems() == []
        return scan(store.shard(KEY.shard_id))
    finally:
        store.close()
        shutil.rmtree(image)


def live(place: Path, crash: str, seed: int, *, hold_back: bool = False) -> set[str]:
    """Work on a store and look at what every crash would leave; returns the file operations there were."""
    home = place / "home"
    home.mkdir()
    model = DeletingModel()
    images: list[tuple[str, Path]] = []
    with pytest.MonkeyPatch.context() as patch:
        disk = CrashDisk(home, patch)
        leave = disk.after_kill if crash == "kill" else disk.after_power_cut

        def take(label: str) -> None:
            images.append((label, place / str(len(images))))
            leave(images[-1][1])

        store = open_store(home, **SETTINGS)
        disk.hold_back = hold_back
        try:
            before = model.settle().rows()
            for name, act in steps(random.Random(seed), store, model, 30):
                after = model.settle().rows()
                disk.crashed = lambda call, name=name: take(f"{name}, after {call}")
                act()
                disk.crashed = lambda call: None
                assert scan(store.shard(KEY.shard_id)) == after
                take(f"{name}, acknowledged")
                for label, image in images[:-1]:
                    assert found_in(image) in (before, after), label
                assert found_in(images[-1][1]) == after, images[-1][0]
                images.clear()
                before = after
        finally:
            store.close()
            disk.close()
    return disk.calls


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("crash", ["kill", "power cut"])
def test_a_crash_after_any_file_operation_loses_nothing_acknowledged(tmp_path: Path, crash: str, seed: int) -> None:
    calls = live(tmp_path, crash, seed)
    assert calls == {"fsync", "fdatasync", "pwrite", "rename", "unlink", "mkdir"}


def test_a_disk_that_only_says_it_has_synced_is_found_out(tmp_path: Path) -> None:
    """The judge of the tests above is worth something: without syncs a power cut costs what was acknowledged."""
    with pytest.raises(AssertionError, match="acknowledged"):
        live(tmp_path, "power cut", 0, hold_back=True)
