"""Real processes killed at chosen points and at any moment: what was acknowledged is there, and nothing else."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.storage.crash_child import OWNERS, ROWS, crash_child, rows_of
from tests.storage.storage_model import open_store, scan, series_of

pytestmark = pytest.mark.slow

POINTS = [f"{name}:{when}:{count}" for name in OWNERS for when in ("before", "after") for count in (2, 9)]


def check(home: Path, acknowledged: set[int], tried: int) -> None:
    """Every acknowledged batch is whole and right; an unacknowledged one is whole or absent."""
    store = open_store(home)
    try:
        assert store.problems() == []
        found: dict[int, int] = {}
        for series, time_ns, values in [*scan(store.shard(1)), *scan(store.shard(2))]:
            number, row = divmod(time_ns, ROWS)
            assert values == {"i": number, "s": f"row {row}"} and series == series_of(rows_of(number)[0][0])
            found[number] = found.get(number, 0) + 1
        assert set(found.values()) <= {ROWS}
        assert acknowledged <= set(found), sorted(acknowledged - set(found))
        assert set(found) <= set(range(tried))
    finally:
        store.close()


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(tmp_path: Path, point: str) -> None:
    with crash_child(tmp_path, 0, point) as (process, printed):
        output = printed.read()
        reached = process.wait(60) == -signal.SIGKILL
    assert reached or (process.returncode == 0 and point.startswith("mkdir")), f"{point} was not reached"
    acknowledged = {int(line) for line in output.split()}
    check(tmp_path, acknowledged, 400)
    # The next process goes on from there.
    with crash_child(tmp_path, 400, "fdatasync:after:10") as (process, printed):
        output = printed.read()
        assert process.wait(60) == -signal.SIGKILL
    check(tmp_path, acknowledged | {int(line) for line in output.split()}, 800)


def test_killed_at_any_moment_again_and_again(tmp_path: Path) -> None:
    chance = random.Random(5)
    acknowledged: set[int] = set()
    for life in range(8):
        with crash_child(tmp_path, life * 400, "none") as (process, printed):
            for _ in range(chance.randrange(3, 60)):
                line = printed.readline()
                assert line, "the process ended before it was killed"
                acknowledged.add(int(line))
            process.kill()
            acknowledged |= {int(line) for line in printed.read().split()}
        check(tmp_path, acknowledged, (life + 1) * 400)
    assert len(acknowledged) >= 24
