"""Hinted handoff: writes and deletions an owner missed are kept on disk by their coordinator until it is back.

What cannot be kept or delivered is never lost silently: the shard is noted for that owner in ``lost.json``, in
``/health`` and in the counters.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import msgspec
import structlog

from dsdbd import fsio, limits
from dsdbd.cluster.budget import ByteBudget
from dsdbd.cluster.deletes import encode_kept
from dsdbd.cluster.parcels import Parcel, make_parcels
from dsdbd.decoding import decode_json
from dsdbd.errors import CorruptData, DSDBError, MembershipRefused, OutcomeUnknown, RequestError, Unavailable
from dsdbd.meta import views
from dsdbd.storage import HandoffQueue, Record, RecordKind, ShardKey

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from dsdbd.cluster.node import Node
    from dsdbd.meta.state import Shard
    from dsdbd.storage.wal import Position

log = structlog.get_logger("handoff")
_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
_LOST_FILE = "lost.json"
_SEND_BYTES = 4 << 20
"""Records that are read from a queue at a time."""
_BARRIER_TIMEOUT_S = 5.0
_MOST_REFUSALS = 10
"""Failures at a record, by no fault of the request, or of the disk at a file, before that is put aside."""
_LOOK_S = 0.5
"""How often a waiting sender looks whether its owner seems to be back."""
_MOST_AT_ONCE = 256
"""Records on their way to an owner that takes them: one after another they would wait for a sync of its log each."""
_COUNTED = ("kept", "delivered", "refused", "dropped", "expired", "lostShards", "bytes", "oldestSeconds", "asideBytes")


@dataclass
class _Target:
    """An owner with kept writes, on the event loop: who waits to be written, and who sends."""

    owner: int
    queue: HandoffQueue
    waiting: list[tuple[Record, asyncio.Future[None]]] = field(default_factory=list)
    flushing: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the owner has just answered something else."""
    at_once: int = 1
    """Records to send side by side: one to see, twice as many as long as all are taken."""
    unread: int = 0
    """How often in a row the disk did not give back the oldest file."""
    refused: int = 0
    """How often in a row it failed at a record for a reason that may be the node's and not the record's."""


