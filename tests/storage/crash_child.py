"""A process that writes through a Store until it is killed; it prints the number of every acknowledged batch.

Arguments: directory, first number, crash point or ``none``, and ``stop`` for a process that writes a little, all of it
in memory, and reaches the crash point in the stop that follows. A crash point is ``call:when:count``: the process kills
itself with SIGKILL before or after the count-th call of a file operation, as a power cut of the process would.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dsdbd import fsio
from dsdbd.storage import ShardKey
from tests.cluster.preloaded import ForkedProcess, start_module
from tests.storage.storage_model import KEY, open_store, put

ROWS = 20
KEYS = (KEY, ShardKey("db", "autogen", 2))


@contextmanager
def crash_child(*arguments: object) -> Iterator[tuple[ForkedProcess, BinaryIO]]:
    """This program in a process of its own, which has ended afterwards, and what it prints."""
    reading, writing = os.pipe()
    with open(reading, "rb") as printed:
        with open(writing, "wb") as output:
            process = start_module(__name__, [str(argument) for argument in arguments], output)
        try:
            yield process, printed
        finally:
            process.kill()
            process.wait()


def rows_of(number: int) -> list:
    return [(f"h{number % 5}", number * ROWS + row, {"i": number, "s": f"row {row}"}) for row in range(ROWS)]


def die_at(owner: Any, name: str, when: str, count: int) -> None:
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == count and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


OWNERS: dict[str, Any] = {
    "pwrite": os,
    "fdatasync": os,
    "fsync": os,
    "rename": Path,
    "unlink": Path,
    "mkdir": Path,
    "fsync_dir": fsio,
}


def arm(point: str) -> None:
    if point != "none":
        name, when, count = point.split(":")
        die_at(OWNERS[name], name, when, int(count))


def write_and_stop(home: Path, point: str) -> None:
    store = open_store(home, wal_segment_bytes=8_000)
    for number in range(60):
        put(store, number, rows_of(number), KEYS[number % 2])
        os.write(1, b"%d\n" % number)
    arm(point)
    store.close(write_out_s=30.0)


def main() -> None:
    home, first, point = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if sys.argv[4:] == ["stop"]:
        write_and_stop(home, point)
        return
    arm(point)
    store = open_store(home, wal_segment_bytes=8_000, merge_files=2, head_max_bytes=1 << 20)
    for number in range(first, first + 400):
        put(store, number, rows_of(number), KEYS[number % 2])
        os.write(1, b"%d\n" % number)
        # The second shard stays in memory for longer: most log files hold rows that are on disk and rows that are not.
        if number % 7 == 6:
            store.flush(None if number % 70 == 69 else 1)
            for shard in store.shards():
                shard.merge()
    store.close()
