"""What a coordinator that is gone may have left: writes that some owners have, others miss, and nobody keeps.

A coordinator answers its client when enough owners have confirmed, and keeps the batch for the others once it knows
that they may lack it. One that ends in between leaves owners that differ, and none of them has failed. So when a node
does not answer any more, or answers as another process, every owner asks the others which shards took writes a moment
ago, and pulls from them what that node coordinated then: few rows, which nobody changes any more. A read of such a
shard waits for it, because no owner knows which of them is short. Who is only cut off is found gone as well, once.

A crash of this node leaves nothing: it compares all when it starts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from dsdbd.cluster.peer_lines import Lane
from dsdbd.cluster.pieces import in_groups
from dsdbd.cluster.repair_messages import (
    LATELY_PATH,
    LatelyAnswer,
    LatelyRequest,
    Range,
    decode_answer,
    decode_request,
    encode,
)
from dsdbd.errors import DSDBError
from dsdbd.meta import views

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.shard_places import ShardPlaces
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.meta.views import ShardPlace

log = structlog.get_logger("repair")
_TICK_S = 1.0
_MARGIN_S = 3.0
"""Of what is seen once a second, of clocks that follow each other by looks, and of this node not running meanwhile."""
_REMEMBERED_S = 120.0
"""Longest time before now of which it is known what was written then; for more all is compared."""
_MOST_SHARDS = 1024
"""Shards that are looked at in this way, those written to last first; the others are compared as after any doubt."""
_AT_ONCE = 4
_ASK_TIMEOUT_S = 2.0
_METADATA_TIMEOUT_S = 2.0


class Lately:
    """Which shards of a node took writes when, and which versions it had seen by then. Pure; times are monotonic."""

    def __init__(self) -> None:
        self._took_s: dict[int, float] = {}
        self._versions: deque[tuple[float, int]] = deque()

    def took(self, shard_id: int, now_s: float) -> None:
        """A shard takes a write."""
        self._took_s[shard_id] = now_s

    def look(self, newest_version: int, now_s: float) -> None:
        """Take note of the newest version given or seen, and forget what is long ago; call it every second."""
        self._versions.append((now_s, newest_version))
        while self._versions[0][0] < now_s - 2 * _REMEMBERED_S:
            self._versions.popleft()
        self._took_s = {shard: took_s for shard, took_s in self._took_s.items() if took_s >= now_s - _REMEMBERED_S}

    def shards(self, since_s: float) -> list[int]:
        """The shards that took writes since then, the last one first."""
        found = [(took_s, shard) for shard, took_s in self._took_s.items() if took_s >= since_s]
        return [shard for _, shard in sorted(found, reverse=True)]

    def version(self, since_s: float) -> int:
        """A version below all that were given since then by nodes that hear of this one's.

        Whatever their wall clocks say: each gives greater ones than it has seen. Before the first look they are taken
        to have grown with time.
        """
        first_s, first = self._versions[0] if self._versions else (since_s, 0)
        before = first - int((first_s - since_s) * 1e9)
        return max((version for seen_s, version in self._versions if seen_s <= since_s), default=before)


def in_turn(found: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    """Shards with the nodes to look at, by the shards of each node, the hottest first. Pure."""
    ranked: dict[int, list[int]] = {}
    for rank in range(max(map(len, found.values()), default=0)):
        for node_id, shards in found.items():
            if rank < len(shards):
                ranked.setdefault(shards[rank], []).append(node_id)
    return ranked


@dataclass(slots=True)
class _Check:
    """A node that is gone: what it coordinated after ``since_s`` may be missing.

    Until ``asked`` any shard may be short, then those of ``open``; no read waits longer than ``until_s``.
    """

    number: int
    since_s: float
    until_s: float
    begun: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    open: dict[int, asyncio.Event] = field(default_factory=dict)

    def waits_for(self, shard_id: int) -> asyncio.Event | None:
        """What a read of a shard waits for; None where it need not. Any thread may call it."""
        return self.open.get(shard_id) if self.asked.is_set() else self.asked

    def end(self) -> None:
        self.asked.set()
        for event in self.open.values():
            event.set()
        self.open = {}


class Pull(Protocol):
    """Bring this node's copy what another one holds of a part of a shard."""

    def __call__(self, place: ShardPlace, from_node: int, part: Range) -> Awaitable[object]:
        """Raises DSDBError."""


class Doubt(Protocol):
    """Have copies compared soon, with everything they hold."""

    def __call__(self, *, node: int | None = None, shards: Collection[int] | None = None) -> None:
        """With one node or all, these shards or all."""


