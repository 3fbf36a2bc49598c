"""Anti-entropy: every owner compares its copies of shards with the other owners', and pulls what it lacks.

Nobody has to ask for it. It repairs what no coordinator knows any more: a queue that was lost, a file that was set
aside, a crash between an answer and what had to be kept. A crash of this node leaves nothing: it compares anew.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog

from dsdbd.cluster.former_shards import FormerShards, may_forget
from dsdbd.cluster.gone import GoneCoordinators
from dsdbd.cluster.hybrid_clock import Settled
from dsdbd.cluster.lateness import late_ns
from dsdbd.cluster.pieces import in_groups
from dsdbd.cluster.repair_complete import Completion
from dsdbd.cluster.repair_lost import LostShards
from dsdbd.cluster.repair_messages import (
    SUMMARIES_PATH,
    Range,
    SummariesAnswer,
    SummariesRequest,
    Summary,
    decode_answer,
    encode,
)
from dsdbd.cluster.repair_plan import (
    EVERYTHING,
    KnownCells,
    Ledger,
    Outcome,
)
from dsdbd.cluster.repair_progress import RecentRepairs, RepairProgress
from dsdbd.cluster.repair_pull import Pulled, Puller
from dsdbd.cluster.repair_source import RepairSource
from dsdbd.cluster.transfer_plan import Rate
from dsdbd.errors import DSDBError
from dsdbd.meta import views

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.repair_progress import Row
    from dsdbd.cluster.repair_source import Glance
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.meta.views import ShardPlace
    from dsdbd.storage import Shard

log = structlog.get_logger("repair")
_SETTLE_S = 2.0
"""Younger values of a shard that is written to are on their way to all owners: no difference yet."""
_SHARDS_AT_ONCE = 128
"""Shards whose numbers are asked for in one request."""
_TIMEOUT_S = 10.0
"""Silence of the other side; it shows signs of life while it works."""
_LEAST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_BARRIER_TIMEOUT_S = 5.0


class _Look(NamedTuple):
    """A comparison that begins: of what, and the ledger's doubts before."""

    part: Range
    doubts: int

    def outcome(self, held: frozenset[int], took_s: float, *, equal: bool) -> Outcome:
        return Outcome(True, equal, took_s, held, self.doubts, bounded=bool(self.part.below))


