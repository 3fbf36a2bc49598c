"""A clock that was set back while the daemon was down makes no newer write older than what was there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from dsdbd.cluster.version_clock import CeilingFile

if TYPE_CHECKING:
    from tests.cluster.daemons import Cluster

pytestmark = [pytest.mark.slow]
HOUR_NS = 3600 * 10**9


def test_what_is_written_after_a_restart_is_newer_though_the_clock_was_set_back(cluster: Cluster) -> None:
    """The daemon is made to believe that it gave versions an hour ahead: as if its clock had been right then."""
    node = cluster.add()
    (node.root / "meta").mkdir(parents=True)
    ahead = time.time_ns() + HOUR_NS
    CeilingFile(node.root / "meta" / "versions").store(ahead)
    node.start()
    node.query("CREATE DATABASE d")
    assert node.write("cpu v=1 1\nmem v=1 1", db="d").status == 204
    node.query("DELETE FROM mem", db="d")
    node.kill()
    node.start()
    assert CeilingFile(node.root / "meta" / "versions").load() > ahead
    assert node.write("cpu v=2 1\nmem v=2 2", db="d").status == 204
    assert node.rows("SELECT v FROM cpu, mem", db="d", epoch="ns") == [[1, 2], [2, 2]]
    node.query("DELETE FROM cpu", db="d")
    assert node.stop() == 0
    node.start()
    assert node.write("cpu v=3 3", db="d").status == 204
    assert node.rows("SELECT v FROM cpu, mem", db="d", epoch="ns") == [[3, 3], [2, 2]]
