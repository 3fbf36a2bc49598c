"""Carries faults out, heals them, and writes down which nodes and links were whole when."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.fault.history import History
from tests.fault.moves import Mover
from tests.fault.netns import Network, between
from tests.fault.node import READY_TIMEOUT_S, FaultNode
from tests.fault.schedule import ALONE, ORDERED, Fault

_PAUSE_S = 0.1
_DELAY_MS = (20.0, 150.0)


@dataclass
class Nemesis:
    """Faults may run side by side; each holds its victims until they are healed and ready."""

    nodes: list[FaultNode]
    network: Network
    history: History
    grow: Callable[[int], None]
    """Starts so many more nodes."""
    busy: set[int] = field(default_factory=set)
    faults: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    clock_stepped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.mover = Mover(self)
        self._error: BaseException | None = None

    # --- members

    def hold(self, node: FaultNode) -> None:
        """Keep other faults from a node, as soon as none has it. Raises TimeoutError."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            with self._lock:
                if node.number not in self.busy:
                    self.busy.add(node.number)
                    return
            time.sleep(_PAUSE_S)
        raise TimeoutError(f"node {node.number} is never free")

    def join(self) -> FaultNode:
        """One more node; faults may hit it when it is a member."""
        number = self.network.nodes + 1
        with self._lock:
            self.busy.add(number)
        self.grow(1)
        self.history.add("member", node=number, there=True)
        with self._lock:
            self.busy.discard(number)
        return next(node for node in self.nodes if node.number == number)

    def leave(self, node: FaultNode) -> None:
        """A node whose process has ended is one of them no longer."""
        self.nodes.remove(node)
        self.history.add("member", node=node.number, there=False)
        node.disk.drop()

    def count(self, kind: str) -> None:
        """One more fault has been."""
        with self._lock:
            self.faults += 1
            self.kinds[kind] = self.kinds.get(kind, 0) + 1

    # --- the schedule

    def run(self, faults: Iterator[Fault], until_s: float, most: int, ending: Callable[[], bool]) -> None:
        """Faults one after another, some two at once, until the time or the number is reached; all healed on return.

        Orders to nodes go on beside them. ``ending`` says that there shall be no more.
        """
        while time.monotonic() < until_s and self.faults < most and not ending():
            group = [next(faults)]
            if group[0].kind in ORDERED:
                self.mover.begin(group[0].kind, group[0].victims[0])
                time.sleep(group[0].pause_s)
                continue
            if group[0].with_next:
                second = next(faults)
                if second.kind not in ALONE | ORDERED:
                    group.append(second)
            time.sleep(group[0].pause_s)
            threads = [threading.Thread(target=self._try, args=(fault,), daemon=True) for fault in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if self._error is not None:
                raise RuntimeError("a fault was not carried out") from self._error
            self.revive()
        self.mover.end()

    def _try(self, fault: Fault) -> None:
        try:
            self.carry_out(fault)
        except BaseException as error:
            self._error = error
            raise

    def carry_out(self, fault: Fault) -> None:
        """One fault from its beginning to the health after it."""
        victims = self._take(fault)
        if not victims:
            return
        numbers = [node.number for node in victims]
        links = self._links(fault, victims[0])
        far = {number for pair in links for number in pair} if fault.kind == "bridge" else set()
        begun_s = struck_s = time.monotonic()
        try:
            struck_s = self._begin(fault, victims, links)
            self._whole(fault, numbers, links, whole=False)
            time.sleep(fault.length_s)
        finally:
            healed_s = time.monotonic()
            self._heal(fault, victims, links)
            self.count(fault.kind)
        ready = [node.wait_ready(READY_TIMEOUT_S) for node in victims]
        ready_s = time.monotonic()
        self._whole(fault, numbers, links, whole=True)
        with self._lock:
            self.busy -= set(numbers)
        self.history.add(
            "fault",
            name=fault.kind,
            nodes=numbers,
            touched=sorted({*numbers, *far}),
            begun=round(begun_s, 3),
            struck=round(struck_s, 3),
            healed=round(healed_s, 3),
            ready_s=round(ready_s - healed_s, 3),
            ready=all(ready),
        )

    def revive(self) -> None:
        """Start what ended by itself, as a service manager does, and write down how it ended."""
        for node in tuple(self.nodes):
            with node.lock:
                if not node.wanted or node.alive:
                    continue
                code = node.process.poll() if node.process else None
                self.history.add("exit", node=node.number, code=code, log=node.log_tail())
                node.start()
            node.wait_ready(READY_TIMEOUT_S)

    def _take(self, fault: Fault) -> list[FaultNode]:
        leader = self.leader() if fault.kind.endswith("_leader") else 0
        with self._lock:
            nodes = tuple(self.nodes)
            free = [node for node in nodes if node.number not in self.busy]
            if not free or (fault.kind in ALONE and len(free) < len(nodes)):
                return []
            if fault.kind in ALONE:
                chosen = list(nodes)
            else:
                first = next((node for node in nodes if node.number == leader), nodes[fault.victims[0] % len(nodes)])
                chosen = [first if first in free else free[fault.victims[1] % len(free)]]
            self.busy |= {node.number for node in chosen}
        return chosen

    def leader(self) -> int:
        """The node that leads the metadata, as far as one of them knows; 0 when none does."""
        for node in tuple(self.nodes):
            if not node.alive or node.paused:
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                leader = json.loads(node.request("GET", "/cluster/status", timeout_s=2)[1])["leader"]["tcp_addr"]
                return next((one.number for one in self.nodes if leader.startswith(one.host + ":")), 0)
        return 0

    # --- the faults

    def _links(self, fault: Fault, node: FaultNode) -> set[tuple[int, int]]:
        """Those that the fault cuts, among the nodes there are now."""
        victim = node.number
        others = [one.number for one in tuple(self.nodes) if one is not node]
        other = others[fault.victims[1] % len(others)]
        match fault.kind:
            case "isolate" | "isolate_leader":
                return between([victim], others)
            case "one_way":
                # Half the time everything the node sends is lost, half the time everything sent to it.
                return {(victim, one) if fault.amount < 0.5 else (one, victim) for one in others}
            case "bridge":
                return between([victim], [other])
            case "loss":
                return between([victim], others)
            case _:
                return set()

    def _begin(self, fault: Fault, nodes: list[FaultNode], links: set[tuple[int, int]]) -> float:
        """Carry it out; the time from which on it is felt."""
        match fault.kind:
            case "kill" | "kill_leader" | "kill_all":
                for node in nodes:
                    node.kill()
            case "pause" | "pause_leader":
                nodes[0].pause()
            case "power_cut" | "power_cut_all":
                return self._cut_power(nodes)
            case "isolate" | "isolate_leader" | "one_way" | "bridge":
                self.network.cut(links)
            case "loss":
                self.network.lose(links, 0.1 + 0.3 * fault.amount)
            case "delay":
                low_ms, high_ms = _DELAY_MS
                self.network.delay(nodes[0].number, low_ms + (high_ms - low_ms) * fault.amount)
            case "disk_full":
                nodes[0].disk.fill()
            case "disk_stall":
                nodes[0].disk.freeze()
            case "clock":
                self.clock_stepped = True
                nodes[0].clock.shift((fault.amount - 0.5) * 2 * 300)
            case "rolling":
                self._roll(nodes)
        return time.monotonic()

    def _heal(self, fault: Fault, nodes: list[FaultNode], links: set[tuple[int, int]]) -> None:
        match fault.kind:
            case "kill" | "kill_leader" | "kill_all":
                for node in nodes:
                    node.start()
            case "power_cut" | "power_cut_all":
                for node in nodes:
                    node.disk.become_copy()
                    node.start()
            case "pause" | "pause_leader":
                nodes[0].resume()
            case "isolate" | "isolate_leader" | "one_way" | "bridge" | "loss":
                self.network.heal(links)
            case "delay":
                self.network.hurry(nodes[0].number)
            case "disk_full":
                nodes[0].disk.free()
            case "disk_stall":
                nodes[0].disk.thaw()
            case "clock":
                nodes[0].clock.shift(0)

    @staticmethod
    def _cut_power(nodes: Sequence[FaultNode]) -> float:
        """All stop at one moment, which is returned; what is not beneath the page cache then is gone."""
        for node in nodes:
            node.pause()
        stopped_s = time.monotonic()
        for node in nodes:
            node.disk.copy_as_after_power_cut()
        for node in nodes:
            node.kill()
        return stopped_s

    def _roll(self, nodes: Sequence[FaultNode]) -> None:
        """Stop and start one node after the other, each when the one before is ready."""
        for node in nodes:
            self.history.add("state", node=node.number, whole=False)
            code = node.stop()
            if code != 0:
                self.history.add("exit", node=node.number, code=code, log=node.log_tail())
            node.start()
            node.wait_ready(READY_TIMEOUT_S)
            self.history.add("state", node=node.number, whole=True)

    # --- what was whole

    def _whole(self, fault: Fault, victims: list[int], links: set[tuple[int, int]], *, whole: bool) -> None:
        """Write down the state of nodes or links; a wrong clock or a slow network makes no node less whole."""
        if fault.kind in ("clock", "delay", "rolling"):
            return
        for source, to in sorted(links):
            self.history.add("link", source=source, to=to, whole=whole)
        if not links:
            for number in victims:
                self.history.add("state", node=number, whole=whole)
