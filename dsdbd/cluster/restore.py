"""The daemon's part of a restore: make what is missing, store rows with the versions they had, say what is there.

Rows take the ordinary way of a write, so this cluster's own shards and owners count, whatever the old one had. Because
they keep their versions, a restore never wins against newer points or deletions, and repeating it changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dsdbd.cluster.archive import add_digests
from dsdbd.cluster.restored import (
    Prepared,
    differs,
    field_conflicts,
    needed_database,
    needed_policy,
    standing_commands,
    target_name,
    user_commands,
)
from dsdbd.cluster.routing import route, uncovered_times
from dsdbd.cluster.writes import field_pieces
from dsdbd.decoding import json_decoder
from dsdbd.errors import DSDBError, FieldTypeConflict, RequestError, ShardUnavailable, Unavailable
from dsdbd.meta import views
from dsdbd.meta.commands import CreateFields
from dsdbd.model.columns import Batch, decode_batch, encode_batch
from dsdbd.storage import ShardKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsdbd.cluster.acks import Consistency
    from dsdbd.cluster.archive import DatabaseEntry, Digests, Policy
    from dsdbd.cluster.backup import BackupSource
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.restored import Preparation
    from dsdbd.cluster.writes import Dropped, WritePath
    from dsdbd.meta.state import Shard
    from dsdbd.meta.views import ShardPlace
    from dsdbd.model.columns import Points

_TIMEOUT_S = 60.0
_MAX_AHEAD_NS = 24 * 3_600 * 10**9
"""How far versions may lie ahead of this node's clock: every later write of the cluster is newer than they are."""
_SHOWN_CONFLICTS = 20
_count_decoder = json_decoder(int)


