"""Nodes that come, go, drain and are replaced while other faults happen: orders as ``dsdb node`` gives them."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.fault.members import data_ids, order
from tests.fault.node import READY_TIMEOUT_S, FaultNode

if TYPE_CHECKING:
    from tests.fault.nemesis import Nemesis

MOVED_S = 480.0
"""So long an order to move shards may take, while other faults go on."""
REMOVED_CODE = 13
_PAUSE_S = 0.1
_TROUBLES = (OSError, RuntimeError, subprocess.TimeoutExpired)
"""What means that an order was not carried out; a TimeoutError is an OSError."""


def data_id(nemesis: Nemesis, number: int) -> int:
    """The data id of a node, from whichever node tells it. Raises TimeoutError."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline_s:
        for node in tuple(nemesis.nodes):
            if node.alive and not node.paused:
                with contextlib.suppress(OSError, KeyError, ValueError):
                    return data_ids(nemesis.nodes, node)[number]
        time.sleep(_PAUSE_S)
    raise TimeoutError(f"no node tells the number of node {number}")


def drain(nemesis: Nemesis, node: FaultNode) -> list[int]:
    """All copies of a node go to others; then it takes its share again."""
    number = data_id(nemesis, node.number)
    order(nemesis.nodes, "drain", MOVED_S, node=number)
    order(nemesis.nodes, "cancel", MOVED_S, node=number)
    order(nemesis.nodes, "rebalance", MOVED_S)
    return []


def join(nemesis: Nemesis, _: FaultNode) -> list[int]:
    """A node joins and takes its share; when it has it, it is removed."""
    fresh = nemesis.join()
    order(nemesis.nodes, "rebalance", MOVED_S)
    remove(nemesis, fresh)
    return [fresh.number]


def remove(nemesis: Nemesis, node: FaultNode) -> None:
    """A node hands its copies over and is removed; it ends by itself and says so by its exit code."""
    nemesis.hold(node)
    node.wanted = False
    order(nemesis.nodes, "remove", MOVED_S, node=data_id(nemesis, node.number))
    assert node.process is not None
    code = node.process.wait(READY_TIMEOUT_S)
    if code != REMOVED_CODE:
        nemesis.history.add("exit", node=node.number, code=code, log=node.log_tail())
    nemesis.leave(node)


def replace(nemesis: Nemesis, lost: FaultNode) -> list[int]:
    """A node loses its disk for good; a new one under another address takes its place."""
    nemesis.hold(lost)
    lost.kill()
    nemesis.history.add("state", node=lost.number, whole=False)
    try:
        fresh = nemesis.join()
        old, new = data_id(nemesis, lost.number), data_id(nemesis, fresh.number)
        others = [node for node in nemesis.nodes if node is not lost]
        order(others, "replace", MOVED_S, node=old, to=new)
    finally:
        nemesis.leave(lost)
    return [lost.number, fresh.number]


ORDERS: dict[str, Callable[[Nemesis, FaultNode], list[int]]] = {"drain": drain, "join": join, "replace": replace}


class Mover:
    """Carries out one order after the other beside everything else; what is not carried out is written down."""

    def __init__(self, nemesis: Nemesis) -> None:
        self._nemesis = nemesis
        self._thread: threading.Thread | None = None

    def begin(self, kind: str, pick: int) -> bool:
        """Give an order; False while another is under way."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(target=self._carry_out, args=(kind, pick), daemon=True)
        self._thread.start()
        return True

    def end(self) -> None:
        """Wait until the last order is carried out or given up."""
        if self._thread is not None:
            self._thread.join()

    def _carry_out(self, kind: str, pick: int) -> None:
        nemesis, begun_s = self._nemesis, time.monotonic()
        nodes = tuple(nemesis.nodes)
        touched: list[int] = []
        try:
            touched = ORDERS[kind](nemesis, nodes[pick % len(nodes)])
        except _TROUBLES as error:
            nemesis.history.add("stuck", why=f"{kind}: {error}")
        nemesis.count(kind)
        ended_s = round(time.monotonic(), 3)
        times = {"begun": round(begun_s, 3), "struck": round(begun_s, 3), "healed": ended_s, "ready_s": 0.0}
        nemesis.history.add("fault", name=kind, nodes=touched, touched=touched, ready=True, **times)
