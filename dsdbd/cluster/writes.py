"""The write path of the coordinator: fix field types, find the shards, store at every owner, count the answers.

A point is acknowledged when the owners that its consistency level asks for have it on stable storage. The encoded
batch is the same for every owner; nothing is parsed twice.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
import structlog

from dsdbd import limits
from dsdbd.cluster.acks import AckCount, Consistency, Verdict, required_acks
from dsdbd.cluster.budget import ByteBudget
from dsdbd.cluster.hybrid_clock import HybridClock
from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.cluster.routing import fits, route, uncovered_times
from dsdbd.errors import DSDBError, NotFound, OutcomeUnknown, RequestError, ShardUnavailable, Unavailable
from dsdbd.meta import views
from dsdbd.meta.commands import CreateFields, CreateShardGroups, FieldTypesAre
from dsdbd.model.columns import Batch, Points, decode_batch, encode_batch
from dsdbd.storage import ShardKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dsdbd.cluster.node import Forward, Node
    from dsdbd.meta.state import MetaState, RetentionPolicy, Shard
    from dsdbd.model.columns import Bools
    from dsdbd.model.types import FieldType

log = structlog.get_logger("write")
_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
Stored = list[tuple[int, Future[None]]]
"""Shard ids with the futures of their batches, which are done when the points are durable and visible."""
_INLINE_ROWS = 100
_ROW_BYTES = 50
"""Least size of an encoded row, to tell a small batch from its bytes."""
_FIELD_BYTES = 32
"""What a field costs in a metadata command beside its name."""


@dataclass
class WriteStats:
    """Counters of this node as a coordinator, named as SHOW STATS names them."""

    req: int = 0
    point_req: int = 0
    point_req_local: int = 0
    point_req_remote: int = 0
    write_ok: int = 0
    write_error: int = 0
    write_timeout: int = 0
    write_partial: int = 0


@dataclass(frozen=True, slots=True)
class Dropped:
    """Points of a write that were not stored, with the sentence that says why."""

    reason: str
    count: int


class WritePath:
    """Stores points for clients; one per node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._hybrid_clock = HybridClock()
        self._background: set[asyncio.Task[None]] = set()
        self._replication = ByteBudget(limits.MAX_REPLICATION_BYTES_HELD, "points on their way to other owners")
        self._opened: set[int] = set()
        self._places_of: MetaState | None = None
        self._known_places: dict[int, ShardKey] = {}
        self.stats = WriteStats()

    async def write(
        self, *, database: str, policy: str, points: Sequence[Points], consistency: Consistency
    ) -> list[Dropped]:
        """Store points; returns what was dropped and why, where the rest is stored.

        Raises NotFound, RequestError, Unavailable (nothing stored) or OutcomeUnknown.
        """
        self.stats.req += 1
        self.stats.point_req += sum(len(part) for part in points)
        try:
            dropped = await self._write(database, policy, points, consistency)
        except OutcomeUnknown:
            self.stats.write_timeout += 1
            raise
        except DSDBError:
            self.stats.write_error += 1
            raise
        self.stats.write_ok += 1
        if dropped:
            self.stats.write_partial += 1
        return dropped

    def version(self) -> int:
        """The version of a write that begins now; call it on the event loop."""
        return self._hybrid_clock.next(self._node.clock.now_ns())

    def observe(self, version: int) -> None:
        """Take note of a version another coordinator gave: writes that begin from now on are newer."""
        self._hybrid_clock.observe(version)

    def store_here(
        self, *, database: str, policy: str, points: Sequence[Points], version: int, now_ns: int, in_thread: bool
    ) -> Stored | None:
        """Hand points to this node's log at once where nothing stands between: on the event loop, or in a thread.

        None, and nothing is stored, where the general way is needed: a policy, a field or a time that the metadata does
        not cover, a shard that others own, storage that is still opening, files that would be read on the event loop.
        """
        node = self._node
        store = node.store
        try:
            found = views.policy(node.metadata.state, database, policy)
        except NotFound:
            return None
        if store is None or not fits(points, found, now_ns):
            return None
        routed = route(points, found.shard_groups)
        for shard, _ in routed:
            if shard.owners != (node.data_id,) or not (in_thread or shard.id in self._opened):
                return None
        stored: Stored = []
        for shard, parts in routed:
            batch = Batch(version, tuple(parts))
            try:
                future = store.submit(ShardKey(database, found.name, shard.id), batch, encode_batch(batch))
            except DSDBError as error:
                future = Future()
                future.set_exception(error)
            stored.append((shard.id, future))
            if found.subscriptions and node.forward is not None:
                future.add_done_callback(partial(_forward, node.forward, database, found.name, parts))
        return stored

    def count_stored(self, requests: int, rows: int, error: BaseException | None) -> None:
        """Take requests that went by ``store_here`` into the statistics; call it on the event loop."""
        self.stats.req += requests
        self.stats.point_req += rows
        self.stats.point_req_local += rows
        if error is None:
            self.stats.write_ok += requests
        elif isinstance(error, OutcomeUnknown):
            self.stats.write_timeout += requests
        else:
            self.stats.write_error += requests

    async def finish(self) -> None:
        """Wait for owners that were still storing when their request had been answered."""
        if self._background:
            await asyncio.wait(self._background, timeout=self._node.config.cluster.write_timeout_s)

    async def _write(
        self, database: str, policy_name: str, points: Sequence[Points], consistency: Consistency
    ) -> list[Dropped]:
        policy = self._policy(database, policy_name)
        points, dropped = self._drop_expired(policy, points)
        points, conflicts = await self._fix_types(database, policy, points)
        dropped += conflicts
        if not points:
            return dropped
        policy = await self._cover(database, policy, points)
        routed = await _work(sum(map(len, points)), route, points, policy.shard_groups)
        version = self._hybrid_clock.next(self._node.clock.now_ns())
        outcomes = await asyncio.gather(
            *(
                self._store(ShardKey(database, policy.name, shard.id), shard, Batch(version, tuple(parts)), consistency)
                for shard, parts in routed
            ),
            return_exceptions=True,
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            raise _combine(failures, len(outcomes))
        if policy.subscriptions and self._node.forward is not None:
            self._node.forward(database, policy.name, points)
        return dropped

    # --- what the metadata says

    def _policy(self, database: str, policy_name: str) -> RetentionPolicy:
        state = self._node.metadata.state
        if database not in state.databases:
            raise NotFound(f'database not found: "{database}"')
        return views.policy(state, database, policy_name)

    def _drop_expired(self, policy: RetentionPolicy, points: Sequence[Points]) -> tuple[list[Points], list[Dropped]]:
        if policy.duration_ns == 0:
            return list(points), []
        oldest_ns = self._node.clock.now_ns() - policy.duration_ns
        kept, count = _keep(points, [part.time_ns >= oldest_ns for part in points])
        return kept, [Dropped("points beyond retention policy", count)] if count else []

    async def _fix_types(
        self, database: str, policy: RetentionPolicy, points: Sequence[Points]
    ) -> tuple[list[Points], list[Dropped]]:
        """Fix the type of each new field before anything is stored; drop points whose field has another type."""
        asked: dict[str, dict[str, FieldType]] = {}
        for part in points:
            asked.setdefault(part.measurement, {}).update((key, column.type) for key, column in part.fields.items())
        missing = views.unknown_fields(policy, asked)
        held: dict[str, dict[str, FieldType]] = {}
        for fields in _pieces(missing):
            result = await self._node.metadata.propose(CreateFields(database, policy.name, fields))
            assert isinstance(result.value, FieldTypesAre)
            for measurement, types in result.value.fields.items():
                held.setdefault(measurement, {}).update(types)
        masks: list[Bools] = []
        first = ""
        for part in points:
            known = {**(policy.schema.get(part.measurement) or {}), **held.get(part.measurement, {})}
            good = np.ones(len(part), dtype=np.bool_)
            for key, column in part.fields.items():
                if known[key] is not column.type:
                    good &= np.zeros(len(part), np.bool_) if column.valid is None else ~column.valid
                    first = first or (
                        f'field type conflict: input field "{key}" on measurement "{part.measurement}" is type '
                        f"{column.type.value}, already exists as type {known[key].value}"
                    )
            masks.append(good)
        kept, count = _keep(points, masks)
        kept = [_without_conflicts(part, policy, held) for part in kept] if count else kept
        return kept, [Dropped(first, count)] if count else []

    async def _cover(self, database: str, policy: RetentionPolicy, points: Sequence[Points]) -> RetentionPolicy:
        """The policy with a shard group for every time; groups that are missing are created in one command.

        Neighbours of another duration may cut an interval in pieces, hence the second round.
        """
        for _ in range(3):
            most = limits.MAX_SHARD_GROUPS_PER_WRITE
            times = await _work(sum(map(len, points)), uncovered_times, points, policy, most + 1)
            if not times:
                return policy
            wanted = views.missing_groups(policy, times)
            if len(wanted) > most:
                raise RequestError(
                    f"the points of this request fall into more than {most} new shard groups; sort them by time and "
                    "send them in several requests, or use a policy with longer shard groups"
                )
            await self._node.metadata.propose(CreateShardGroups(database, policy.name, wanted))
            policy = self._policy(database, policy.name)
        raise Unavailable("shard groups for the points could not be created; is a data node registered?")

    # --- storing at the owners

    async def receive(self, shard_id: int, encoded: bytes, metadata_index: int) -> None:
        """Store a batch that another coordinator sent to this owner; durable on return.

        The sender's metadata may be newer than ours: its index says how far to wait. A shard that the metadata does
        not hold (any more) takes no points.
        """
        node = self._node
        if node.store is None:
            raise Unavailable("the storage of this node is still opening")
        await node.metadata.wait_index(metadata_index, node.config.cluster.shard_writer_timeout_s)
        place = self._places().get(shard_id)
        if place is None:
            raise Unavailable(f"shard {shard_id} is not in this node's metadata (index {node.metadata.state.index})")
        batch = await _work(len(encoded) // _ROW_BYTES, decode_batch, encoded)
        self._hybrid_clock.observe(batch.version)
        await self._submit(place, batch, encoded)

    def _places(self) -> dict[int, ShardKey]:
        """Every live shard's place, made anew when the metadata changed."""
        state = self._node.metadata.state
        if self._places_of is not state:
            self._known_places = {
                place.shard.id: ShardKey(place.database.name, place.policy.name, place.shard.id)
                for place in views.all_shards(state)
            }
            self._places_of = state
            self._opened &= self._known_places.keys()
        return self._known_places

    async def _store(self, key: ShardKey, shard: Shard, batch: Batch, consistency: Consistency) -> None:
        """Store one batch at every owner; returns as soon as enough of them have confirmed."""
        encoded = await _work(len(batch), encode_batch, batch)
        if self._node.data_id is not None and shard.owners == (self._node.data_id,):
            await self._store_alone(key, batch, encoded)
            return
        count = AckCount(len(shard.owners), required_acks(consistency, len(shard.owners)))
        if count.owners == 0:
            raise ShardUnavailable(f"shard {key.shard_id} has no owner; add a data node")
        decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def store_at(owner: int) -> None:
            try:
                await self._store_at(owner, key, batch, encoded)
                count.confirm()
            except PeerUnreachable as error:
                if error.sent:
                    count.lose(OutcomeUnknown(error.message))
                else:
                    count.refuse(ShardUnavailable(error.message))
            except OutcomeUnknown as error:
                count.lose(error)
            except DSDBError as error:
                count.refuse(error)
            except Exception as error:
                log.exception("storing at an owner failed by a defect of dsdbd", owner=owner, shard=key.shard_id)
                count.lose(OutcomeUnknown(f"owner {owner} failed: {type(error).__name__}; its log has the details"))
            if count.verdict() is not Verdict.PENDING and not decided.done():
                decided.set_result(None)

        for owner in shard.owners:
            task = asyncio.create_task(store_at(owner))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        timeout_s = self._node.config.cluster.write_timeout_s
        try:
            await asyncio.wait_for(asyncio.shield(decided), timeout_s)
        except TimeoutError:
            raise OutcomeUnknown(late(key.shard_id, timeout_s, count.confirmed, count.required)) from None
        if count.verdict() is Verdict.STORED:
            return
        raise count.failure(key.shard_id)

    async def _store_alone(self, key: ShardKey, batch: Batch, encoded: bytes) -> None:
        """Store at the only owner, this node; nothing has to be counted."""
        if self._node.store is None:
            raise lone_failure(Unavailable("this node's storage is still opening"), key.shard_id)
        self.stats.point_req_local += len(batch)
        timeout_s = self._node.config.cluster.write_timeout_s
        try:
            await asyncio.wait_for(self._submit(key, batch, encoded), timeout_s)
        except TimeoutError:
            raise OutcomeUnknown(late(key.shard_id, timeout_s)) from None
        except DSDBError as error:
            raise lone_failure(error, key.shard_id) from None

    async def _store_at(self, owner: int, key: ShardKey, batch: Batch, encoded: bytes) -> None:
        node = self._node
        if owner == node.data_id:
            if node.store is None:
                raise Unavailable("this node's storage is still opening")
            self.stats.point_req_local += len(batch)
            await self._submit(key, batch, encoded)
            return
        peer = views.data_node(node.metadata.state, owner)
        if peer is None:
            raise Unavailable(f"data node {owner} is not registered")
        self.stats.point_req_remote += len(batch)
        with self._replication.held() as hold:
            hold.grow(len(encoded))
            await node.peers.call(
                peer.tcp_addr,
                "POST",
                f"/internal/shards/{key.shard_id}?index={node.metadata.state.index}",
                encoded,
                timeout_s=node.config.cluster.shard_writer_timeout_s,
            )

    async def _submit(self, key: ShardKey, batch: Batch, encoded: bytes) -> None:
        """Store in this node's own store. The first batch of a shard may read its files, so it goes by a thread."""
        store = self._node.store
        assert store is not None
        if key.shard_id in self._opened:
            stored = store.submit(key, batch, encoded)
        else:
            stored = await asyncio.to_thread(store.submit, key, batch, encoded)
            self._opened.add(key.shard_id)
        await asyncio.wrap_future(stored)


def _forward(forward: Forward, database: str, policy: str, points: Sequence[Points], stored: Future[None]) -> None:
    """Tell of points whose batch is stored; on the thread of the log."""
    if not stored.cancelled() and stored.exception() is None:
        forward(database, policy, points)


async def _work(rows: int, function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
    """The function's result: made at once for a few rows, which takes less than handing them over, else in a thread."""
    if rows <= _INLINE_ROWS:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


def _pieces(
    fields: Mapping[str, Mapping[str, FieldType]],
) -> Iterator[dict[str, dict[str, FieldType]]]:
    """New fields divided so that each piece fits into a metadata command whatever characters the names have."""
    piece: dict[str, dict[str, FieldType]] = {}
    size_bytes = 0
    for measurement, types in fields.items():
        for key, kind in types.items():
            cost_bytes = _FIELD_BYTES + len(key.encode()) + (0 if measurement in piece else len(measurement.encode()))
            if piece and size_bytes + cost_bytes > limits.MAX_COMMAND_BYTES // 2:
                yield piece
                piece, size_bytes = {}, 0
            piece.setdefault(measurement, {})[key] = kind
            size_bytes += cost_bytes
    if piece:
        yield piece


def _keep(points: Sequence[Points], masks: Sequence[Bools]) -> tuple[list[Points], int]:
    """The rows whose mask is True, and how many were left out."""
    kept: list[Points] = []
    count = 0
    for part, mask in zip(points, masks, strict=True):
        good = int(np.count_nonzero(mask))
        count += len(part) - good
        if good == len(part):
            kept.append(part)
        elif good:
            kept.append(part.take(np.flatnonzero(mask)))
    return kept, count


def _without_conflicts(part: Points, policy: RetentionPolicy, held: Mapping[str, Mapping[str, FieldType]]) -> Points:
    """The points without the columns of another type, which hold no value any more."""
    known = {**(policy.schema.get(part.measurement) or {}), **held.get(part.measurement, {})}
    fields = {key: column for key, column in part.fields.items() if known[key] is column.type}
    return Points(part.measurement, part.series, part.series_index, part.time_ns, fields)


def late(shard_id: int, timeout_s: float, confirmed: int = 0, required: int = 1) -> str:
    """What a client is told when the owners have not answered in time."""
    return (
        f"timeout: {confirmed} of {required} owners of shard {shard_id} confirmed within {timeout_s:g}s; the points "
        "may be stored, writing them again is harmless"
    )


def failure_of(stored: Stored) -> BaseException | None:
    """What the client is told when every future is done; None when all is stored."""
    failures = [
        lone_failure(error, shard_id) for shard_id, future in stored if (error := future.exception()) is not None
    ]
    return _combine(failures, len(stored)) if failures else None


def lone_failure(error: BaseException, shard_id: int) -> BaseException:
    """The error of a shard's only owner, in the words that a shard with several owners has for it."""
    if not isinstance(error, DSDBError):
        return error
    count = AckCount(owners=1, required=1)
    if isinstance(error, OutcomeUnknown):
        count.lose(error)
    else:
        count.refuse(error)
    return count.failure(shard_id)


def _combine(failures: Sequence[BaseException], shards: int) -> BaseException:
    """One error for several shards: unknown as soon as a shard was stored or may have been."""
    first = failures[0]
    if shards == 1 or (len(failures) == shards and all(_stored_nothing(failure) for failure in failures)):
        return first
    if isinstance(first, DSDBError):
        return OutcomeUnknown(f"partial write: {len(failures)} of {shards} shards failed: {first.message}")
    return first


def _stored_nothing(failure: BaseException) -> bool:
    return isinstance(failure, Unavailable | RequestError)
