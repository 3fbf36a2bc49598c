"""An owner whose process stood still knows that others may have written meanwhile: it answers from none of its copies
before it has compared them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster, wait_until
from tests.cluster.digests import are_equal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
DEADLINE_S = 60.0
SETTINGS = {
    # So that nothing but the pause tells the owner to compare.
    "anti-entropy": ['check-interval = "1h"'],
    "hinted-handoff": ["enabled = false"],
}


def test_no_read_of_an_owner_that_stood_still_is_short(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    try:
        nodes = made.grow(3, settings=SETTINGS)
        nodes[0].query("CREATE DATABASE d WITH REPLICATION 3")
        assert nodes[0].write("m v=0 0", db="d", consistency="all").status == 204
        victim = next(node for node in nodes if not node.is_leader())
        others = [node for node in nodes if node is not victim]
        wait_until(lambda: are_equal(nodes, "d"), "all have the point", DEADLINE_S, 0.1)
        assert victim.process is not None
        for turn in range(1, 4):
            os.kill(victim.process.pid, signal.SIGSTOP)
            try:
                wait_until(
                    lambda: all(victim.address in str(node.get("/health").json) for node in others),
                    "the others miss it",
                    DEADLINE_S,
                )
                assert others[0].write(f"m v={turn} {turn}", db="d", consistency="quorum").status == 204
            finally:
                os.kill(victim.process.pid, signal.SIGCONT)
            # At once: neither the first answer nor a later one may lack the point.
            for _ in range(20):
                for node in nodes:
                    assert len(node.rows("SELECT v FROM m", db="d")) == turn + 1, (turn, node is victim)
            wait_until(lambda: are_equal(nodes, "d"), "it has compared by itself", DEADLINE_S, 0.1)
    finally:
        made.close()