class Repair:
    """Keeps this node's copies of shards equal to those of other owners; use it on the event loop."""

    def __init__(self, node: Node, clock: VersionClock) -> None:
        self._node = node
        self._config = node.config.anti_entropy
        self.source = RepairSource(node)
        self._clock = clock
        self._settled = Settled(_SETTLE_S)
        self._known = KnownCells()
        self._puller = Puller(node, self.source, clock, Rate(self._config.max_throughput_bytes), self._known)
        self._unbound = Puller(node, self.source, clock, Rate(0), self._known)
        self._ledger = Ledger(self._config.check_interval_s)
        self._recent = RecentRepairs()
        self._changed = asyncio.Event()
        self._rounds: dict[int, asyncio.Task[None]] = {}
        self._seen_changes: dict[int, tuple[int, float]] = {}
        self._doubted: dict[int, tuple[Shard, int]] = {}
        self.former = FormerShards(node)
        self._owned: dict[int, tuple[int, ...]] = {}
        self._owned_index = 0
        self._may_forget = False
        self._arriving: frozenset[int] = frozenset()
        self._all_clean = False
        self._known_places: dict[int, ShardPlace] | None = None
        self.counters = dict.fromkeys(
            ("compared", "different", "rows", "bytes", "deletions", "failed", "completed", "unequal"), 0
        )
        fast, rated = (partial(self._pull, puller) for puller in (self._unbound, self._puller))
        self.gone = GoneCoordinators(node, self.source.places, clock, rated, self.doubt)
        self.completion = Completion(node, self.source.places, self.counters, fast, rated)
        node.service_stats["antiEntropy"] = self.counters
        node.metadata.on_change(lambda _: self._changed.set())
        if node.detector is not None:
            # What a node did while it was out of reach is not known.
            node.detector.on_back(lambda node_id: self.doubt(node=node_id))

    # --- for others on this node

    def is_clean(self, shard_id: int) -> bool:
        """Whether this node's copy of a shard is known to hold all that a majority of the owners does.

        It is not after a start, and after contact to other owners was lost, until it was compared.
        """
        if not self._config.enabled:
            return True
        if self._node.detector is not None and self._node.detector.was_paused():
            return False
        # A thread may have found damage of which the ledger has not heard yet.
        damages = self._damages(shard_id)
        return (damages is None or damages == self._doubted.get(shard_id)) and self._ledger.is_clean(shard_id)

    def is_settled(self) -> bool:
        """Whether that is so for all copies of this node, as of a moment ago."""
        if not self._config.enabled:
            return True
        if self._node.transfer is not None and self._node.transfer.switching.late():
            return False
        return self._all_clean and not (self._node.detector is not None and self._node.detector.was_paused())

    def settled(self, shard_id: int) -> int:
        """The version up to which every owner is known to have this copy's deletions. Any thread may call it.

        0, while a node takes a copy, or another one may hold what a former owner held: it may lack them.
        """
        if not self._config.enabled:
            return EVERYTHING
        if not self._may_forget or shard_id in self._arriving:
            return 0
        shard = None if self._node.store is None else self._node.store.shard(shard_id)
        return 0 if shard is None else self._ledger.settled(shard_id, shard.kept_tombstones())

    def refused(self, *shards: int) -> None:
        """Doubt copies that did not take something which other owners may have taken."""
        for shard_id in shards:
            self._ledger.refused(shard_id, self._now_s())
        self._all_clean = self._ledger.all_clean()

    def damaged(self, shard_id: int) -> None:
        """Compare a shard at once of which a file was found damaged."""
        self._doubt_damaged([shard_id])
        self._changed.set()

    def progress(self) -> list[Row]:
        """Pulls under way and lately done at this node."""
        return self._recent.rows()

    # --- one pull

    async def _pull(self, puller: Puller, place: ShardPlace, from_node: int, part: Range) -> Pulled:
        now_ns = self._node.clock.now_ns()
        progress = RepairProgress.begin(place, from_node, self._node.data_id or 0, now_ns)
        self._recent.begin(progress)
        error = ""
        try:
            return await puller.pull(place, from_node, part, progress, now_ns - late_ns(self._node))
        except DSDBError as failure:
            error = failure.message
            raise
        except BaseException as failure:
            error = f"stopped: {type(failure).__name__}"
            raise
        finally:
            self._recent.end(progress, error if progress.brought_anything else "")
            self.counters["rows"] += progress.rows
            self.counters["bytes"] += progress.bytes
            self.counters["deletions"] += progress.tombstones

    # --- by itself

    async def run(self) -> None:
        """Compare and repair; runs until cancelled."""
        if not self._config.enabled:
            return
        await self._first_metadata()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(LostShards(self._node, self).run())
                group.create_task(self.gone.run())
                while True:
                    self._changed.clear()
                    self._begin_rounds(group)
                    next_s = self._ledger.next_s()
                    pause_s = _LONGEST_PAUSE_S if next_s is None else next_s - self._now_s()
                    try:
                        async with asyncio.timeout(min(max(pause_s, _LEAST_PAUSE_S), _LONGEST_PAUSE_S)):
                            await self._changed.wait()
                    except TimeoutError:
                        pass
        finally:
            self.source.close()

    async def _first_metadata(self) -> None:
        """Wait for metadata as new as any: copies that come to be from then on need no first comparison."""
        while True:
            try:
                await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
            except DSDBError:
                await asyncio.sleep(_LONGEST_PAUSE_S)
            else:
                return

    def _begin_rounds(self, group: asyncio.TaskGroup) -> None:
        own, now_s = self._node.data_id, self._now_s()
        if own is None or self._node.store is None:
            return
        self._settled_version()
        places = self.source.places.all()
        if places is not self._known_places:
            self._known_places = places
            owned = {
                shard_id: [owner for owner in place.shard.owners if owner != own]
                for shard_id, place in places.items()
                if own in place.shard.owners
            }
            self._know_writers(places.values(), own)
            self._ledger.know(owned, now_s)
            self.source.forget_others(owned)
            self._seen_changes = {one: seen for one, seen in self._seen_changes.items() if one in owned}
            self._doubted = {one: seen for one, seen in self._doubted.items() if one in owned}
        self._may_forget = self._nobody_lacks_deletions(own)
        self.counters["unequal"] = self._ledger.unequal()
        self._all_clean = self._ledger.all_clean()
        detector = self._node.detector
        for node_id, shards in self._ledger.due(now_s).items():
            busy = self._rounds.get(node_id)
            if busy is not None and not busy.done():
                continue
            if detector is not None and detector.is_down(node_id):
                for shard_id in shards:
                    self._ledger.failed((shard_id, node_id), now_s)
                continue
            self._rounds[node_id] = group.create_task(self._round(node_id, shards))

    def _know_writers(self, places: Iterable[ShardPlace], own: int) -> None:
        """Note by which metadata the shards of this node got the owners they have."""
        mine = [place.shard for place in places if own in place.shard.owners]
        owned = {shard.id: views.writers(shard) for shard in mine}
        if owned == self._owned:
            return
        # Before the ledger forgets an owner: it counts from then on as one that may hold what it held.
        self._may_forget = False
        self._owned, self._owned_index = owned, self._node.metadata.state.index
        self._arriving = frozenset(shard.id for shard in mine if shard.incoming)

    def _nobody_lacks_deletions(self, own: int) -> bool:
        others = {node.id for node in self._node.metadata.state.data_nodes} - {own}
        detector = self._node.detector
        return may_forget(others, {} if detector is None else detector.clear(), self._owned_index)

    async def _round(self, node_id: int, shards: Sequence[int]) -> None:
        """Compare shards with one other node, one after another; raises nothing."""
        try:
            for some in in_groups(shards, _SHARDS_AT_ONCE):
                try:
                    await self._compare(node_id, some)
                except DSDBError as error:
                    log.info("copies could not be compared", node=node_id, reason=error.message)
                    self.counters["failed"] += 1
                    for shard_id in some:
                        self._ledger.failed((shard_id, node_id), self._now_s())
        except Exception:
            log.exception("repair failed by a defect of dsdbd", node=node_id)
            for shard_id in shards:
                self._ledger.failed((shard_id, node_id), self._now_s())
        finally:
            self._changed.set()

    async def _compare(self, node_id: int, shards: Sequence[int]) -> None:
        peer = views.data_node(self._node.metadata.state, node_id)
        places = [place for shard_id in shards if (place := self.source.places.get(shard_id)) is not None]
        if peer is None or not places or self._node.data_id is None:
            return
        self._doubt_damaged(place.shard.id for place in places)
        looks = {place.shard.id: self._look((place.shard.id, node_id)) for place in places}
        request = SummariesRequest(
            self._node.metadata.state.index,
            self._node.data_id,
            [(shard_id, look.part.below) for shard_id, look in looks.items()],
        )
        call = self._node.peers.call(peer.tcp_addr, "POST", SUMMARIES_PATH, encode(request), timeout_s=_TIMEOUT_S)
        # Both sides look at the same time.
        asked = asyncio.ensure_future(call)
        try:
            glances = await self._glances(node_id, places, looks)
            answer = decode_answer(await asked, SummariesAnswer, peer.tcp_addr)
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        theirs = {one.shard_id: one for one in answer.summaries}
        for place in places:
            glance, other = glances.get(place.shard.id), theirs.get(place.shard.id)
            if glance is None or other is None:
                self._ledger.failed((place.shard.id, node_id), self._now_s())
                continue
            await self._settle(place, node_id, glance, other, answer.kept_bytes, looks[place.shard.id])

    async def _glances(
        self, node_id: int, places: Sequence[ShardPlace], looks: Mapping[int, _Look]
    ) -> dict[int, Glance]:
        """The copies of this node in numbers; one that cannot be read is left out, and holds up no other."""
        found = {}
        for place in places:
            try:
                found[place.shard.id] = await self.source.glance(place, looks[place.shard.id].part.below)
            except DSDBError as error:
                log.info("a copy could not be compared", shard=place.shard.id, node=node_id, reason=error.message)
                self.counters["failed"] += 1
        return found

    async def _settle(
        self, place: ShardPlace, node_id: int, own: Glance, other: Summary, kept_bytes: int, look: _Look
    ) -> None:
        """Pull what the other node has more of a shard, if it has."""
        pair = place.shard.id, node_id
        self.counters["compared"] += 1
        if (own.total, own.tombstones) == (other.total, other.tombstones):
            self._ledger.compared(pair, look.outcome(own.held, own.took_s, equal=True), self._now_s())
            return
        self._ledger.differs(pair)
        if self._ledger.leave_to_handoff(pair, kept_bytes, self._now_s()):
            return
        self.counters["different"] += 1
        try:
            pulled = await self._pull(self._puller, place, node_id, look.part)
        except DSDBError as error:
            log.info("a copy could not be repaired", shard=place.shard.id, node=node_id, reason=error.message)
            self.counters["failed"] += 1
            self._ledger.failed(pair, self._now_s())
            return
        outcome = look.outcome(pulled.held, own.took_s + pulled.took_s, equal=pulled.equal)
        self._ledger.compared(pair, outcome, self._now_s())

    def _doubt_damaged(self, shards: Iterable[int]) -> None:
        """Take note of files that were found damaged: what these copies hold is not known any more."""
        for shard_id in shards:
            damages = self._damages(shard_id)
            if damages is not None and self._doubted.get(shard_id) != damages:
                self._doubted[shard_id] = damages
                self._ledger.wake(self._now_s(), shards={shard_id})
                self._all_clean = False

    def _damages(self, shard_id: int) -> tuple[Shard, int] | None:
        """The copy of a shard in which files were found damaged, and how often."""
        shard = None if self._node.store is None else self._node.store.shard(shard_id)
        return None if shard is None or not shard.damages else (shard, shard.damages)

    def _look(self, pair: tuple[int, int]) -> _Look:
        below = 0 if self._ledger.is_doubtful(pair) else self._below(pair[0])
        return _Look(Range(below=below), self._ledger.doubts(pair))

    def _below(self, shard_id: int) -> int:
        """The version below which values count now; 0 for all, where nothing has changed for a while."""
        store, now_s = self._node.store, self._now_s()
        shard = None if store is None else store.shard(shard_id)
        if shard is None:
            return 0
        changes, since_s = self._seen_changes.get(shard_id, (-1, now_s))
        if shard.changes != changes:
            since_s = now_s
            self._seen_changes[shard_id] = shard.changes, now_s
        if now_s - since_s >= _SETTLE_S:
            return 0
        return self._settled_version()

    def _settled_version(self) -> int:
        """The version below which all were given so long ago that they are no more on their way."""
        return self._settled.look(self._now_s(), self._node.clock.now_ns(), self._clock.last)

    def doubt(self, *, node: int | None = None, shards: Collection[int] | None = None) -> None:
        """Compare at once, with one node or all, these shards or all."""
        self._ledger.wake(self._now_s(), shards=shards, node=node)
        # Others ask before the next look at the ledger.
        self._all_clean = self._ledger.all_clean()
        self._changed.set()

    def _now_s(self) -> float:
        return self._node.clock.monotonic_s()
