"""Failure detection: every node looks at every other one twice a second, over a connection of its own.

What follows from the answers is decided in ``contact.py``. A node that is down gets no writes, reads or copies until it
answers, so that nothing waits for a time-out; who wants to know of its return registers a callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog

from dsdbd.clock import elapsed_s
from dsdbd.cluster.contact import LAG_S, LOOK_PERIOD_S, WEDGED_S, Contact, Ticks, clock_ahead_s, clock_problems
from dsdbd.cluster.former_shards import UNKNOWN
from dsdbd.cluster.lateness import UNTOLD_S
from dsdbd.cluster.messages import PulseAnswer
from dsdbd.cluster.peers import Lane, PeerUnreachable
from dsdbd.cluster.way import Way
from dsdbd.decoding import decode_json
from dsdbd.errors import DSDBError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dsdbd.cluster.node import Node

log = structlog.get_logger("detector")
_TICK_S = 0.1
_LEAST_PAUSE_S = 0.05
_DOWN_LOOK_S = 1.0
"""A look at a node that is down, and not heard, ends so soon and begins anew."""


@dataclass(slots=True)
class _Watched:
    uuid: str
    address: str
    contact: Contact
    data_id: int | None
    number: int
    """Of the versions that it gives."""
    serves: bool
    settled: bool
    task: asyncio.Task[None]
    clear_index: int
    hurry: asyncio.Event
    """Set when there is a reason to look at once."""
    way: Way
    kept_for_s: float = UNTOLD_S
    clock_looked_s: float = float("-inf")
    limit: asyncio.Timeout | None = None
    """Of the look that is under way."""
    downs: int = 0
    started_ns: int = 0
    """When the process began that answered last."""


class FailureDetector:
    """What one node knows of the others being there; one per node, used on the event loop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._watched: dict[str, _Watched] = {}
        self._by_data_id: dict[int, _Watched] = {}
        self._seen_state: object = None
        self._ticks = Ticks(_TICK_S)
        self.counters = dict.fromkeys(("looks", "downs", "returns"), 0)
        node.service_stats["detector"] = self.counters
        self._on_back: list[Callable[[int], None]] = []
        self._on_serving: list[Callable[[int], None]] = []
        self._on_lost: list[Callable[[int, float], None]] = []

    # --- questions

    def is_down(self, data_id: int) -> bool:
        """Whether a data node does not answer now; False for this node and for one not looked at yet."""
        watched = self._by_data_id.get(data_id)
        return watched is not None and watched.contact.is_down

    def down(self) -> set[int]:
        """Ids of the data nodes that do not answer now."""
        return {number for number, watched in self._by_data_id.items() if watched.contact.is_down}

    def was_paused(self) -> bool:
        """Whether this node did not run until just now, and nobody was told yet. Any thread may call it."""
        return self._ticks.was_paused(elapsed_s())

    def since_s(self, data_id: int) -> float | None:
        """Seconds since a data node went down, None while it is up or unknown."""
        watched = self._by_data_id.get(data_id)
        if watched is None or not watched.contact.is_down:
            return None
        return time.monotonic() - watched.contact.since_s

    def is_clean(self, data_id: int) -> bool:
        """Whether a data node answers, has its storage open, and its copies equal those of others, as it said last."""
        watched = self._by_data_id.get(data_id)
        return watched is None or (watched.serves and watched.settled and not watched.contact.is_down)

    def clear(self) -> dict[int, int]:
        """What each data node that answers said last of what it holds of others (FormerShards.clear_index)."""
        return {
            number: watched.clear_index for number, watched in self._by_data_id.items() if not watched.contact.is_down
        }

    def kept_for_s(self, uuids: Iterable[str]) -> float:
        """The longest time for which one of these nodes may keep writes for others, as each said last; 0 without nodes.

        UNTOLD_S where one has not said since this node knows of it. Any thread may call it.
        """
        watched = [self._watched.get(uuid) for uuid in uuids]
        told = [UNTOLD_S if one is None else one.kept_for_s for one in watched]
        return UNTOLD_S if UNTOLD_S in told else max(told, default=0.0)

    def silent(self) -> dict[str, str]:
        """Address and reason of every node that is down."""
        return {
            one.address: f"{one.contact.reason or 'it does not answer'}, for {self._age_s(one):.0f}s"
            for one in self._watched.values()
            if one.contact.is_down
        }

    def seen_s(self) -> dict[str, float]:
        """Seconds since each node last answered, by address."""
        now_s = time.monotonic()
        return {one.address: max(0.0, now_s - one.contact.seen_s) for one in self._watched.values()}

    def clock_looks(self) -> list[tuple[float, float]]:
        """When the clock of each node that answers was looked at last, and how many seconds it is ahead of this one."""
        return [
            (one.clock_looked_s, one.contact.clock_ahead_s)
            for one in self._watched.values()
            if not one.contact.is_down and one.clock_looked_s > float("-inf")
        ]

    def clock_problems(self) -> list[str]:
        """Sentences about clocks that are off."""
        return clock_problems(
            {one.address: one.contact.clock_ahead_s for one in self._watched.values() if not one.contact.is_down}
        )

    def figures(self) -> dict[str, dict[str, float]]:
        """What is known of every node, by address: names as in ``dsdb_peer`` of the metrics."""
        now_s, found = time.monotonic(), {}
        for one in self._watched.values():
            breakers_open, openings = self._node.peers.breaker_counts(one.address)
            found[one.address] = {
                "up": float(not one.contact.is_down),
                "downs": float(one.downs),
                "seenSecondsAgo": max(0.0, now_s - one.contact.seen_s),
                "clockAheadSeconds": one.contact.clock_ahead_s,
                "roundTripSeconds": one.way.rtt_s,
                "packetsResentLately": float(one.way.lost[0]),
                "breakersOpen": float(breakers_open),
                "breakerOpenings": float(openings),
            }
        return found

    def way_problems(self) -> list[str]:
        """Sentences about the ways to nodes that answer."""
        found = {one.address: one.way.problem() for one in self._watched.values() if not one.contact.is_down}
        return [f"{address}: {problem}" for address, problem in sorted(found.items()) if problem]

    def heard(self, uuid: str) -> None:
        """A node has asked something of this one: where it counts as down, look at it now."""
        watched = self._watched.get(uuid)
        if watched is None:
            return
        watched.contact.heard(time.monotonic())
        if watched.contact.is_down:
            watched.hurry.set()

    def on_back(self, callback: Callable[[int], None]) -> None:
        """Call with the id of every data node that answers again, on the event loop."""
        self._on_back.append(callback)

    def on_serving(self, callback: Callable[[int], None]) -> None:
        """Call on the event loop with the id of every data node of which there is reason to believe that it serves now.

        It answers again and its storage is open, or the way to it, which lost or delayed packets, is mended.
        """
        self._on_serving.append(callback)

    def on_lost(self, callback: Callable[[int, float], None]) -> None:
        """Call on the event loop for every node that does not answer any more, or answers as another process.

        With the number of the versions that it gives, and for how many seconds it had not answered.
        """
        self._on_lost.append(callback)

    # --- work

    async def run(self) -> None:
        """Look at the others; runs until cancelled."""
        self._ticks.tick(time.monotonic(), elapsed_s())
        try:
            while True:
                self._take_members()
                now_s = time.monotonic()
                gone_s = elapsed_s()
                lag_s = self._ticks.late_s(now_s)
                if self._ticks.was_paused(gone_s):
                    log.warning("this node did not run for a while", lag_s=round(gone_s - self._ticks.elapsed_s, 1))
                    for watched in list(self._watched.values()):
                        # What it did meanwhile is not known, as if it had been away.
                        self._tell(self._on_back, watched)
                self._ticks.tick(now_s, gone_s)
                raft_ages_s = self._raft_ages_s()
                for watched in list(self._watched.values()):
                    if lag_s > LAG_S:
                        watched.contact.slept(lag_s, now_s)
                    if watched.address in raft_ages_s:
                        watched.contact.heard(now_s - raft_ages_s[watched.address])
                    self._tick(watched, now_s)
                await asyncio.sleep(_TICK_S)
        finally:
            tasks = [watched.task for watched in self._watched.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _raft_ages_s(self) -> dict[str, float]:
        """Seconds since something came from other meta nodes over their own connections."""
        peers = () if self._node.raft is None else self._node.raft.status().peers
        return {peer.address: peer.last_contact_s for peer in peers if peer.last_contact_s is not None}

    def _tick(self, watched: _Watched, now_s: float) -> None:
        contact = watched.contact
        if not contact.is_down:
            contact.seen_s = max(contact.seen_s, self._node.peers.answered_s.get(watched.address, 0.0))
            # Not those of copies: whoever sends as fast as a network can loses packets.
            peers, address = self._node.peers, watched.address
            others = peers.readings(address, Lane.CONTROL, Lane.WRITE, Lane.READ)
            doubted, named = watched.way.is_doubtful, bool(watched.way.problem())
            watched.way.look(now_s, peers.readings(address, Lane.PULSE), others)
            if watched.way.is_doubtful and not (doubted and named):
                watched.hurry.set()
            if named and watched.serves and not watched.way.problem():
                self._tell(self._on_serving, watched)
        if contact.tick(now_s):
            reason = contact.reason or "it does not answer"
            log.warning("a node is down", address=watched.address, data_id=watched.data_id, reason=reason)
            self._node.peers.set_down(watched.address, reason)
            watched.downs += 1
            self.counters["downs"] += 1
            limit = watched.limit
            if limit is not None and not limit.expired() and not contact.is_heard(now_s):
                # A fresh connection finds a healed way faster.
                limit.reschedule(asyncio.get_running_loop().time())
            self._tell_lost(watched, now_s - contact.seen_s)

    def _tell(self, callbacks: list[Callable[[int], None]], watched: _Watched) -> None:
        if watched.data_id is not None:
            _tell_each([partial(callback, watched.data_id) for callback in callbacks])

    def _tell_lost(self, watched: _Watched, silent_s: float) -> None:
        _tell_each([partial(callback, watched.number, silent_s) for callback in self._on_lost])

    def _take_members(self) -> None:
        """Watch the members that the metadata names now, and nobody else."""
        state = self._node.metadata.state
        if state is self._seen_state:
            return
        self._seen_state = state
        data = {one.uuid: one for one in state.data_nodes}
        meta = {one.uuid: one for one in state.meta_nodes}
        wanted = {one.uuid: one.tcp_addr for one in state.meta_nodes}
        wanted.update((one.uuid, one.tcp_addr) for one in state.data_nodes)
        wanted.pop(self._node.uuid, None)
        for uuid, watched in list(self._watched.items()):
            if wanted.get(uuid) != watched.address:
                watched.task.cancel()
                del self._watched[uuid]
                self._node.peers.forget(watched.address)
        for uuid, address in wanted.items():
            if uuid not in self._watched:
                contact = Contact.begin(time.monotonic())
                task = asyncio.get_running_loop().create_task(self._look_again_and_again(uuid))
                self._watched[uuid] = _Watched(
                    uuid, address, contact, None, 0, True, True, task, UNKNOWN, asyncio.Event(), Way()
                )
            self._watched[uuid].data_id = data[uuid].id if uuid in data else None
            self._watched[uuid].number = (data.get(uuid) or meta[uuid]).id
        self._by_data_id = {one.data_id: one for one in self._watched.values() if one.data_id is not None}

    async def _look_again_and_again(self, uuid: str) -> None:
        while (watched := self._watched.get(uuid)) is not None:
            began_s = time.monotonic()
            await self._look(watched)
            pause_s = max(_LEAST_PAUSE_S, began_s + LOOK_PERIOD_S - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await watched.hurry.wait()
            watched.hurry.clear()

    async def _look(self, watched: _Watched) -> None:
        node, contact = self._node, watched.contact
        began_s = time.monotonic()
        timeout_s = _DOWN_LOOK_S if contact.is_down and not contact.is_heard(began_s) else WEDGED_S
        if watched.way.is_doubtful:
            node.peers.renew(watched.address, Lane.PULSE)
        self.counters["looks"] += 1
        sent_ns = node.clock.now_ns()
        try:
            async with asyncio.timeout(timeout_s) as watched.limit:
                try:
                    raw = await node.peers.call(watched.address, "GET", "/cluster/pulse", timeout_s=timeout_s)
                finally:
                    watched.limit = None
            answer = decode_json(raw, PulseAnswer)
        except PeerUnreachable as error:
            contact.failed(error.message, refused=error.refused)
        except TimeoutError:
            contact.failed(f"no answer within {time.monotonic() - began_s:.1f}s", refused=False)
        except (DSDBError, msgspec.MsgspecError) as error:
            contact.failed(str(error), refused=False)
        else:
            if answer.uuid != watched.uuid:
                contact.failed("another node answers at its address", refused=False)
                return
            was_open, watched.serves, watched.settled = watched.serves, answer.serves, answer.settled
            watched.clear_index, watched.kept_for_s = answer.clear_index, answer.kept_for_s
            if node.versions is not None:
                # So that a node that has just come gives none that are older than what others confirmed before.
                node.versions.observe(answer.version)
            ahead_s = clock_ahead_s(sent_ns, node.clock.now_ns(), answer.now_ns)
            watched.clock_looked_s = began_s
            silent_s = time.monotonic() - contact.seen_s
            is_another = watched.started_ns not in (0, answer.started_ns)
            watched.started_ns = answer.started_ns
            is_back = contact.answered(time.monotonic(), ahead_s)
            if is_back:
                log.info("a node is back", address=watched.address, data_id=watched.data_id)
                self.counters["returns"] += 1
                watched.way.begin_anew()
                node.peers.set_up(watched.address)
            elif is_another:
                # It ended and began between two looks.
                self._tell_lost(watched, silent_s)
            if is_back or is_another:
                self._tell(self._on_back, watched)
            if answer.serves and (is_back or is_another or not was_open):
                self._tell(self._on_serving, watched)

    @staticmethod
    def _age_s(watched: _Watched) -> float:
        return time.monotonic() - watched.contact.since_s


def _tell_each(calls: Iterable[Callable[[], None]]) -> None:
    for call in calls:
        try:
            call()
        except Exception:
            log.exception("a callback of the failure detector failed by a defect of dsdbd")
