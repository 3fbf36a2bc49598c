"""Five nodes go to three under load: no acknowledged point is lost, no request fails that its client repeats."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.cluster.test_points_failures import create, data_id, owned
from tests.cluster.test_transfer_add import SETTLE_S, Client, Writer, all_is_at_its_place, done, fill, values

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.slow]
WEEKS = 2


class Reader(Client):
    """Counts what is stored, through any node, until it is stopped; ``failed`` are answers no repetition mended.

    ``shrunk``: counts that were lower than one before.
    """

    def __init__(self, nodes: Sequence[Daemon]) -> None:
        super().__init__(nodes)
        self.shrunk: list[tuple[int, int]] = []
        self.answers = 0

    def _run(self) -> None:
        most = 0
        while not self._stop.is_set():
            found = self._count()
            if found is not None:
                if found < most:
                    self.shrunk.append((most, found))
                most = max(most, found)
                self.answers += 1
            time.sleep(0.05)

    def _count(self) -> int | None:
        deadline_s, turn, answer = time.monotonic() + 20.0, 0, ""
        while time.monotonic() < deadline_s:
            nodes = self._nodes
            turn += 1
            try:
                node = nodes[(self.answers + turn) % len(nodes)]
                document = node.query("SELECT count(value) FROM cpu", db="d", consistency="quorum", timeout_s=10)
                return int(document["results"][0]["series"][0]["values"][0][1])
            except (OSError, ValueError, KeyError) as error:
                answer = f"{error!r}"
            time.sleep(0.1)
        self.failed.append(answer)
        return None


def test_five_nodes_go_to_three_under_load(cluster: Cluster) -> None:
    nodes = cluster.grow(5)
    create(nodes, "d", "REPLICATION 3")
    expected = fill(nodes[0], weeks=WEEKS, per_week=1_000)
    leaving = [node for node in nodes if not node.is_leader()][:2]
    staying = [node for node in nodes if node not in leaving]
    with Writer(nodes, weeks=WEEKS, consistency="quorum") as writer, Reader(nodes) as reader:
        wait_until(lambda: len(writer.acknowledged) > 100 and reader.answers > 2, "points flow", SETTLE_S)
        for node in leaving:
            number = data_id(node)
            # Its clients still use it while it is drained; they turn to others when it ends.
            assert f"node {number} owns no shards any more" in done(staying[0], "drain", number)
            assert f"node {number} was removed" in done(staying[0], "remove", number)
            assert node.wait_exit(SETTLE_S) == 13
            writer.leave_out(node)
            reader.leave_out(node)
        so_far = len(writer.acknowledged)
        wait_until(lambda: len(writer.acknowledged) > so_far + 200, "points flow on", SETTLE_S)
    assert (writer.failed, reader.failed, reader.shrunk) == ([], [], [])
    cluster.wait_servers(3)
    numbers = {data_id(node) for node in staying}
    assert all(owners == numbers for owners in owned(staying[0], "d").values())
    wait_until(lambda: all_is_at_its_place(staying), "former owners have given up their files", SETTLE_S)
    expected |= writer.acknowledged
    # Each of the three holds every point: one after another answers from its own files alone.
    for node in staying:
        wait_until(lambda node=node: values(node) == expected, "every point, asked of each", SETTLE_S)
    for node in staying[1:]:
        node.kill()
    wait_until(lambda: values(staying[0]) == expected, "every point, held by one", SETTLE_S)
    assert all("Traceback" not in node.log for node in cluster.daemons)
