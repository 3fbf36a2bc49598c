"""Versions that run ahead of clocks: a write through a node that has not heard of them counts all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, wait_until
from tests.fault.clock import Clock, build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.daemons import Daemon

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("versions-ahead")]
STEP_S = 60.0


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Daemon], Clock]]:
    """Three nodes, and the clock of the first, which can be set."""
    root = tmp_path_factory.mktemp("ahead")
    library = build(root)
    if library is None:
        pytest.skip("there is no compiler for the clock that is set")
    clock = Clock(root / "clock", library)
    made = Cluster(root)
    try:
        first = made.add(environ=clock.environ).start()
        rest = [made.add(join=[first.meta_address]).start() for _ in range(2)]
        made.wait_servers(3)
        nodes = [first, *rest]
        first.query("CREATE DATABASE d WITH REPLICATION 2 SHARD DURATION 1d")
        wait_until(lambda: all(["d"] in node.rows("SHOW DATABASES") for node in nodes), "the database is everywhere")
        yield nodes, clock
    finally:
        made.close()


def test_of_two_confirmed_writes_the_later_one_counts(wrong: tuple[list[Daemon], Clock]) -> None:
    """Each point is written through a node whose clock has just been set ahead, and at once through another one.

    That one owns a copy of two shards out of three. It may hear of the newer versions before the second write; of eight
    points that is at most some.
    """
    nodes, clock = wrong
    lines = [f"m,s=s{number} v=0 1" for number in range(8)]
    assert nodes[0].write("\n".join(lines), db="d", consistency="all").status == 204
    for number in range(8):
        clock.shift(STEP_S * (number + 1))
        for value, node in enumerate((nodes[0], nodes[1 + number % 2]), 1):
            assert node.write(f"m,s=s{number} v={value} 1", db="d", consistency="quorum").status == 204
    for node in nodes:
        assert node.rows("SELECT v FROM m GROUP BY s", db="d", epoch="ns", consistency="quorum") == [[1, 2]] * 8
    assert any("a write gets a newer version" in node.log for node in nodes[1:])


def test_a_deletion_after_them_hides_them(wrong: tuple[list[Daemon], Clock]) -> None:
    nodes, clock = wrong
    clock.shift(STEP_S * 100)
    assert nodes[0].write("gone,s=a v=1 1", db="d", consistency="quorum").status == 204
    nodes[1].query("DELETE FROM gone", db="d")
    assert nodes[2].rows("SELECT v FROM gone", db="d", consistency="quorum") == []
