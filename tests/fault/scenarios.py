"""Short courses of faults, each made for a broken build: what the checkers must find there comes every time."""

from __future__ import annotations

import time
from collections.abc import Callable

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


SCENARIOS: dict[str, Callable[[Nemesis], None]] = {"power": power, "away": away, "leaders": leaders}
