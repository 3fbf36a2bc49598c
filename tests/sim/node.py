"""A simulated node: real core, transport, journal and snapshots; simulated time, links and power cuts."""

from __future__ import annotations

import os
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dsdbd.meta.raft.api import RaftTimings
from dsdbd.meta.raft.core import RaftCore
from dsdbd.meta.raft.faults import RaftStopped
from dsdbd.meta.raft.journal import Journal
from dsdbd.meta.raft.library import LEADER
from dsdbd.meta.raft.peers import PeerTransport
from tests.sim.simulator import Crashed

if TYPE_CHECKING:
    from tests.sim.world import World

DIAL_S = 0.5


class MortalJournal(Journal):
    """A journal whose process can be killed between any two records."""

    appends_to_live: int | None = None
    dead = False

    def _append(self, kind, payload) -> None:
        if self.appends_to_live is not None:
            self._live()
        super()._append(kind, payload)

    def sync(self) -> None:
        # A leader's appends are on their way by now, and its own log is not durable yet.
        if self.appends_to_live is not None and self.has_unsynced:
            self._live()
        super().sync()

    def _live(self) -> None:
        self.appends_to_live -= 1
        if self.appends_to_live < 0:
            self.dead = True
            raise Crashed


class UnsyncedJournal(MortalJournal):
    """The negative control: it promises what is not durable."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.synced_bytes = self.size_bytes  # only what it promises itself is at risk

    def sync(self) -> None:
        self._unsynced = False


class CountingMachine:
    """Counts how often each command was applied."""

    def __init__(self, world: World, address: str) -> None:
        self.world, self.address = world, address
        self.counts: dict[str, int] = {}

    def apply(self, index: int, command: bytes) -> bytes:
        name = command.decode()
        self.world.applied(self.address, index, name)
        self.counts[name] = self.counts.get(name, 0) + 1
        return str(index).encode()

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(self.counts)

    def load(self, blob: bytes) -> None:
        self.counts = msgspec.msgpack.decode(blob)


class SimNode:
    def __init__(self, world: World, address: str, bootstrap: list[str]) -> None:
        self.world, self.address = world, address
        self.directory = world.directory / address.replace(":", "_")
        self.directory.mkdir(exist_ok=True)
        self.machine = CountingMachine(world, address)
        self.transport = PeerTransport(address)
        kind = MortalJournal if world.barrier else UnsyncedJournal
        self.journal = kind(self.directory / "raft.journal", first_members=bootstrap, sync_file=lambda _fd: None)
        self.core = RaftCore(
            address,
            self.directory,
            self.machine,
            self.transport,
            journal=self.journal,
            timings=RaftTimings(),
            has_room=lambda: True,
            compact_entries=world.compact_entries,
            snapshot_in_background=False,
        )
        self.core.on_role = self._role_changed
        world.nodes[address] = self
        self._kicked = self._telling = False
        self._attempts: dict[str, float] = {}
        self.core.doTick(0)
        self.transport.on_activity = self.kick
        self.transport.on_wanted = self._look_for_peers
        self.transport.open_for_messages = True
        self._periodic()
        self._dial()

    @property
    def alive(self) -> bool:
        return self.world.nodes.get(self.address) is self

    def _role_changed(self, _old: int, new: int) -> None:
        if new == LEADER:
            self.world.elected(self.address, self.core.raftCurrentTerm)

    def _periodic(self) -> None:
        if self.alive:
            self._tick()
            self.world.sim.after(self.core.tick_delay_s(), self._periodic)

    def kick(self) -> None:
        if not self._kicked:
            self._kicked = True
            self.world.sim.after(2e-5, self._tick)

    def _tick(self) -> None:
        self._kicked = False
        if not self.alive or self.core.fatal is not None:
            return
        try:
            self.core.doTick(0)
        except RaftStopped:
            if self.journal.dead:
                self.world.died(self)
                return
            self.world.report(f"FATAL {self.core.fatal}")
            return
        except Crashed:
            pass
        except Exception as error:
            if not self.journal.dead:
                self.world.exception(error)
        if self.journal.dead:
            # The library catches everything while it loads a snapshot; dead is dead.
            self.world.died(self)
            return
        if self.core.has_work():
            self.kick()
        due_s = self.core.tell_commit_at_s
        if due_s < inf and not self._telling:
            self._telling = True
            self.world.sim.at(max(due_s, self.world.sim.now_s), self._tell_commit)

    def _tell_commit(self) -> None:
        self._telling = False
        if self.alive and self.core.tell_commit_at_s < inf:
            self.kick()

    def _dial(self) -> None:
        if self.alive:
            self._look_for_peers()
            self.world.sim.after(DIAL_S, self._dial)

    def _look_for_peers(self) -> None:
        now_s = self.world.sim.now_s
        for address in sorted(self.transport.wanted()):
            if now_s >= self._attempts.get(address, 0.0):
                self._attempts[address] = now_s + DIAL_S
                self.world.network.dial(self.transport, address)

    def crash(self, *, power_cut: bool) -> None:
        """End at once; a power cut takes any part of what was not synced with it, in any order of pages."""
        del self.world.nodes[self.address]
        self.world.network.vanish(self.address, silent=power_cut)
        synced, size = self.journal.synced_bytes, self.journal.size_bytes
        self.journal.abandon()
        if power_cut and size > synced:
            self._lose_pages(self.journal.path, synced, size)

    def _lose_pages(self, path: Path, synced: int, size: int) -> None:
        rnd = self.world.sim.random
        end = rnd.randint(synced, size)
        os.truncate(path, end)
        if end > synced and rnd.random() < 0.3:
            hole = rnd.randint(synced, end - 1)
            with path.open("r+b") as file:
                file.seek(hole)
                file.write(bytes(min(rnd.randint(1, 64), end - hole)))
