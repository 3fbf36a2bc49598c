"""Builds that are broken on purpose: the daemon with parts of it replaced at its start. Checkers must catch each.

``python -m tests.fault.broken NAME[,NAME…] -config …`` starts such a daemon. Nothing in the product knows of it.
"""

from __future__ import annotations

import asyncio
import importlib
import mmap
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

_LEAK_BYTES, _LEAKED_FILES, _LEAKS = 8 << 20, 5, 250
_PAUSE_S = 2.0


def _sync_nothing() -> None:
    """What is written reaches the disk when the kernel likes. The functions are taken by name when modules load."""
    os.fsync = os.fdatasync = lambda _descriptor: None  # type: ignore[assignment]


def _forget_kept_writes() -> None:
    """Handoff in memory: what was kept for other owners is gone after a restart."""
    from dsdbd.storage.handoff_queue import HandoffQueue

    original = HandoffQueue.__init__

    def begin(self: HandoffQueue, directory: Any, **options: Any) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        original(self, directory, **options)

    HandoffQueue.__init__ = begin  # type: ignore[method-assign]


def _compare_nothing() -> None:
    """No anti-entropy: what handoff loses stays lost."""
    try:
        module = importlib.import_module("dsdbd.cluster.repair")
    except ModuleNotFoundError:
        return

    async def run(self: Any) -> None:
        await asyncio.Event().wait()

    module.Repair.run = run


def _replace_submit(change: Callable[[Any], Any]) -> None:
    from dsdbd.storage.store import Store

    original = Store.submit

    def submit(self: Store, key: Any, batch: Any, encoded: bytes | None = None) -> Any:
        changed = change(batch)
        return original(self, key, changed, encoded if changed is batch else None)

    Store.submit = submit  # type: ignore[method-assign]


def _version_by_arrival() -> None:
    """Each owner lets the write win that reaches it last."""

    def arrive(batch: Any) -> Any:
        points = tuple(replace(one, versions=None) for one in batch.points)
        return replace(batch, version=time.time_ns(), points=points)

    _replace_submit(arrive)


def _keep_the_oldest() -> None:
    """Of the values of a cell the first that was written wins, on all owners alike."""

    def turn(batch: Any) -> Any:
        if not any(one.measurement == "shared" for one in batch.points):
            return batch
        oldest = np.int64((1 << 62) - batch.version // 2)
        points = tuple(
            replace(one, versions=np.full(len(one.time_ns), oldest)) if one.measurement == "shared" else one
            for one in batch.points
        )
        return replace(batch, points=points)

    _replace_submit(turn)


def _invent() -> None:
    """Now and then a value has a bit more than was sent."""
    written = 0

    def change(batch: Any) -> Any:
        nonlocal written
        written += 1
        if written % 20:
            return batch
        points = []
        for one in batch.points:
            fields = dict(one.fields)
            if one.measurement == "unique":
                column = fields["value"]
                fields["value"] = replace(column, values=np.asarray(column.values) | (1 << 35))
            points.append(replace(one, fields=fields))
        return replace(batch, points=tuple(points))

    _replace_submit(change)


def _delete_nothing() -> None:
    """Deletions are acknowledged and not carried out."""
    from dsdbd.storage.store import Store

    Store.delete_all = lambda self, wanted: None  # type: ignore[method-assign, assignment]


def _read_stale() -> None:
    """A read of the newest metadata takes what this node has."""
    from dsdbd.meta.store import Metadata

    async def barrier(self: Metadata, timeout_s: float) -> None:
        return None

    Metadata.barrier = barrier  # type: ignore[method-assign]


def _forget_a_database() -> None:
    """The creation of the first of the databases that come and go is acknowledged, and it is nowhere."""
    from dsdbd.meta.apply import HANDLERS
    from dsdbd.meta.commands import CreateDatabase

    original = HANDLERS[CreateDatabase]

    def create(state: Any, command: Any, context: Any) -> Any:
        changed, value = original(state, command, context)
        return (state if command.name.endswith("s1") else changed), value

    HANDLERS[CreateDatabase] = create


def _count_in_circles() -> None:
    """A counter starts anew when it is large."""
    from dsdbd.cluster.owners import WriteStats

    def set_value(self: WriteStats, name: str, value: int) -> None:
        object.__setattr__(self, name, value % 5 if name == "write_ok" else value)

    WriteStats.__setattr__ = set_value  # type: ignore[method-assign, assignment]


def _wait_for_all() -> None:
    """Quorum means all: one owner that is away stops every write."""
    owners = importlib.import_module("dsdbd.cluster.owners")
    owners.required_acks = lambda _level, count: count


def _bear_a_grudge() -> None:
    """A node that was down once counts as down for ever where writes are sent."""
    from dsdbd.cluster.peers import PeerClient

    PeerClient.set_up = lambda self, address: None  # type: ignore[method-assign]


def _leak() -> None:
    """Each write leaves memory mapped and files open. It is the same memory each time: it counts, and costs little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(8192, hard)), hard))
    file = os.memfd_create("leak")
    os.truncate(file, _LEAK_BYTES)
    kept: list[Any] = []

    def leave(batch: Any) -> Any:
        if len(kept) < _LEAKS:
            kept.append((mapped := mmap.mmap(file, _LEAK_BYTES), [os.dup(file) for _ in range(_LEAKED_FILES)]))
            np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE].sum()
        return batch

    _replace_submit(leave)


def _see_nothing() -> None:
    """A node never says that others do not answer."""
    from dsdbd.cluster.detector import FailureDetector

    FailureDetector.silent = lambda self: {}  # type: ignore[method-assign]


def _end_after_a_pause() -> None:
    """A daemon that was stopped for a while ends itself, as a watchdog without sense would."""

    def watch() -> None:
        looked_s = time.monotonic()
        while time.monotonic() < looked_s + _PAUSE_S:
            looked_s = time.monotonic()
            time.sleep(0.05)
        os._exit(7)

    threading.Thread(target=watch, daemon=True).start()


BREAKAGES: dict[str, Callable[[], None]] = {
    "no-fsync": _sync_nothing,
    "handoff-in-memory": _forget_kept_writes,
    "no-repair": _compare_nothing,
    "merge-by-arrival": _version_by_arrival,
    "invent": _invent,
    "no-delete": _delete_nothing,
    "stale-reads": _read_stale,
    "lost-metadata": _forget_a_database,
    "counters": _count_in_circles,
    "wait-for-all": _wait_for_all,
    "first-wins": _keep_the_oldest,
    "grudge": _bear_a_grudge,
    "leak": _leak,
    "blind": _see_nothing,
    "watchdog": _end_after_a_pause,
}


def main() -> int:
    """Break what the first argument names, then be the daemon of the others."""
    names = sys.argv.pop(1).split(",")
    # Syncs are replaced before any module of the daemon loads, the rest after it.
    for name in sorted(names, key=lambda name: name != "no-fsync"):
        BREAKAGES[name]()
    from dsdbd.main import main as daemon

    return daemon()


if __name__ == "__main__":
    sys.exit(main())
