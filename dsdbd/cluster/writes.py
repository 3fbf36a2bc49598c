"""The write path of the coordinator: fix field types, find the shards, store at every owner, count the answers.

A point is acknowledged when the owners that its consistency level asks for have it on stable storage. The encoded
batch is the same for every owner; nothing is parsed twice.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
import structlog

from dsdbd import limits
from dsdbd.cluster.acks import Consistency, lone_failure
from dsdbd.cluster.freshness import reach_index
from dsdbd.cluster.owners import Owners, WriteStats, not_owner
from dsdbd.cluster.routing import fits, route, uncovered_times
from dsdbd.cluster.shard_places import key_of
from dsdbd.cluster.version_clock import VersionClock
from dsdbd.errors import DSDBError, NotFound, OutcomeUnknown, RequestError, Unavailable, VersionBehind
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


@dataclass(frozen=True, slots=True)
class Dropped:
    """Points of a write that were not stored, with the sentence that says why."""

    reason: str
    count: int


class WritePath:
    """Stores points for clients; one per node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.clock = VersionClock(node)
        self.stats = WriteStats()
        self._owners = Owners(node, self.stats, self.clock)
        self._places_of: MetaState | None = None
        self._known_places: dict[int, tuple[ShardKey, Shard]] = {}

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

    async def restore(
        self, *, database: str, policy: str, points: Sequence[Points], consistency: Consistency
    ) -> list[Dropped]:
        """Store rows that bring versions of their own, each with its own; returns and raises as ``write`` does.

        So a newer row or deletion wins against them. Subscriptions hear nothing of them.
        """
        newest = max((part.newest_version(0) for part in points), default=0)
        # A write that follows must win against them.
        self.clock.observe(newest)
        return await self._write(database, policy, points, consistency, newest)

    def version(self) -> int:
        """The version of a write that begins now, for ``store_here``; call it on the event loop."""
        return self.clock.next()

    def observe(self, version: int) -> None:
        """Take note of a version another coordinator gave: writes that begin from now on are newer."""
        self.clock.observe(version)

    def store_here(
        self, *, database: str, policy: str, points: Sequence[Points], version: int, now_ns: int, in_thread: bool
    ) -> Stored | None:
        """Hand points to this node's log at once where nothing stands between: on the event loop, or in a thread.

        None, and nothing is stored, where the general way is needed: a policy, a field or a time that the metadata does
        not cover, a shard that others own, storage that is still opening, files that would be read on the event loop,
        the first version after a pause.
        """
        node = self._node
        store = node.store
        try:
            found = views.policy(node.metadata.state, database, policy)
        except NotFound:
            return None
        if store is None or not self.clock.is_reserved(version) or not fits(points, found, now_ns):
            return None
        routed = route(points, found.shard_groups)
        for shard, _ in routed:
            if shard.owners != (node.data_id,) or shard.incoming:
                return None
            if not in_thread and shard.id not in self._owners.opened:
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

    def failure_of(self, stored: Stored) -> BaseException | None:
        """What the client is told when every future is done; None when all is stored. Call it on the event loop.

        What became a former owner's meanwhile may be removed before an owner has taken it over.
        """
        failures: list[BaseException] = []
        for shard_id, future in stored:
            error = future.exception()
            if error is None and self._owners.is_former(shard_id):
                error = OutcomeUnknown(not_owner(self._node, shard_id).message)
            if error is not None:
                failures.append(lone_failure(error, shard_id))
        return _combine(failures, len(stored)) if failures else None

    async def finish(self) -> None:
        """Wait for owners that were still storing when their request had been answered."""
        await self._owners.finish()
        await self.clock.close()

    async def _write(
        self,
        database: str,
        policy_name: str,
        points: Sequence[Points],
        consistency: Consistency,
        given: int | None = None,
    ) -> list[Dropped]:
        """``given``: the greatest version of the rows, where each has its own; None where the write gets one."""
        policy = self._policy(database, policy_name)
        points, dropped = self._drop_expired(policy, points)
        points, conflicts = await self._fix_types(database, policy, points)
        dropped += conflicts
        if not points:
            return dropped
        policy = await self._cover(database, policy, points)
        routed = await _work(sum(map(len, points)), route, points, policy.shard_groups)
        version = await self.clock.next_reserved() if given is None else given
        outcomes = await asyncio.gather(
            *(
                self._store(
                    ShardKey(database, policy.name, shard.id),
                    shard,
                    _batch(version, parts),
                    consistency,
                    is_new=given is None,
                )
                for shard, parts in routed
            ),
            return_exceptions=True,
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            raise _combine(failures, len(outcomes))
        if given is None and policy.subscriptions and self._node.forward is not None:
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
        for fields in field_pieces(missing):
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
            await self._node.metadata.propose(CreateShardGroups(database, policy.name, wanted, self._node.away()))
            policy = self._policy(database, policy.name)
        raise Unavailable("shard groups for the points could not be created; is a data node registered?")

    # --- storing at the owners

    async def receive(self, shard_id: int, encoded: bytes, metadata_index: int, floor: int = 0) -> None:
        """Store a batch that another coordinator sent to this node; durable on return.

        ``floor``: the lowest version it may have; 0 for what is brought with a version it had before. Raises
        VersionBehind where it is lower: nothing is stored then, and no copy doubted, as the sender brings it again.

        The sender's metadata may be newer than ours: its index says how far to wait. Raises ShardUnavailable where that
        takes too long, and NotOwner where this node neither is an owner nor takes a copy: the sender's is the older.
        """
        node = self._node
        if node.store is None:
            raise Unavailable("the storage of this node is still opening")
        await reach_index(node, metadata_index, node.config.cluster.shard_writer_timeout_s / 2)
        place = self._places().get(shard_id)
        if place is None:
            raise Unavailable(f"shard {shard_id} is not in this node's metadata (index {node.metadata.state.index})")
        key, shard = place
        if node.data_id not in views.writers(shard):
            raise not_owner(node, shard_id)
        batch = await _work(len(encoded) // _ROW_BYTES, decode_batch, encoded)
        if batch.version < floor:
            behind_s, seen = (self.clock.last - batch.version) / 1e9, self.clock.last
            raise VersionBehind(f"data node {node.data_id} has seen versions newer by {behind_s:.1f}s", seen)
        self.clock.observe(batch.version)
        await self._owners.submit(key, batch, encoded)
        await self.clock.keep(batch.version)

    def _places(self) -> dict[int, tuple[ShardKey, Shard]]:
        """Every live shard with its place, made anew when the metadata changed."""
        state = self._node.metadata.state
        if self._places_of is not state:
            self._known_places = {place.shard.id: (key_of(place), place.shard) for place in views.all_shards(state)}
            self._places_of = state
            self._owners.opened &= self._known_places.keys()
        return self._known_places

    async def _store(
        self, key: ShardKey, shard: Shard, batch: Batch, consistency: Consistency, *, is_new: bool
    ) -> None:
        encoded = await _work(len(batch), encode_batch, batch)
        await self._owners.store(key, shard, batch, encoded, consistency, is_new=is_new)


def _batch(version: int, parts: Sequence[Points]) -> Batch:
    """The batch of one shard; rows that have versions of their own keep them."""
    return Batch(max(part.newest_version(version) for part in parts), tuple(parts))


def _forward(forward: Forward, database: str, policy: str, points: Sequence[Points], stored: Future[None]) -> None:
    """Tell of points whose batch is stored; on the thread of the log."""
    if not stored.cancelled() and stored.exception() is None:
        forward(database, policy, points)


async def _work(rows: int, function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
    """The function's result: made at once for a few rows, which takes less than handing them over, else in a thread."""
    if rows <= _INLINE_ROWS:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


def field_pieces(
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
            kept.append(part.select(np.flatnonzero(mask)))
    return kept, count


def _without_conflicts(part: Points, policy: RetentionPolicy, held: Mapping[str, Mapping[str, FieldType]]) -> Points:
    """The points without the columns of another type, which hold no value any more."""
    known = {**(policy.schema.get(part.measurement) or {}), **held.get(part.measurement, {})}
    fields = {key: column for key, column in part.fields.items() if known[key] is column.type}
    return replace(part, fields=fields)


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
