"""Courses of faults that are not left to chance: made for broken builds, and for nodes that come and go."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.fault import moves
from tests.fault.nemesis import Nemesis
from tests.fault.node import READY_TIMEOUT_S
from tests.fault.schedule import Fault

_LOAD_S = 2.5


def _fault(kind: str, length_s: float) -> Fault:
    return Fault(kind, (0, 0), length_s, 0.0, 0.0)


def power(nemesis: Nemesis) -> None:
    """The power fails everywhere at once, under load."""
    time.sleep(_LOAD_S)
    nemesis.carry_out(_fault("power_cut_all", 0.1))
    time.sleep(1.0)


def away(nemesis: Nemesis) -> None:
    """One node is away; those that keep its writes are started anew before it is back."""
    first, second, third = nemesis.nodes
    third.kill()
    nemesis.history.add("state", node=third.number, whole=False)
    time.sleep(_LOAD_S)
    for node in (first, second):
        node.kill()
        node.start()
    for node in (first, second):
        node.wait_ready(READY_TIMEOUT_S)
    third.start()
    third.wait_ready(READY_TIMEOUT_S)
    nemesis.history.add("state", node=third.number, whole=True)
    nemesis.faults += 3


def leaders(nemesis: Nemesis) -> None:
    """Those that lead the metadata are cut off, one after the other."""
    for _ in range(2):
        time.sleep(_LOAD_S / 2)
        nemesis.carry_out(_fault("isolate_leader", 4.0))


def pause(nemesis: Nemesis) -> None:
    """One node is stopped for a while, under load."""
    time.sleep(_LOAD_S)
    nemesis.carry_out(_fault("pause", 3.0))
    time.sleep(_LOAD_S)
    nemesis.revive()


def shrink(nemesis: Nemesis) -> None:
    """A cluster of five becomes one of three by orders, under load."""
    for node in list(nemesis.nodes)[:2:-1]:
        moves.remove(nemesis, node)
        nemesis.count("remove")


def replace(nemesis: Nemesis) -> None:
    """A node loses its disk for good; a new one under another address takes its place, under load."""
    time.sleep(_LOAD_S)
    moves.replace(nemesis, nemesis.nodes[-1])
    nemesis.count("replace")


SCENARIOS: dict[str, Callable[[Nemesis], None]] = {
    "power": power,
    "away": away,
    "leaders": leaders,
    "pause": pause,
    "shrink": shrink,
    "replace": replace,
}