class GoneCoordinators:
    """Looks for what one node misses of coordinators that are gone. Use it on the event loop, but where it says so."""

    def __init__(self, node: Node, places: ShardPlaces, clock: VersionClock, pull: Pull, doubt: Doubt) -> None:
        self._node = node
        self._places = places
        self._clock = clock
        self._pull = pull
        self._doubt = doubt
        self._lately = Lately()
        self._checks: list[_Check] = []
        self._changed = asyncio.Event()
        self.counters = dict.fromkeys(("nodes", "shards"), 0)
        node.service_stats["goneCoordinators"] = self.counters
        if node.detector is not None:
            node.detector.on_lost(self._on_lost)

    # --- for reads and writes

    def took(self, shard_id: int) -> None:
        """Take note of a shard that a write of a client is stored in."""
        self._lately.took(shard_id, self._now_s())

    def may_lack(self, shard_id: int) -> bool:
        """Whether a read of this node's copy is to wait. Any thread may call it."""
        checks = tuple(self._checks)
        if not checks:
            return False
        now_s = self._now_s()
        return any(one.until_s > now_s and one.waits_for(shard_id) is not None for one in checks)

    def is_looking(self) -> bool:
        """Whether a read of some shard may have to wait."""
        return bool(self._checks) and any(one.until_s > self._now_s() for one in self._checks)

    async def over(self, places: Iterable[ShardPlace]) -> None:
        """Wait until this node holds what others have of coordinators that are gone, but not for long."""
        checks = tuple(self._checks)
        if not checks:
            return
        shared = [place.shard.id for place in places if len(place.shard.owners) > 1]
        for check in checks:
            try:
                async with asyncio.timeout(max(0.0, check.until_s - self._now_s())):
                    for shard_id in shared:
                        while (event := check.waits_for(shard_id)) is not None:
                            await event.wait()
            except TimeoutError:
                log.info("a read does not wait longer for what a lost coordinator may have left", node=check.number)

    # --- for other nodes

    async def lately(self, body: bytes) -> bytes:
        """Answer a LatelyRequest."""
        request = decode_request(body, LatelyRequest)
        places = self._places.all()
        touched = self._lately.shards(self._now_s() - request.ago_s)
        shared = [one for one in touched if one in places and request.data_id in places[one].shard.owners]
        return encode(LatelyAnswer(self._node.metadata.state.index, shared))

    # --- work

    def _on_lost(self, number: int, silent_s: float) -> None:
        if any(one.number == number and not one.begun for one in self._checks):
            return
        now_s, config = self._now_s(), self._node.config.cluster
        since_s = now_s - silent_s - config.write_timeout_s - config.shard_writer_timeout_s - _MARGIN_S
        self._checks.append(_Check(number, since_s, now_s + config.shard_mapper_timeout_s / 2))
        self._changed.set()

    async def run(self) -> None:
        """Look when a node is gone; runs until cancelled."""
        while True:
            self._lately.look(self._clock.last, self._now_s())
            while self._checks:
                await self._look(self._checks[0])
            self._changed.clear()
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _look(self, check: _Check) -> None:
        check.begun = True
        self.counters["nodes"] += 1
        try:
            await self._bring(check)
        except Exception:
            log.exception("looking for what a lost coordinator left failed by a defect of dsdbd", node=check.number)
            self._doubt()
        finally:
            self._checks.remove(check)
            check.end()

    async def _bring(self, check: _Check) -> None:
        since_s, ago_s = check.since_s, self._now_s() - check.since_s
        if ago_s > _REMEMBERED_S:
            self._doubt()
            return
        found = await self._written_lately(self._co_owners() - {check.number}, ago_s)
        turns = in_turn(found)
        late = list(turns)[_MOST_SHARDS:]
        if late:
            self._doubt(shards=late)
        check.open = {shard_id: asyncio.Event() for shard_id in list(turns)[:_MOST_SHARDS]}
        check.asked.set()
        part = Range(since=max(1, self._lately.version(since_s)), coordinator=check.number)
        for some in in_groups(list(check.open), _AT_ONCE):
            await asyncio.gather(*(self._bring_shard(check, shard_id, turns[shard_id], part) for shard_id in some))

    async def _bring_shard(self, check: _Check, shard_id: int, nodes: Iterable[int], part: Range) -> None:
        try:
            for node_id in nodes:
                place = self._places.get(shard_id)
                if place is None or not {self._node.data_id, node_id} <= set(place.shard.owners):
                    continue
                try:
                    await self._pull(place, node_id, part)
                except DSDBError as error:
                    log.info("an owner could not be looked at", node=node_id, shard=shard_id, reason=error.message)
                    self._doubt(node=node_id, shards={shard_id})
        finally:
            self.counters["shards"] += 1
            check.open.pop(shard_id).set()

    def _co_owners(self) -> set[int]:
        """Other nodes that are there and own shards of this one."""
        own, detector = self._node.data_id, self._node.detector
        shared = [place.shard.owners for place in self._places.all().values() if own in place.shard.owners]
        down = set() if detector is None else detector.down()
        return {owner for owners in shared for owner in owners} - down - {own}

    async def _written_lately(self, nodes: Iterable[int], ago_s: float) -> dict[int, Sequence[int]]:
        """The shards of this node that each of those took writes for; who does not say is compared with as a whole."""
        asked = sorted(nodes)
        results = await asyncio.gather(*(self._ask(node_id, ago_s) for node_id in asked), return_exceptions=True)
        found: dict[int, Sequence[int]] = {}
        for node_id, result in zip(asked, results, strict=True):
            if isinstance(result, DSDBError | TimeoutError):
                log.info("an owner does not say what it took", node=node_id, reason=str(result))
                self._doubt(node=node_id)
            elif isinstance(result, BaseException):
                raise result
            else:
                found[node_id] = result.shards
        index = max((result.index for result in results if isinstance(result, LatelyAnswer)), default=0)
        # A shard may be so new that this node has not heard of it.
        await self._node.metadata.wait_index(index, _METADATA_TIMEOUT_S)
        return found

    async def _ask(self, node_id: int, ago_s: float) -> LatelyAnswer:
        peer = views.data_node(self._node.metadata.state, node_id)
        assert peer is not None, "its number is from the metadata"
        body = encode(LatelyRequest(self._node.data_id or 0, ago_s))
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            # Reads wait for it: not behind copies.
            raw = await self._node.peers.call(
                peer.tcp_addr, "POST", LATELY_PATH, body, timeout_s=_ASK_TIMEOUT_S, lane=Lane.CONTROL
            )
        return decode_answer(raw, LatelyAnswer, peer.tcp_addr)

    def _now_s(self) -> float:
        return self._node.clock.monotonic_s()