class Handoff:
    """The kept writes of one node, for every owner that missed some. Use it on the event loop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._config = node.config.hinted_handoff
        self._targets: dict[int, _Target] = {}
        self._lost: dict[int, dict[ShardKey, int]] = {}
        self._noted = 0
        self._changed = asyncio.Event()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="dsdb-handoff")
        self._held = ByteBudget(limits.MAX_HANDOFF_BYTES_HELD, "writes on their way to its handoff queues")
        self.counters = dict.fromkeys(_COUNTED, 0)
        node.service_stats["handoff"] = self.counters
        if node.detector is not None:
            node.detector.on_serving(self.wake)

    async def open(self) -> None:
        """Take up what earlier runs kept. Raises OSError."""
        await self._work(self._load)
        self._count()

    def _load(self) -> None:
        directory = self._config.dir
        fsio.make_dirs(directory)
        for path in sorted(directory.iterdir()):
            if path.is_dir() and path.name.isdecimal():
                self._target(int(path.name))
        try:
            stored = decode_json((directory / _LOST_FILE).read_bytes(), dict[int, list[ShardKey]])
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("the list of shards that need repair cannot be read", reason=str(error))
            return
        self._lost = {owner: dict.fromkeys(keys, 0) for owner, keys in stored.items()}

    async def keep(self, owner: int, key: ShardKey, encoded: bytes, *, kind: RecordKind = RecordKind.WRITE) -> None:
        """Keep a write, or a DELETE with its tombstones, for an owner; durable on return.

        What comes together shares one sync. Raises Unavailable where it was not kept; the shard is then noted as in
        need of repair.
        """
        record = Record(kind, key, encoded)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            with self._held.held() as hold:
                hold.grow(len(encoded))
                target = self._targets.get(owner)
                if target is None:
                    target = await self._work(self._target, owner)
                target.waiting.append((record, done))
                if not target.flushing:
                    target.flushing = True
                    await self._flush(target)
                await done
        except (Unavailable, OSError) as error:
            self.note_lost(owner, [key])
            if isinstance(error, OSError):
                raise Unavailable(f"the write could not be kept for data node {owner}: {error.strerror}") from error
            raise
        self.counters["kept"] += 1
        self._changed.set()

    async def _flush(self, target: _Target) -> None:
        """Write what waits, in rounds, until nothing waits."""
        try:
            while target.waiting:
                group, target.waiting = target.waiting, []
                try:
                    await self._work(target.queue.append, [record for record, _ in group])
                except (DSDBError, OSError) as error:
                    for _, done in group:
                        if not done.done():
                            done.set_exception(error)
                            done.exception()
                else:
                    for _, done in group:
                        if not done.done():
                            done.set_result(None)
        finally:
            target.flushing = False
            self._count()

    def note_lost(self, owner: int, keys: Collection[ShardKey]) -> None:
        """Remember that an owner lacks points of these shards that nobody keeps for it."""
        known = self._lost.setdefault(owner, {})
        fresh = [key for key in keys if key not in known]
        self._noted += 1
        known.update(dict.fromkeys(keys, self._noted))
        if fresh:
            shards = [key.shard_id for key in fresh]
            log.warning("an owner lacks points nobody keeps for it", owner=owner, shards=shards)
            self._threads.submit(self._save_lost)
        self._count()

    def lost(self) -> dict[int, dict[ShardKey, int]]:
        """Owners with the shards of which they lack points; each with a number that grows when it is noted again."""
        return {owner: dict(keys) for owner, keys in self._lost.items() if keys}

    def found_again(self, owner: int, keys: Mapping[ShardKey, int]) -> None:
        """Repair has brought an owner what it lacked of these shards when ``lost`` named them with these numbers."""
        known = self._lost.get(owner, {})
        done = [key for key, number in keys.items() if known.get(key) == number]
        for key in done:
            del known[key]
        if done:
            # A crash before it is written repairs once more.
            self._threads.submit(self._save_lost)
        self._count()

    def _save_lost(self) -> None:
        stored = {str(owner): sorted(keys, key=_number) for owner, keys in list(self._lost.items()) if keys}
        try:
            fsio.write_atomic(self._config.dir / _LOST_FILE, msgspec.json.encode(stored))
        except OSError as error:
            # A crash now forgets what needs repair; comparing owners finds it again.
            log.warning("the list of shards that need repair cannot be written", reason=error.strerror)

    def kept_bytes(self, owner: int) -> int:
        """Bytes of the files that hold something undelivered for an owner."""
        target = self._targets.get(owner)
        return 0 if target is None else target.queue.size_bytes

    def wake(self, owner: int) -> None:
        """The owner has just answered: try it now."""
        target = self._targets.get(owner)
        if target is not None:
            target.woken.set()

    def owes(self, owner: int, shard_id: int) -> bool:
        """Whether an owner may lack points of a shard that this node took. Any thread may call it."""
        target = self._targets.get(owner)
        if target is not None and not target.queue.empty:
            return True
        # Copied in one step: the event loop may add to it meanwhile.
        return any(key.shard_id == shard_id for key in tuple(self._lost.get(owner, ())))

    def problems(self) -> list[str]:
        """Sentences for /health: what waits for whom, and which shards need repair."""
        found = []
        for owner, target in sorted(self._targets.items()):
            if not target.queue.empty:
                found.append(f"{target.queue.size_bytes} bytes of writes are kept for data node {owner}")
        for owner, keys in sorted(self._lost.items()):
            if keys:
                shards = ", ".join(str(key.shard_id) for key in sorted(keys, key=_number)[:10])
                found.append(f"data node {owner} lacks points that nobody keeps for it, of shards {shards}")
        return found

    # --- delivering

    async def run(self) -> None:
        """Deliver and purge; runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            # What is too old is not delivered any more, as nothing that was deleted could hide it.
            await self._purge()
            group.create_task(self._purge_now_and_then())
            senders: dict[int, asyncio.Task[None]] = {}
            while True:
                for owner, target in list(self._targets.items()):
                    busy = senders.get(owner)
                    if not target.queue.empty and (busy is None or busy.done()):
                        senders[owner] = group.create_task(self._deliver(target))
                self._changed.clear()
                await self._changed.wait()

    async def _deliver(self, target: _Target) -> None:
        """Send everything a queue holds; ends when it is empty."""
        pause_s = self._config.retry_interval_s
        while not target.queue.empty:
            try:
                # A node that has just started may hold old metadata: by it nothing is given up.
                await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
                delivered = await self._send_some(target)
                if views.data_node(self._node.metadata.state, target.owner) is None and target.queue.empty:
                    await self._work(self._remove, target)
                    return
            except (DSDBError, OSError) as error:
                log.info("kept writes wait", owner=target.owner, reason=str(error), pause_s=pause_s)
                await self._pause(target, pause_s)
                pause_s = min(2 * pause_s, self._config.retry_max_interval_s)
                continue
            pause_s = self._config.retry_interval_s
            rate = self._config.retry_rate_limit_bytes
            if rate:
                await asyncio.sleep(delivered / rate)
        self._count()
        log.info("every kept write was delivered", owner=target.owner)

    async def _send_some(self, target: _Target) -> int:
        """Deliver the oldest records; returns their bytes. Raises what stands in the way of the first that fails."""
        records = await self._next(target)
        size = sum(len(record.payload) for _, record in records)
        shards = {place.shard.id: place.shard for place in views.all_shards(self._node.metadata.state)}
        try:
            while records:
                del records[: await self._send_group(target, records, shards)]
        finally:
            await self._work(target.queue.save)
            self._count()
        return size

    async def _send_group(
        self, target: _Target, records: Sequence[tuple[Position, Record]], shards: Mapping[int, Shard]
    ) -> int:
        """Deliver the first of some records side by side; returns how many are done with. Raises as ``_send_some``.

        Those behind one that fails are sent again with it, which changes nothing where they were taken.
        """
        group = records[: target.at_once]
        parcels = await self._work(make_parcels, [record for _, record in group], target.at_once)
        sends = [self._send_where_it_belongs(target, one, shards.get(one.record.key.shard_id)) for one in parcels]
        results = await asyncio.gather(*sends, return_exceptions=True)
        found = {at: (one, result) for one, result in zip(parcels, results, strict=True) for at in one.places}
        for at, (position, record) in enumerate(group[: len(found)]):
            parcel, error = found[at]
            if error is not None:
                target.at_once = 1
                if len(parcel.places) > 1 and _is_of_the_record(error):
                    # Which of them it is shows when each travels alone.
                    return at
                await self._judge(target, record, error)
            target.refused = 0
            target.queue.delivered(position)
        target.at_once = min(2 * target.at_once, _MOST_AT_ONCE)
        return len(found)

    async def _send_where_it_belongs(self, target: _Target, parcel: Parcel, shard: Shard | None) -> None:
        if shard is None:
            # It was dropped.
            self.counters["dropped"] += len(parcel.places)
            return
        if target.owner in views.writers(shard):
            await self._send(parcel.record, target.owner)
        elif shard.owners:
            await self._send_elsewhere(parcel.record, shard)
        else:
            return
        self.counters["delivered"] += len(parcel.places)

    async def _judge(self, target: _Target, record: Record, error: BaseException) -> None:
        """Put a record aside that would be refused for ever, so that those behind it go on; else raise the error."""
        if not isinstance(error, DSDBError) or not _is_of_the_record(error):
            raise error
        target.refused += 1
        if not isinstance(error, RequestError | CorruptData) and target.refused < _MOST_REFUSALS:
            raise error
        log.error("a kept write is put aside", owner=target.owner, shard=record.key.shard_id, reason=error.message)
        await self._work(target.queue.put_aside, record)
        self.counters["refused"] += 1
        self.note_lost(target.owner, [record.key])

    async def _next(self, target: _Target) -> list[tuple[Position, Record]]:
        """The oldest records of a queue. Raises OSError; a file the disk does not give back is at last passed over."""
        try:
            records = await self._work(target.queue.next, _SEND_BYTES)
        except OSError as error:
            target.unread += error.errno == errno.EIO
            if target.unread >= _MOST_REFUSALS:
                # Nobody knows of which shards it was: repair finds them, as it compares all.
                await self._work(target.queue.set_aside_oldest)
                target.unread = 0
                self._tell_unreadable(target)
            raise
        target.unread = 0
        return records

    def _tell_unreadable(self, target: _Target) -> None:
        reasons, target.queue.unreadable = target.queue.unreadable, []
        if reasons:
            log.error("kept writes that cannot be read are given up", owner=target.owner, reasons=reasons)

    async def _send_elsewhere(self, record: Record, shard: Shard) -> None:
        """Deliver to one owner of a shard that moved: where only this queue had the points, that owner now has.

        Raises what stands in the way at the last of them.
        """
        for owner in shard.owners:
            try:
                await self._send(record, owner)
            except DSDBError:
                if owner == shard.owners[-1]:
                    raise
            else:
                return

    async def _send(self, record: Record, owner: int) -> None:
        node, key = self._node, record.key
        peer = views.data_node(node.metadata.state, owner)
        if peer is None:
            raise Unavailable(f"data node {owner} is not registered")
        path, body = f"/internal/shards/{key.shard_id}?index={node.metadata.state.index}", bytes(record.payload)
        if record.kind is RecordKind.DELETE:
            path, body = "/internal/delete", encode_kept(key, body, node.metadata.state.index)
        await node.peers.call(peer.tcp_addr, "POST", path, body, timeout_s=node.config.cluster.shard_writer_timeout_s)

    async def _pause(self, target: _Target, pause_s: float) -> None:
        """Wait, but not longer than until the owner answers something else."""
        target.woken.clear()
        left_s = pause_s
        while left_s > 0:
            turn_s = min(left_s, _LOOK_S)
            # What is kept grows older.
            self._count()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(turn_s):
                    await target.woken.wait()
            left_s -= turn_s
            if target.woken.is_set() or self._seems_back(target.owner):
                return

    def _seems_back(self, owner: int) -> bool:
        """Whether that node answers when it is looked at."""
        return self._node.detector is not None and not self._node.detector.is_down(owner)

    # --- queues, in the one thread that may block

    async def _work(self, function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))

    def _directory(self, owner: int) -> Path:
        return self._config.dir / str(owner)

    def _target(self, owner: int) -> _Target:
        if owner not in self._targets:
            queue = HandoffQueue(self._directory(owner), max_size_bytes=self._config.max_size_bytes)
            self._targets[owner] = _Target(owner, queue)
        return self._targets[owner]

    def _remove(self, target: _Target) -> None:
        """Give up the queue of a node that was removed from the cluster: other owners have what it held."""
        del self._targets[target.owner]
        self._lost.pop(target.owner, None)
        target.queue.close()
        shutil.rmtree(self._directory(target.owner))
        self._save_lost()
        log.info("the queue of a node that was removed is given up", owner=target.owner)

    async def _purge_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._config.purge_interval_s)
            await self._purge()

    async def _purge(self) -> None:
        """Give up what is too old; a queue whose disk fails holds up no other."""
        for target in list(self._targets.values()):
            queue = target.queue
            try:
                self.counters["expired"] += await self._work(queue.purge, self._config.max_age_s)
            except (DSDBError, OSError) as error:
                log.warning("old kept writes cannot be given up", owner=target.owner, reason=str(error))
            if queue.lost:
                lost, queue.lost = queue.lost, set()
                self.note_lost(target.owner, list(lost))
            self._tell_unreadable(target)
        self._count()

    def _count(self) -> None:
        queues = [target.queue for target in list(self._targets.values())]
        self.counters["bytes"] = sum(queue.size_bytes for queue in queues)
        self.counters["asideBytes"] = sum(queue.aside_bytes for queue in queues)
        self.counters["oldestSeconds"] = int(max((queue.oldest_s() for queue in queues), default=0.0))
        self.counters["lostShards"] = sum(len(keys) for keys in list(self._lost.values()))

    async def close(self) -> None:
        """Write down how far every queue was delivered."""
        for target in self._targets.values():
            try:
                await self._work(target.queue.close)
            except OSError as error:
                log.warning("a handoff queue could not be closed", owner=target.owner, reason=error.strerror)
        self._threads.shutdown(wait=False)


def _is_of_the_record(error: BaseException) -> bool:
    """Whether an error is not of the way to an owner, nor of the owner being able to take anything now."""
    return isinstance(error, DSDBError) and not isinstance(error, Unavailable | OutcomeUnknown | MembershipRefused)


def _number(key: ShardKey) -> int:
    return key.shard_id
