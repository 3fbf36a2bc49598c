"""A cluster under faults, and the invariants that must hold: what a seed does and how it is judged."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from dsdbd.meta.raft.library import FAIL_REASON
from dsdbd.meta.raft.membership import Change
from dsdbd.meta.raft.node import CAUGHT_UP_ENTRIES
from dsdbd.meta.raft.peers import PeerTransport
from tests.sim.network import Network
from tests.sim.node import SimNode
from tests.sim.simulator import Simulator

FAULTS = ("partition", "crash", "inside", "power", "all", "spike", "member", "transfer", "compact")
CALM_S = 13.0
"""No fault is left at the end: recovery is judged as well as safety."""


@dataclass
class Outcome:
    seed: int
    commands: int = 0
    acked: int = 0
    barriers: int = 0
    elections: int = 0
    joins: int = 0
    snapshots: int = 0
    bad: list[str] = field(default_factory=list)
    exceptions: dict[str, int] = field(default_factory=dict)


class World:
    def __init__(
        self,
        seed: int,
        directory: Path,
        *,
        node_count: int = 5,
        duration_s: float = 30.0,
        faults: tuple[str, ...] = FAULTS,
        compact_entries: int = 40,
        barrier: bool = True,
    ) -> None:
        self.sim = Simulator(seed)
        self.directory = directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.faults, self.compact_entries, self.barrier = faults, compact_entries, barrier
        self.outcome = Outcome(seed)
        self.nodes: dict[str, SimNode] = {}
        self.network = Network(self.sim, self._transport_of)
        self.network.after_delivery = self._bury
        self.addresses = [f"10.0.0.{number}:1" for number in range(1, node_count + 1)]
        self.outside: set[str] = set()
        self.acked: set[str] = set()
        self.by_index: dict[int, str] = {}
        self.leader_of_term: dict[int, str] = {}
        self.end_s = self.sim.now_s + duration_s
        self.calm_s = self.end_s - CALM_S

    def _transport_of(self, address: str) -> PeerTransport | None:
        node = self.nodes.get(address)
        return node.transport if node is not None and node.core.fatal is None and not node.journal.dead else None

    # --- what nodes report

    def report(self, what: str) -> None:
        if what not in self.outcome.bad:
            self.outcome.bad.append(what)

    def exception(self, error: Exception) -> None:
        name = f"{type(error).__name__}: {str(error)[:80]}"
        self.outcome.exceptions[name] = self.outcome.exceptions.get(name, 0) + 1

    def applied(self, address: str, index: int, name: str) -> None:
        if self.by_index.setdefault(index, name) != name:
            self.report(f"TWO COMMANDS at index {index}: {self.by_index[index]} and {name} on {address}")

    def elected(self, address: str, term: int) -> None:
        self.outcome.elections += 1
        if self.leader_of_term.setdefault(term, address) != address:
            self.report(f"TWO LEADERS in term {term}")

    def _bury(self, address: str) -> None:
        node = self.nodes.get(address)
        if node is not None and node.journal.dead:
            self.died(node)

    def died(self, node: SimNode) -> None:
        """A process ended in the middle of an event."""
        if node.alive:
            self._crash(node.address, power_cut=self.sim.random.random() < 0.3)

    # --- one run

    def run(self) -> Outcome:
        for address in self.addresses:
            SimNode(self, address, self.addresses)
        if "spike" in self.faults:
            self.network.spike_s = 0.3
        self.sim.at(self.calm_s, self._calm)
        self.sim.after(2.5, self._fault)
        self.sim.after(2.5, self._client)
        self.sim.after(2.5, self._reader)
        self.sim.after(2.5, self._admit_learners)
        self.sim.run_until(self.end_s)
        self._judge()
        for node in list(self.nodes.values()):
            node.crash(power_cut=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.outcome.acked = len(self.acked)
        return self.outcome

    def _any_node(self) -> SimNode | None:
        return self.nodes[self.sim.random.choice(sorted(self.nodes))] if self.nodes else None

    def _client(self) -> None:
        if self.sim.now_s > self.calm_s + 4:
            return
        self.sim.after(self.sim.random.expovariate(14), self._client)
        node = self._any_node()
        if node is None:
            return
        self.outcome.commands += 1
        name = f"c{self.outcome.commands}"

        def done(_answer: object, reason: int) -> None:
            if reason == FAIL_REASON.SUCCESS:
                self.acked.add(name)

        node.core.submit(name.encode(), done)
        node.kick()

    def _reader(self) -> None:
        """A barrier shows everything acknowledged before it began, on whatever node it is asked."""
        if self.sim.now_s > self.end_s - 1:
            return
        self.sim.after(self.sim.random.expovariate(2), self._reader)
        node = self._any_node()
        if node is None:
            return
        before = set(self.acked)

        def done(_answer: object, reason: int) -> None:
            if reason == FAIL_REASON.SUCCESS:
                self.outcome.barriers += 1
                if not before <= node.machine.counts.keys():
                    self.report(f"STALE BARRIER on {node.address}")

        node.core.submit(b"", done)
        node.kick()

    # --- faults

    def _fault(self) -> None:
        if self.sim.now_s > self.calm_s:
            return
        rnd = self.sim.random
        self.sim.after(rnd.expovariate(0.7), self._fault)
        match rnd.choice(self.faults):
            case "partition":
                self._partition()
            case "crash":
                self._crash_one(power_cut=False)
            case "inside":
                node = self._any_node()
                if node is not None:
                    node.journal.appends_to_live = rnd.randint(0, 6)
            case "power":
                self._crash_one(power_cut=True)
            case "all":
                if rnd.random() < 0.3:
                    for address in sorted(self.nodes):
                        self._crash(address, power_cut=True)
            case "member":
                self._change_members()
            case "transfer":
                leader = self.leader()
                if leader is not None:
                    leader.core.transferLeadership(None, None)
            case "compact":
                node = self._any_node()
                if node is not None:
                    node.core.forceLogCompaction()

    def _calm(self) -> None:
        """End what would go on by itself: the pause to the next fault may be longer than all that is left."""
        self.network.spike_s = 0.0
        for node in self.nodes.values():
            node.journal.appends_to_live = None

    def _partition(self) -> None:
        rnd = self.sim.random
        duration_s = min(rnd.choice([0.3, 1.5, 3, 6, 9]), self.calm_s - self.sim.now_s + 0.1)
        if rnd.random() < 0.5:
            side = {address for address in self.addresses if rnd.random() < 0.5}
            for a in sorted(side):
                for b in sorted(set(self.addresses) - side):
                    self.network.cut_for(a, b, duration_s)
        else:
            self.network.cut_for(*rnd.sample(self.addresses, 2), duration_s)

    def _crash_one(self, *, power_cut: bool) -> None:
        node = self._any_node()
        if node is not None:
            self._crash(node.address, power_cut=power_cut)

    def _crash(self, address: str, *, power_cut: bool) -> None:
        self.nodes[address].crash(power_cut=power_cut)
        pause_s = min(self.sim.random.choice([0.05, 0.5, 2, 5]), max(0.05, self.calm_s - self.sim.now_s))
        self.sim.after(pause_s, lambda: self._restart(address))

    def _restart(self, address: str) -> None:
        if address in self.nodes or address in self.outside:
            return
        try:
            # What is on disk counts; the list given here is wrong on purpose.
            SimNode(self, address, [address])
        except Exception as error:
            self.exception(error)
            self.report(f"DOES NOT START: {type(error).__name__}: {error}")

    def leader(self) -> SimNode | None:
        leaders = [node for node in self.nodes.values() if node.core.is_leader]
        return max(leaders, key=lambda node: node.core.raftCurrentTerm, default=None)

    def _change_members(self) -> None:
        """Remove a voter, or let a removed one come back with an empty directory."""
        leader = self.leader()
        if leader is None or leader.core.has_open_change():
            return
        voters = set(leader.core.voters)
        address = self.sim.random.choice(self.addresses)
        if address in voters and address != leader.address and len(voters) > 2 and not self.outside & voters:
            if address in self.nodes and self.sim.random.random() < 0.5:
                self.nodes[address].crash(power_cut=False)
            self.outside.add(address)
            leader.core.change_members(Change("rem", address), lambda _answer, _reason: None)
            leader.kick()
        elif address in voters and address in self.outside:
            leader.core.change_members(Change("rem", address), lambda _answer, _reason: None)
            leader.kick()
        elif address in self.outside:
            if address in self.nodes:
                self.nodes[address].crash(power_cut=False)
            self.outside.discard(address)
            shutil.rmtree(self.directory / address.replace(":", "_"), ignore_errors=True)
            SimNode(self, address, sorted(voters))
            self.outcome.joins += 1

    def _admit_learners(self) -> None:
        self.sim.after(0.2, self._admit_learners)
        leader = self.leader()
        if leader is None:
            return
        for address, learner in sorted(leader.transport.learners.items()):
            held = leader.core.match_index(learner)
            behind = leader.journal.last.log_index - (held or 0)
            if address not in self.outside and held is not None and behind <= CAUGHT_UP_ENTRIES:
                leader.core.change_members(Change("add", address), lambda _answer, _reason: None)
                leader.kick()
                return

    # --- verdict

    def _judge(self) -> None:
        leader = self.leader()
        self.outcome.snapshots = sum(node.core.store.index > 0 for node in self.nodes.values())
        if leader is None:
            self.report("NO LEADER at the end")
            return
        voters = set(leader.core.voters)
        for address in sorted(voters - self.nodes.keys() - self.outside):
            self.report(f"NODE DOWN {address}")
        states = {address: node.machine.counts for address, node in self.nodes.items() if address in voters}
        for address, counts in states.items():
            lost = self.acked - counts.keys()
            if lost:
                self.report(f"ACKED LOST on {address}: {len(lost)}")
            if any(count > 1 for count in counts.values()):
                self.report(f"APPLIED TWICE on {address}")
        if len({frozenset(counts.items()) for counts in states.values()}) > 1:
            self.report("STATES DIFFER")
        for address in sorted(set(self.addresses) - self.outside - voters):
            self.report(f"NOT A VOTER at the end: {address}")
