"""Courses of faults that are not left to chance: made for broken builds, and for nodes that come and go."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.fault.members import data_ids, order
from tests.fault.nemesis import MOVED_S, Nemesis
from tests.fault.node import READY_TIMEOUT_S, FaultNode
from tests.fault.schedule import Fault

_LOAD_S = 2.5
_REMOVED_CODE = 13


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


def shrink(nemesis: Nemesis) -> None:
    """A cluster of five becomes one of three by orders, under load."""
    for node in list(nemesis.nodes)[:2:-1]:
        order(nemesis.nodes, "remove", MOVED_S, node=data_ids(nemesis.nodes, nemesis.nodes[0])[node.number])
        _leave(nemesis, node)


def replace(nemesis: Nemesis) -> None:
    """A node loses its disk for good; a new one under another address takes its place, under load."""
    time.sleep(_LOAD_S)
    lost = nemesis.nodes[-1]
    lost.kill()
    nemesis.history.add("state", node=lost.number, whole=False)
    old = data_ids(nemesis.nodes, nemesis.nodes[0])[lost.number]
    nemesis.grow(1)
    fresh = nemesis.nodes[-1]
    new = data_ids(nemesis.nodes, nemesis.nodes[0])[fresh.number]
    order([node for node in nemesis.nodes if node is not lost], "replace", MOVED_S, node=old, to=new)
    nemesis.nodes.remove(lost)
    nemesis.faults += 1


def _leave(nemesis: Nemesis, node: FaultNode) -> None:
    """A node that was removed ends by itself and says so by its exit code."""
    assert node.process is not None
    node.wanted = False
    code = node.process.wait(READY_TIMEOUT_S)
    if code != _REMOVED_CODE:
        nemesis.history.add("exit", node=node.number, code=code, log=node.log_tail())
    nemesis.nodes.remove(node)
    nemesis.faults += 1


SCENARIOS: dict[str, Callable[[Nemesis], None]] = {
    "power": power,
    "away": away,
    "leaders": leaders,
    "shrink": shrink,
    "replace": replace,
}
