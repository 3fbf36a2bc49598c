"""What the harness does to packets is felt: a delay by connections and answers, both ways, and by nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fault import sandbox
from tests.fault.marks import IN_SANDBOX

pytestmark = [*IN_SANDBOX, pytest.mark.timeout(200)]


def test_packets_of_one_node_are_held_back_both_ways(tmp_path: Path) -> None:
    code = sandbox.run("tests.fault.round_trips", [str(tmp_path)], tmp_path, 120.0)
    if code == 3:
        pytest.skip("the kernel has no queues of packets for processes (NFQUEUE)")
    assert code == 0, (tmp_path / "output").read_text()
    figures = json.loads((tmp_path / "round_trips.json").read_text())
    # A way and back, each of which may take a quarter less; nothing is quicker, however busy the machine is.
    least_s = 2 * 0.75 * figures["delay_ms"] / 1000
    for name in ("to", "from", "still", "large"):
        connected_s, answered_s = figures[name]
        assert connected_s >= least_s, name
        assert answered_s >= least_s, name
    # What comes near to the delay by chance, on a busy machine, does so before it, beside it and after it alike.
    assert min(sum(figures[name]) for name in ("before", "beside", "after")) < least_s
