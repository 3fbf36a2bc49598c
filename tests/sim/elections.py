"""Time until the next leader after the first one died: ``python -m tests.sim.elections RUNS`` prints JSON, seconds."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from tests.sim.node import SimNode
from tests.sim.world import World


def election_s(seed: int, directory: Path, *, silent: bool) -> float:
    world = World(seed, directory, node_count=3, faults=())
    for address in world.addresses:
        SimNode(world, address, world.addresses)
    world.sim.run_until(world.sim.now_s + 6 + world.sim.random.random())
    leader = world.leader()
    assert leader is not None
    leader.crash(power_cut=silent)
    died_s = world.sim.now_s
    while world.leader() is None and world.sim.now_s < died_s + 30:
        world.sim.run_until(world.sim.now_s + 0.001)
    for node in list(world.nodes.values()):
        node.crash(power_cut=False)
    return world.sim.now_s - died_s


def main() -> None:
    logging.disable(logging.CRITICAL)
    runs = int(sys.argv[1])
    base = Path(tempfile.mkdtemp(prefix="raft-elections-"))
    try:
        killed = [round(election_s(seed, base / "w", silent=False), 3) for seed in range(runs)]
        silent = [round(election_s(seed, base / "w", silent=True), 3) for seed in range(runs)]
    finally:
        shutil.rmtree(base)
    print(json.dumps({"killed": killed, "silent": silent}))


if __name__ == "__main__":
    main()
