"""Simulated connections with latency, cuts and silence, below the real PeerTransport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsdbd.meta.raft import codec
from dsdbd.meta.raft.peers import PeerTransport
from tests.sim.simulator import Crashed, Simulator

DEAD_AFTER_S = 5.0


def pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


class SimLink:
    """One end of a connection; satisfies dsdbd.meta.raft.peers.Link."""

    def __init__(self, net: Network, transport: PeerTransport, peer: str, role: str, *, dialed: bool) -> None:
        self.net, self.transport = net, transport
        self.peer, self.peer_role, self.dialed = peer, role, dialed
        self.last_received_s = net.sim.now_s
        self.other: SimLink | None = None
        self.closed = False
        self.opened = False
        self.not_before_s = 0.0

    def send_message(self, message: dict[str, Any] | None) -> bool:
        if self.closed:
            return False
        if message is not None:
            self.net.carry(self, codec.encode(message))
        return True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.net.sim.after(0.0, self.end)
            self.net.tell_other_end(self)

    def end(self) -> None:
        """The node's own side notices the end."""
        self.closed = True
        if self.opened:
            self.opened = False
            if self.net.alive(self.transport):
                self.transport.lost(self)


class Network:
    """Latency of a local network, links that are cut and heal, and bytes that wait in kernels meanwhile."""

    def __init__(self, sim: Simulator, find: Callable[[str], PeerTransport | None]) -> None:
        self.sim = sim
        self.find = find
        self.links: set[SimLink] = set()
        self.cut: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self.spike_s = 0.0
        self.after_delivery: Callable[[str], None] = lambda _address: None

    def alive(self, transport: PeerTransport) -> bool:
        return self.find(transport.self_address) is transport

    def latency_s(self) -> float:
        extra_s = 0.0
        if self.spike_s and self.sim.random.random() < 0.05:
            extra_s = self.sim.random.expovariate(1 / self.spike_s)
        return self.sim.random.uniform(0.0005, 0.004) + extra_s

    def _in_order(self, link: SimLink, event: Callable[[], None]) -> None:
        """Deliver towards the other end, first in first out; a cut holds it back."""
        link.not_before_s = max(self.sim.now_s + self.latency_s(), link.not_before_s) + 1e-9

        def arrive() -> None:
            waiting = self.cut.get(pair(link.transport.self_address, link.peer))
            if waiting is not None:
                waiting.append(arrive)
            else:
                event()

        self.sim.at(link.not_before_s, arrive)

    def carry(self, link: SimLink, data: bytes) -> None:
        other = link.other
        if other is not None:
            self._in_order(link, lambda: self._deliver(other, data))

    def _deliver(self, link: SimLink, data: bytes) -> None:
        if link.closed or not link.opened or not self.alive(link.transport):
            return
        link.last_received_s = self.sim.now_s
        try:
            link.transport.received(link, codec.decode(data))
        except ValueError:
            link.close()
        except Crashed:
            pass
        self.after_delivery(link.transport.self_address)

    def tell_other_end(self, link: SimLink) -> None:
        other = link.other
        self.links.discard(link)
        if other is not None and not other.closed:
            self._in_order(link, lambda: other.close())

    def dial(self, source: PeerTransport, target: str) -> None:
        """Connect after a round trip, unless the way is cut or nobody is there."""

        def connect() -> None:
            destination = self.find(target)
            if destination is None or not self.alive(source) or pair(source.self_address, target) in self.cut:
                return
            near = SimLink(self, source, target, "voter", dialed=True)
            far = SimLink(self, destination, source.self_address, source.role(), dialed=False)
            near.other, far.other = far, near
            self.links |= {near, far}
            self._open(near)
            self._in_order(near, lambda: self._open(far))

        self.sim.after(2 * self.latency_s(), connect)

    def _open(self, link: SimLink) -> None:
        if not link.closed and self.alive(link.transport):
            link.opened = True
            link.transport.opened(link)

    def vanish(self, address: str, *, silent: bool) -> None:
        """A node's process died; after a power cut its peers hear nothing and notice by silence."""
        for link in [end for end in self.links if end.transport.self_address == address]:
            link.closed = True
            self.links.discard(link)
            other = link.other
            if other is None or other.closed:
                continue
            if silent:
                self.sim.after(DEAD_AFTER_S, other.close)
            else:
                self._in_order(link, lambda other=other: other.close())

    def cut_for(self, a: str, b: str, duration_s: float) -> None:
        key = pair(a, b)
        if key in self.cut:
            return
        self.cut[key] = []
        if duration_s > DEAD_AFTER_S:
            self.sim.after(DEAD_AFTER_S, lambda: self._declare_dead(key))
        self.sim.after(duration_s, lambda: self._heal(key))

    def _declare_dead(self, key: tuple[str, str]) -> None:
        if key in self.cut:
            self.cut[key].clear()
            for link in [end for end in self.links if pair(end.transport.self_address, end.peer) == key]:
                link.closed = True
                self.links.discard(link)
                self.sim.after(0.0, link.end)

    def _heal(self, key: tuple[str, str]) -> None:
        for event in self.cut.pop(key, ()):
            event()