class Restore:
    """Restores what a client sends; one per node, used on the event loop."""

    def __init__(self, node: Node, writes: WritePath, source: BackupSource) -> None:
        self._node = node
        self._writes = writes
        self._source = source

    async def prepare(self, wanted: Preparation) -> Prepared:
        """Make databases, policies, field types, users and so on where they are missing; what is there stays.

        Raises RequestError, FieldTypeConflict before anything is changed, MetaRefused, NoLeader, OutcomeUnknown. A
        crash in the middle leaves a part, and the same request makes the rest.
        """
        await self._node.metadata.barrier(self._node.config.cluster.write_timeout_s)
        state = self._node.metadata.state
        names = {id(database): target_name(wanted, database) for database in wanted.databases}
        conflicts = [
            told
            for database in wanted.databases
            for policy in database.policies
            for told in field_conflicts(state, names[id(database)], policy)
        ]
        if conflicts:
            raise FieldTypeConflict(
                "nothing was restored, because fields have another type here: "
                + "; ".join(conflicts[:_SHOWN_CONFLICTS])
                + ("; and more" if len(conflicts) > _SHOWN_CONFLICTS else "")
                + '. Restore the database under a new name with "-newdb".'
            )
        done = Prepared([], [])
        for database in wanted.databases:
            await self._make_database(names[id(database)], database, done)
        if not wanted.new_database:
            await self._make_standing(wanted, done)
        return done

    async def store(self, database: str, policy: str, body: bytes, consistency: Consistency) -> list[Dropped]:
        """Store the rows of an encoded batch, each with its own version; returns what was dropped and why.

        Raises RequestError and what a write raises.
        """
        batch = await self._decode(body)
        return await self._writes.restore(
            database=database, policy=policy, points=batch.points, consistency=consistency
        )

    async def missing(self, database: str, policy: str, body: bytes) -> int:
        """How many of the rows of an encoded batch, or of their values, their shards lack, deleted ones included.

        One owner of each shard is asked. Raises RequestError, NotFound, Unavailable.
        """
        found = views.policy(self._node.metadata.state, database, policy)
        points = [part for part in (await self._decode(body)).points if len(part)]
        if not points:
            return 0
        if await asyncio.to_thread(uncovered_times, points, found, 1):
            return sum(map(len, points))
        routed = await asyncio.to_thread(route, points, found.shard_groups)
        return sum([await self._missing_of(shard, parts) for shard, parts in routed])

    async def serve_missing(self, shard_id: int, body: bytes) -> int:
        """Answer ``POST /internal/backup/missing``. Raises ShardUnavailable where this node is no owner."""
        batch = await self._decode(body)
        place = views.find_shard(self._node.metadata.state, shard_id)
        if place is None or self._node.data_id not in place.shard.owners:
            raise ShardUnavailable(f"this node is no owner of shard {shard_id}")
        try:
            return await asyncio.to_thread(self._missing_here, place, batch.points)
        except OSError as error:
            raise ShardUnavailable(f"shard {shard_id} cannot be read: {error.strerror}") from error

    async def digests(self, database: str, policy: str) -> Digests:
        """Digest of each measurement of a policy, all shards together, each from one owner.

        Raises NotFound, ShardUnavailable.
        """
        state = self._node.metadata.state
        chosen = views.policy(state, database, policy)
        shards = [shard for group in chosen.shard_groups for shard in group.shards]
        return add_digests([await self._digests_of(shard) for shard in shards])

    # --- metadata

    async def _make_database(self, name: str, database: DatabaseEntry, done: Prepared) -> None:
        metadata, meta = self._node.metadata, self._node.config.meta
        command = needed_database(metadata.state, name, database, meta.retention_autocreate_max_replicas)
        if command is not None:
            await metadata.propose(command)
            done.made.append(f"database {name}")
        for policy in database.policies:
            needed = needed_policy(metadata.state, name, policy, fresh=command is not None)
            if needed is not None:
                await metadata.propose(needed)
                done.made.append(f"retention policy {name}.{policy.name}")
            elif differs(views.policy(metadata.state, name, policy.name), policy):
                done.kept.append(
                    f"retention policy {name}.{policy.name} stays as it is; in the backup it has other durations"
                )
            await self._fix_types(name, policy)

    async def _fix_types(self, name: str, policy: Policy) -> None:
        metadata = self._node.metadata
        found = views.policy(metadata.state, name, policy.name)
        missing = views.unknown_fields(found, policy.fields)
        for fields in await asyncio.to_thread(lambda: list(field_pieces(missing))):
            await metadata.propose(CreateFields(name, found.name, fields))

    async def _make_standing(self, wanted: Preparation, done: Prepared) -> None:
        metadata = self._node.metadata
        for database in wanted.databases:
            for command, what in standing_commands(metadata.state, database):
                await metadata.propose(command)
                done.made.append(what)
        for user in wanted.users:
            needed = user_commands(metadata.state, user)
            for one in needed:
                await metadata.propose(one)
            done.made.extend([f"user {user.name}"] if needed else [])
            done.kept.extend([] if needed else [f"user {user.name} stays as it is"])

    # --- rows

    async def _decode(self, body: bytes) -> Batch:
        try:
            batch = await asyncio.to_thread(decode_batch, body)
        except DSDBError as error:
            raise RequestError(f"the points cannot be read: {error.message}") from error
        if any(len(part) and part.versions is None for part in batch.points):
            raise RequestError("the points have no versions; send them as dsdb restore does")
        newest = max((part.newest_version(0) for part in batch.points), default=0)
        ahead_ns = newest - self._node.clock.now_ns()
        if ahead_ns > _MAX_AHEAD_NS:
            raise RequestError(
                f"the points were written {ahead_ns / 3.6e12:.0f} h ahead of this node's clock; set the clock right"
            )
        return batch

    async def _missing_of(self, shard: Shard, parts: list[Points]) -> int:
        body = await asyncio.to_thread(encode_batch, Batch(max(part.newest_version(0) for part in parts), tuple(parts)))
        reason = "it has no owner"
        for owner in shard.owners:
            try:
                if owner == self._node.data_id:
                    return await self.serve_missing(shard.id, body)
                peer = views.data_node(self._node.metadata.state, owner)
                if peer is None:
                    continue
                path = f"/internal/backup/missing/{shard.id}"
                return _count_decoder.decode(
                    await self._node.peers.call(peer.tcp_addr, "POST", path, body, timeout_s=_TIMEOUT_S)
                )
            except Unavailable as error:
                reason = error.message
        raise ShardUnavailable(f"shard {shard.id} cannot be compared with the backup: {reason}")

    def _missing_here(self, place: ShardPlace, parts: Sequence[Points]) -> int:
        """Blocks: reads the shard's files."""
        store = self._node.store
        if store is None:
            raise Unavailable(self._node.storage_wait or "this node stores no points")
        if store.shard(place.shard.id) is None:
            return sum(map(len, parts))
        key = ShardKey(place.database.name, place.policy.name, place.shard.id)
        replica = store.make_replica(key, place.group.start_ns, place.group.end_ns)
        lacking = [replica.lacking(part) for part in parts]
        return sum(len(part) for part in lacking if part is not None)

    async def _digests_of(self, shard: Shard) -> dict[str, str]:
        reason = "it has no owner"
        for owner in shard.owners:
            try:
                return (await self._source.digests_at(owner, shard.id)).digests
            except Unavailable as error:
                reason = error.message
        raise ShardUnavailable(f"shard {shard.id} cannot be compared with the backup: {reason}")
