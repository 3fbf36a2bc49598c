"""Carries faults out, heals them, and writes down which nodes and links were whole when."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.fault.history import History
from tests.fault.members import data_ids, order
from tests.fault.netns import Network, between
from tests.fault.node import READY_TIMEOUT_S, FaultNode
from tests.fault.schedule import ALONE, Fault

_PAUSE_S = 0.1
_DELAY_MS = (20.0, 150.0)
MOVED_S = 240.0
"""So long an order to move shards may take, while other faults go on."""


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

    def node(self, number: int) -> FaultNode:
        """By its number."""
        return next(node for node in self.nodes if node.number == number)

    # --- the schedule

    def run(self, faults: Iterator[Fault], until_s: float, most: int = 1 << 30) -> None:
        """Faults one after another, some two at once, until the time or the number is reached; all healed on return."""
        while time.monotonic() < until_s and self.faults < most:
            group = [next(faults)]
            if group[0].with_next:
                second = next(faults)
                if second.kind not in ALONE:
                    group.append(second)
            time.sleep(group[0].pause_s)
            threads = [threading.Thread(target=self.carry_out, args=(fault,), daemon=True) for fault in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.revive()

    def carry_out(self, fault: Fault) -> None:
        """One fault from its beginning to the health after it."""
        victims = self._take(fault)
        if not victims:
            return
        begun_s = struck_s = time.monotonic()
        touched = sorted({*victims, *self._touched(fault, victims[0])})
        try:
            struck_s = self._begin(fault, victims)
            self._whole(fault, victims, whole=False)
            time.sleep(fault.length_s)
        finally:
            healed_s = time.monotonic()
            self._heal(fault, victims)
            with self._lock:
                self.faults += 1
                self.kinds[fault.kind] = self.kinds.get(fault.kind, 0) + 1
        ready = [self.node(number).wait_ready(READY_TIMEOUT_S) for number in victims]
        ready_s = time.monotonic()
        self._whole(fault, victims, whole=True)
        with self._lock:
            self.busy -= set(victims)
        self.history.add(
            "fault",
            name=fault.kind,
            nodes=victims,
            touched=touched,
            begun=round(begun_s, 3),
            struck=round(struck_s, 3),
            healed=round(healed_s, 3),
            ready_s=round(ready_s - healed_s, 3),
            ready=all(ready),
        )

    def revive(self) -> None:
        """Start what ended by itself, as a service manager does, and write down how it ended."""
        for node in self.nodes:
            with node.lock:
                if not node.wanted or node.alive:
                    continue
                code = node.process.poll() if node.process else None
                self.history.add("exit", node=node.number, code=code, log=node.log_tail())
                node.start()
            node.wait_ready(READY_TIMEOUT_S)

    def _take(self, fault: Fault) -> list[int]:
        numbers = [node.number for node in self.nodes]
        if fault.kind in ALONE:
            chosen = numbers
        elif fault.kind.endswith("_leader"):
            chosen = [self.leader() or numbers[fault.victims[0] % len(numbers)]]
        else:
            chosen = [numbers[fault.victims[0] % len(numbers)]]
        with self._lock:
            free = [number for number in numbers if number not in self.busy]
            if not free or (fault.kind in ALONE and len(free) < len(numbers)):
                return []
            if fault.kind not in ALONE and chosen[0] in self.busy:
                chosen = [free[fault.victims[1] % len(free)]]
            self.busy |= set(chosen)
        return chosen

    def leader(self) -> int:
        """The node that leads the metadata, as far as one of them knows; 0 when none does."""
        for node in self.nodes:
            if not node.alive or node.paused:
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                leader = json.loads(node.request("GET", "/cluster/status", timeout_s=2)[1])["leader"]["tcp_addr"]
                return next((one.number for one in self.nodes if leader.startswith(one.host + ":")), 0)
        return 0

    # --- the faults

    def _links(self, fault: Fault, victim: int) -> set[tuple[int, int]]:
        others = [node.number for node in self.nodes if node.number != victim]
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

    def _touched(self, fault: Fault, victim: int) -> set[int]:
        """Nodes beside the victim about which something is wrong, too."""
        if fault.kind != "bridge":
            return set()
        return {number for pair in self._links(fault, victim) for number in pair}

    def _begin(self, fault: Fault, victims: list[int]) -> float:
        """Carry it out; the time from which on it is felt."""
        nodes = [self.node(number) for number in victims]
        match fault.kind:
            case "kill" | "kill_leader" | "kill_all":
                for node in nodes:
                    node.kill()
            case "pause" | "pause_leader":
                nodes[0].pause()
            case "power_cut" | "power_cut_all":
                return self._cut_power(nodes)
            case "isolate" | "isolate_leader" | "one_way" | "bridge":
                self.network.cut(self._links(fault, victims[0]))
            case "loss":
                self.network.lose(self._links(fault, victims[0]), 0.1 + 0.3 * fault.amount)
            case "delay":
                low_ms, high_ms = _DELAY_MS
                self.network.delay(victims[0], low_ms + (high_ms - low_ms) * fault.amount)
            case "disk_full":
                nodes[0].disk.fill()
            case "disk_stall":
                nodes[0].disk.freeze()
            case "clock":
                self.clock_stepped = True
                nodes[0].clock.shift((fault.amount - 0.5) * 2 * 300)
            case "rolling":
                self._roll(nodes)
            case "move":
                self._move(victims[0])
        return time.monotonic()

    def _heal(self, fault: Fault, victims: list[int]) -> None:
        nodes = [self.node(number) for number in victims]
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
                self.network.heal(self._links(fault, victims[0]))
            case "delay":
                self.network.hurry(victims[0])
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

    def _move(self, victim: int) -> None:
        """All copies of a node go to others; then it takes its share again."""
        try:
            number = self._data_id(victim)
            order(self.nodes, "drain", MOVED_S, node=number)
            order(self.nodes, "cancel", MOVED_S, node=number)
            order(self.nodes, "rebalance", MOVED_S)
        except TimeoutError as error:
            self.history.add("stuck", why=str(error))

    def _data_id(self, victim: int) -> int:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            for node in self.nodes:
                with contextlib.suppress(OSError, KeyError):
                    return data_ids(self.nodes, node)[victim]
            time.sleep(_PAUSE_S)
        raise TimeoutError(f"no node tells the number of node {victim}")

    # --- what was whole

    def _whole(self, fault: Fault, victims: list[int], *, whole: bool) -> None:
        """Write down the state of nodes or links; a wrong clock or a slow network makes no node less whole."""
        if fault.kind in ("clock", "delay", "rolling", "move"):
            return
        links = self._links(fault, victims[0])
        for source, to in sorted(links):
            self.history.add("link", source=source, to=to, whole=whole)
        if not links:
            for number in victims:
                self.history.add("state", node=number, whole=whole)
