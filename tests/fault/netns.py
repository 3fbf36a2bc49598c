"""A network of namespaces: one for each node, joined by a bridge at which the load generator sits.

Faults lie between nodes only, so that clients reach every node: a client that cannot is no fault of the database.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.fault import delay
from tests.fault.sandbox import command

_NET = "10.77.0"
_JITTER = 0.25
"""A delayed packet takes up to this share more or less: some overtake others."""

_HOLD = ("-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass")


def address(number: int) -> str:
    """The address of node ``number``, which counts from 1."""
    return f"{_NET}.{number}"


@dataclass
class Network:
    """Links between nodes: ``cuts`` and ``lossy`` hold (from, to) pairs whose packets are dropped, all or some.

    ``slow``: nodes whose packets from and to other nodes are held back, each by a process of its own (delay.py).
    """

    nodes: int = 0
    cuts: set[tuple[int, int]] = field(default_factory=set)
    lossy: dict[tuple[int, int], float] = field(default_factory=dict)
    slow: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> None:
        """Make the bridge; called once, inside the sandbox."""
        command("ip", "link", "set", "lo", "up")
        command("ip", "link", "add", "bridge0", "type", "bridge")
        command("ip", "address", "add", f"{_NET}.254/24", "dev", "bridge0")
        command("ip", "link", "set", "bridge0", "up")

    def add(self) -> int:
        """One more namespace; returns its number."""
        self.nodes += 1
        number, name = self.nodes, f"n{self.nodes}"
        command("ip", "netns", "add", name)
        command("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        command("ip", "link", "set", f"v{number}", "master", "bridge0", "up")
        command("ip", "-n", name, "address", "add", f"{address(number)}/24", "dev", "eth0")
        command("ip", "-n", name, "link", "set", "eth0", "up")
        command("ip", "-n", name, "link", "set", "lo", "up")
        return number

    def can_delay(self) -> bool:
        """Whether the kernel here gives packets to a process to hold."""
        try:
            command("iptables", "-A", "OUTPUT", "-d", address(0), *_HOLD)
            command(sys.executable, "-I", "-S", delay.__file__, "0", "1", "0", data="")
        except RuntimeError:
            return False
        command("iptables", "-F", "OUTPUT")
        return True

    def inside(self, number: int) -> list[str]:
        """What a command line begins with to run in a node's namespace; it replaces itself, the process id stays."""
        return ["nsenter", f"--net=/run/netns/n{number}", "--"]

    def cut(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Drop all packets from the first node of each pair to the second."""
        with self._lock:
            self.cuts |= set(pairs)
            self._apply()

    def lose(self, pairs: Iterable[tuple[int, int]], share: float) -> None:
        """Drop this share of the packets, chosen at random."""
        with self._lock:
            self.lossy |= dict.fromkeys(pairs, share)
            self._apply()

    def delay(self, number: int, delay_ms: float) -> None:
        """Hold back every packet between a node and the others, both ways. Raises RuntimeError where none can be."""
        jitter_ms = delay_ms * _JITTER
        holder = subprocess.Popen(
            [*self.inside(number), sys.executable, "-I", "-S", delay.__file__, "0", str(delay_ms), str(jitter_ms)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        said = holder.stdout.readline().strip()
        if said != "ready":
            self._end(holder)
            raise RuntimeError(f"packets cannot be held back: {said}")
        with self._lock:
            self.slow[number] = holder
            self._apply()

    def hurry(self, number: int) -> None:
        """Hold back nothing of a node any more."""
        with self._lock:
            holder = self.slow.pop(number, None)
            self._apply()
        if holder is not None:
            self._end(holder)

    @staticmethod
    def _end(holder: subprocess.Popen[str]) -> None:
        with holder:
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait(30)

    def heal(self, pairs: Iterable[tuple[int, int]] | None = None) -> None:
        """Undo what was done to these pairs; to all of them, and all delays, without a list."""
        if pairs is None:
            for number in list(self.slow):
                self.hurry(number)
        with self._lock:
            gone = set(pairs) if pairs is not None else self.cuts | set(self.lossy)
            self.cuts -= gone
            self.lossy = {pair: share for pair, share in self.lossy.items() if pair not in gone}
            self._apply()

    def _apply(self) -> None:
        for number in range(1, self.nodes + 1):
            rules = ["*filter", ":INPUT ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
            rules += [f"-A INPUT -s {address(source)} -j DROP" for source, to in sorted(self.cuts) if to == number]
            for (source, to), share in sorted(self.lossy.items()):
                if to == number:
                    chance = f"-m statistic --mode random --probability {share:.3f}"
                    rules.append(f"-A INPUT -s {address(source)} {chance} -j DROP")
            if number in self.slow:
                others = [address(one) for one in range(1, self.nodes + 1) if one != number]
                hold = " ".join(_HOLD)
                rules += [f"-A {chain} {one} {hold}" for other in others for chain, one in _ways(other)]
            command(*self.inside(number), "iptables-restore", data="\n".join([*rules, "COMMIT", ""]))


def _ways(other: str) -> list[tuple[str, str]]:
    return [("INPUT", f"-s {other}"), ("OUTPUT", f"-d {other}")]


def both(pairs: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """The pairs and their opposites."""
    return {pair for a, b in pairs for pair in ((a, b), (b, a))}


def between(left: Iterable[int], right: Iterable[int]) -> set[tuple[int, int]]:
    """Both directions of every link from one group to the other."""
    others = list(right)
    return both((a, b) for a in left for b in others if a != b)
