"""Taking copies of shards: what this node does for every shard in whose ``incoming`` the metadata names it.

Files first, as they lie at an owner; then what the owners hold beyond them, until a comparison finds nothing; then one
command makes this node an owner. Writes reach it all the while. Nothing but the metadata says what is to be done, so
whatever ends in the middle is taken up again by the next look, here or after a start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import structlog

from dsdbd.cluster import segment_fetch
from dsdbd.cluster.gentle import gentle_threads
from dsdbd.cluster.segment_messages import sums_of
from dsdbd.cluster.shard_places import key_of
from dsdbd.cluster.switching import Switching, of_each
from dsdbd.cluster.transfer_files import Workspace, remove_leftovers
from dsdbd.cluster.transfer_plan import (
    CANCELLED,
    COMPARING,
    COPYING,
    DONE,
    FAILED,
    WAITING,
    MoveProgress,
    Rate,
    copy_sources,
    may_complete,
    next_pause_s,
    too_few_compared,
)
from dsdbd.cluster.whole_pull import WholePull
from dsdbd.errors import CorruptData, DiskFull, DSDBError, ShardUnavailable
from dsdbd.meta import views
from dsdbd.meta.commands import CompleteMove
from dsdbd.storage import ShardKey
from dsdbd.storage.compaction import has_room
from dsdbd.storage.tombstones import decode_tombstones

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.segment_messages import FileEntry, Listing
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.meta.state import DataNode, MetaState
    from dsdbd.meta.views import ShardPlace
    from dsdbd.storage import Replica, Store

log = structlog.get_logger("transfer")
_BARRIER_TIMEOUT_S = 5.0
_AGAIN_S = 0.3
"""Pause between two comparisons of a copy that does not hold everything yet."""
_COMPARISONS = 20
"""Comparisons in a row that find something, after which the copy begins anew with the files."""
_LOOK_FOR_SPACE_S = 1.0
_RECENT = 50
"""Copies that ended which are still shown."""


class Transfer:
    """The copies one node is taking. Use it on the event loop."""

    def __init__(self, node: Node, clock: VersionClock) -> None:
        """``clock`` is told of versions that come, so that what this node writes later is newer."""
        self._node = node
        self._clock = clock
        self._config = node.config.transfer
        self._rate = Rate(self._config.max_throughput_bytes)
        self._pulls = WholePull(node, clock, self._rate)
        self.switching = Switching(node, self._pulls)
        self._changed = asyncio.Event()
        self._better = asyncio.Event()
        """Set, and replaced by a new one, when another node is back and open: what failed may go well now."""
        self._room = asyncio.Semaphore(self._config.max_shards)
        self._receiving = gentle_threads(self._config.max_shards, "dsdb-copy")
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._under_way: dict[int, MoveProgress] = {}
        self._recent: deque[MoveProgress] = deque(maxlen=_RECENT)
        self.counters = dict.fromkeys(("shards", "files", "bytes", "failures"), 0)
        node.service_stats["transfer"] = self.counters
        node.metadata.on_change(lambda _: self._changed.set())
        if node.detector is not None:
            node.detector.on_serving(self._try_again)

    def progress(self) -> list[dict[str, Any]]:
        """Copies under way and lately ended, as plain values (``MoveProgress.as_row``)."""
        return [one.as_row() for one in (*self._under_way.values(), *self._recent)]

    def copied_bytes(self) -> int:
        """What has come so far of the copies under way."""
        return sum(one.done_bytes for one in self._under_way.values())

    def problems(self) -> list[str]:
        """Sentences for /health: copies that do not get on."""
        waiting = [
            f"shard {shard_id} is not read from this node yet: too few of its former owners answer, and what they "
            "confirmed last may be missing here"
            for shard_id in self.switching.late()
        ]
        return waiting + [
            f"shard {one.shard_id} of {one.database!r} cannot be copied to this node yet: {one.error}"
            for one in self._under_way.values()
            if one.error
        ]

    async def run(self) -> None:
        """Take what the metadata orders; runs until cancelled."""
        await self._tidy()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    wanted = self._wanted()
                    for shard_id, place in wanted.items():
                        if shard_id not in self._tasks:
                            self._tasks[shard_id] = group.create_task(self._take_until_done(place))
                    gone = [shard_id for shard_id in self._tasks if shard_id not in wanted]
                    for shard_id in gone:
                        await self._end(shard_id)
                    if gone:
                        await self._tidy()
                    await self._changed.wait()
        finally:
            self._receiving.shutdown(wait=False, cancel_futures=True)
            await self.switching.close()

    def _wanted(self) -> dict[int, ShardPlace]:
        """The shards this node shall take, by id, the newest times first: they are asked for most."""
        node = self._node
        if node.data_id is None or node.store is None:
            return {}
        places = views.shards_incoming(node.metadata.state, node.data_id)
        return {place.shard.id: place for place in sorted(places, key=lambda place: -place.group.end_ns)}

    async def _end(self, shard_id: int) -> None:
        """The metadata does not want this copy any more: it is complete, or was cancelled."""
        task = self._tasks.pop(shard_id)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        progress = self._under_way.pop(shard_id, None)
        if progress is None:
            return
        progress.ended_ns = self._node.clock.now_ns()
        place = views.find_shard(self._state(), shard_id)
        if place is not None and progress.to_node in place.shard.owners:
            progress.state, progress.error = DONE, ""
            self.counters["shards"] += 1
            progress.enter(DONE, self._now_s())
            took_s = {f"{phase}_s": round(seconds, 3) for phase, seconds in progress.phases_s.items()}
            log.info("this node holds a copy of a shard", shard=shard_id, bytes=progress.total_bytes, **took_s)
        else:
            progress.state, progress.error = CANCELLED, "the copy is not wanted any more"
        self._recent.append(progress)

    async def _tidy(self) -> None:
        """Remove from the disk what was begun for copies that are not wanted any more."""
        if self._node.data_id is None or self._node.store is None:
            return
        try:
            # A node that has just started may hold old metadata; what is still wanted must not go.
            await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
            wanted = frozenset(self._wanted())
            await asyncio.to_thread(remove_leftovers, self._node.config.data.dir, wanted.__contains__)
        except (DSDBError, OSError) as error:
            log.info("what is left of former copies stays for now", reason=str(error))

    async def _take_until_done(self, place: ShardPlace) -> None:
        """Take one copy, again after each failure, until it is complete; cancelled when it is not wanted any more."""
        node, shard_id = self._node, place.shard.id
        assert node.data_id is not None
        arrival = next(one for one in place.shard.incoming if one.node == node.data_id)
        progress = MoveProgress(
            shard_id,
            place.database.name,
            place.policy.name,
            node.data_id,
            arrival.replaces,
            started_ns=arrival.begun_ns,
        )
        self._under_way[shard_id] = progress
        failures = 0
        while True:
            # From before the attempt: what is better since then it may have missed.
            better, full = self._better, False
            progress.enter(WAITING, self._now_s())
            try:
                async with self._room:
                    await self._take(place, progress)
                return
            except (DSDBError, OSError) as error:
                reason, full = str(error), isinstance(error, DiskFull)
                log.warning("a shard cannot be copied yet", shard=shard_id, reason=reason, failures=failures)
            except Exception:
                # One shard's trouble ends neither the others' moves nor the daemon.
                reason = "a defect of dsdbd; the log has the details"
                log.exception("a shard cannot be copied by a defect of dsdbd", shard=shard_id)
            failures += 1
            self.counters["failures"] += 1
            progress.state, progress.error = FAILED, reason
            pause_s = next_pause_s(failures, self._config.retry_interval_s, self._config.retry_max_interval_s)
            if await self._pause(better, pause_s, progress, full=full):
                failures, progress.error = 0, ""

    async def _pause(self, better: asyncio.Event, pause_s: float, progress: MoveProgress, *, full: bool) -> bool:
        """Wait before the next attempt; True, and no longer, when there is reason to believe that it goes well now.

        Another node is back, or where the disk was ``full`` there is space.
        """
        until_s = self._now_s() + pause_s
        while (left_s := until_s - self._now_s()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_FOR_SPACE_S) if full else left_s):
                    await better.wait()
                    return True
            if full:
                with contextlib.suppress(OSError):
                    if has_room(self._node.config.data.dir, progress.total_bytes - progress.done_bytes):
                        return True
        return False

    def _try_again(self, _: int) -> None:
        better, self._better = self._better, asyncio.Event()
        better.set()
        for one in self._under_way.values():
            # Also of those that compare: a turn takes a while, and says it again where it is still so.
            one.error = ""

    async def _take(self, place: ShardPlace, progress: MoveProgress) -> None:
        """Files, differences, ownership; in this order. Raises DSDBError and OSError."""
        store = self._store()
        key = key_of(place)
        replica = await asyncio.to_thread(store.make_replica, key, place.group.start_ns, place.group.end_ns)
        work = Workspace(replica.shard.directory)
        await asyncio.to_thread(work.open)
        progress.state = COPYING
        await self._copy_files(store, key, replica, work, progress)
        progress.state, progress.error = COMPARING, ""
        progress.enter(COMPARING, self._now_s())
        await self._compare(place, progress)
        progress.enter("completing", self._now_s())
        # A crash before this compares once more; after it, the work that is left on the disk is removed by the start.
        await self._node.metadata.propose(CompleteMove(place.shard.id, progress.to_node))

    # --- files

    async def _copy_files(
        self, store: Store, key: ShardKey, replica: Replica, work: Workspace, progress: MoveProgress
    ) -> None:
        """Copy from the first owner that gives its files; raises the last one's error where none does."""
        place = self._place(key.shard_id)
        failure: DSDBError = ShardUnavailable(f"shard {key.shard_id} has no owner")
        for source in copy_sources(place.shard, self._down()):
            try:
                await self._copy_from(source, store, key, replica, work, progress)
            except DiskFull:
                raise
            except DSDBError as error:
                failure = error
                progress.error = error.message
            else:
                return
        raise failure

    async def _copy_from(
        self,
        source: int,
        store: Store,
        key: ShardKey,
        replica: Replica,
        work: Workspace,
        progress: MoveProgress,
    ) -> None:
        peer = self._peer(source)
        progress.enter("listing", self._now_s())
        async with segment_fetch.listing(self._node.peers, peer.tcp_addr, key.shard_id) as listing:
            self._clock.observe(listing.version)
            progress.enter("files", self._now_s())
            progress.from_node, progress.error = source, ""
            progress.total_bytes = sum(entry.size_bytes for entry in listing.files)
            progress.done_bytes = sum(entry.size_bytes for entry in listing.files if work.has(source, entry))
            await asyncio.to_thread(work.keep_parts, source, listing.files)
            tombstones = decode_tombstones(listing.tombstones)
            adopting: asyncio.Task[None] | None = None
            try:
                for index, entry in enumerate(listing.files):
                    if not work.has(source, entry):
                        part, digest = await self._fetch(peer.tcp_addr, listing, index, work, progress)
                        if adopting is not None:
                            await adopting
                        # While the next one comes.
                        adopting = asyncio.create_task(
                            asyncio.to_thread(_adopt, replica, work, source, entry, part, digest)
                        )
                        self.counters["files"] += 1
            finally:
                if adopting is not None:
                    await adopting
            if tombstones:
                # After the files: each deletion notes which of them hold rows it hides.
                await asyncio.to_thread(store.delete, key, tombstones)

    async def _fetch(
        self, address: str, listing: Listing, index: int, work: Workspace, progress: MoveProgress
    ) -> tuple[Path, bytes]:
        """Bring one listed file to the disk: where it lies, and the digest of its bytes."""
        entry, source = listing.files[index], progress.from_node
        if not has_room(work.directory, entry.size_bytes):
            raise DiskFull(f"no room for {entry.size_bytes} bytes of shard {progress.shard_id} in {work.directory}")
        part, done_bytes = work.part(source, entry), progress.done_bytes

        async def pace(size_bytes: int) -> None:
            progress.done_bytes += size_bytes
            self.counters["bytes"] += size_bytes
            await asyncio.sleep(self._rate.wait_s(size_bytes, asyncio.get_running_loop().time()))

        digest = await segment_fetch.fetch(
            self._node.peers, address, listing.token, index, entry, part, pace, self._receiving
        )
        progress.done_bytes = done_bytes + entry.size_bytes
        return part, digest

    # --- differences

    async def _compare(self, place: ShardPlace, progress: MoveProgress) -> None:
        """Pull from the owners what they hold beyond the files, until this node may count as an owner.

        What is older is compared with all of them first, side by side. What is newer comes last and takes a moment, so
        that little is written between it and the change of owners that only the write itself could have brought.
        """
        bounds: dict[int, int] = {}
        failure: DSDBError | None = None
        for _ in range(_COMPARISONS):
            place = self._place(place.shard.id)
            fresh = [owner for owner in self._that_answer(place) if owner not in bounds]
            settled, failed = await of_each({owner: self._pulls.settle(place, owner) for owner in fresh})
            bounds.update(settled)
            known = [owner for owner in self._that_answer(place) if owner in bounds]
            compared, failed_late = await of_each(
                {owner: self._pulls.catch_up(place, owner, bounds[owner]) for owner in known}
            )
            now_failed = failed_late or failed
            failure = now_failed or failure
            progress.error = "" if now_failed is None else now_failed.message
            place = self._place(place.shard.id)
            if may_complete(place.shard, progress.replaces, compared, self._down()):
                progress.error = ""
                self.switching.prepare(place.shard, progress.replaces, bounds)
                return
            await asyncio.sleep(_AGAIN_S)
        raise failure or ShardUnavailable(too_few_compared(place.shard, compared, self._down()))

    def _that_answer(self, place: ShardPlace) -> list[int]:
        down = self._down()
        return [owner for owner in copy_sources(place.shard, down) if owner not in down]

    # --- surroundings

    def _place(self, shard_id: int) -> ShardPlace:
        place = views.find_shard(self._node.metadata.state, shard_id)
        if place is None:
            raise ShardUnavailable(f"shard {shard_id} was dropped")
        return place

    def _peer(self, data_id: int) -> DataNode:
        peer = views.data_node(self._state(), data_id)
        if peer is None:
            raise ShardUnavailable(f"data node {data_id} was removed")
        return peer

    def _state(self) -> MetaState:
        return self._node.metadata.state

    def _store(self) -> Store:
        if self._node.store is None:
            raise ShardUnavailable(self._node.storage_wait or "this node stores no points")
        return self._node.store

    def _now_s(self) -> float:
        return self._node.clock.monotonic_s()

    def _down(self) -> Collection[int]:
        return () if self._node.detector is None else self._node.detector.down()


def _adopt(replica: Replica, work: Workspace, source: int, entry: FileEntry, part: Path, digest: bytes) -> None:
    """Make a whole file part of the shard, and remember that it is. Raises ShardUnavailable, OSError.

    It is read from its first row to its last, unless it has the very bytes of which the owner knows what is in them:
    ``digest`` is of the bytes that came. One that arrived as the owner has it and is damaged all the same was damaged
    there: its rows come from other owners, when copies are compared.
    """
    try:
        replica.adopt(entry.measurement, part, sums_of(entry, digest))
    except CorruptData as error:
        log.warning("a file is damaged at its owner", measurement=entry.measurement, reason=error.message)
        part.unlink(missing_ok=True)
    work.took(source, entry)
