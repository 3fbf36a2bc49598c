"""The daemon's part of a restore: make what is missing, store rows with the versions they had, say what is there.

Rows take the ordinary way of a write, so this cluster's own shards and owners count, whatever the old one had. Because
they keep their versions, a restore never wins against newer points or deletions, and repeating it changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from dsdbd.cluster.archive import add_digests
from dsdbd.cluster.restored import (
    Compared,
    Prepared,
    differs,
    field_conflicts,
    needed_database,
    needed_policy,
    standing_commands,
    target_name,
    user_commands,
)
from dsdbd.cluster.routing import covered_rows, route
from dsdbd.cluster.shard_places import key_of
from dsdbd.cluster.writes import field_pieces
from dsdbd.decoding import json_decoder
from dsdbd.errors import DSDBError, FieldTypeConflict, RequestError, ShardUnavailable, Unavailable
from dsdbd.meta import views
from dsdbd.meta.commands import CreateFields
from dsdbd.model.columns import Batch, decode_batch, encode_batch
from dsdbd.storage.comparing import deleted_here

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dsdbd.cluster.acks import Consistency
    from dsdbd.cluster.archive import DatabaseEntry, Digests, Policy
    from dsdbd.cluster.backup import BackupSource
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.restored import Preparation
    from dsdbd.cluster.routing import Routed
    from dsdbd.cluster.writes import Dropped, WritePath
    from dsdbd.meta.state import MetaState, Shard, ShardGroup
    from dsdbd.meta.views import ShardPlace
    from dsdbd.model.columns import Points
    from dsdbd.storage.tombstones import Tombstone

_TIMEOUT_S = 60.0
_MAX_AHEAD_NS = 24 * 3_600 * 10**9
"""How far versions may lie ahead of this node's clock: every later write of the cluster is newer than they are."""
_SHOWN_CONFLICTS = 20
_compared_decoder = json_decoder(Compared)


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
        conflicts = await asyncio.to_thread(_conflicts, state, wanted, names)
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

    async def compare(self, database: str, policy: str, body: bytes) -> Compared:
        """How many of the rows of an encoded batch, whole or in part, are not in their shards, and how many deleted.

        One owner of each shard is asked. Raises RequestError, NotFound, Unavailable.
        """
        found = views.policy(self._node.metadata.state, database, policy)
        points = (await self._decode(body)).points
        routed, left_out = await asyncio.to_thread(_routed, points, found.shard_groups)
        parts = [await self._compare_at_owner(shard, parts) for shard, parts in routed]
        return Compared(sum(one.missing for one in parts) + left_out, sum(one.deleted for one in parts))

    async def serve_compare(self, shard_id: int, body: bytes) -> Compared:
        """Answer ``POST /internal/backup/compare``. Raises ShardUnavailable where this node is no owner."""
        batch = await self._decode(body)
        place = views.find_shard(self._node.metadata.state, shard_id)
        if place is None or self._node.data_id not in place.shard.owners:
            raise ShardUnavailable(f"this node is no owner of shard {shard_id}")
        try:
            return await asyncio.to_thread(self._compare_here, place, batch.points)
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
        else:
            done.kept.append(f"database {name} is there already; restored points are added to those it holds")
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
        for fields in await asyncio.to_thread(lambda: list(field_pieces(views.unknown_fields(found, policy.fields)))):
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

    async def _compare_at_owner(self, shard: Shard, parts: list[Points]) -> Compared:
        body = await asyncio.to_thread(encode_batch, Batch(max(part.newest_version(0) for part in parts), tuple(parts)))
        reason = "it has no owner"
        for owner in shard.owners:
            try:
                if owner == self._node.data_id:
                    return await self.serve_compare(shard.id, body)
                peer = views.data_node(self._node.metadata.state, owner)
                if peer is None:
                    continue
                path = f"/internal/backup/compare/{shard.id}"
                return _compared_decoder.decode(
                    await self._node.peers.call(peer.tcp_addr, "POST", path, body, timeout_s=_TIMEOUT_S)
                )
            except Unavailable as error:
                reason = error.message
        raise ShardUnavailable(f"shard {shard.id} cannot be compared with the backup: {reason}")

    def _compare_here(self, place: ShardPlace, parts: Sequence[Points]) -> Compared:
        """Blocks: reads the shard's files."""
        store = self._node.store
        if store is None:
            raise Unavailable(self._node.storage_wait or "this node stores no points")
        if store.shard(place.shard.id) is None:
            return Compared(sum(map(len, parts)))
        key = key_of(place)
        replica = store.make_replica(key, place.group.start_ns, place.group.end_ns)
        lacking = [replica.lacking(part) for part in parts]
        tombstones = replica.tombstones()
        deleted = sum(_deleted(part, tombstones) for part in parts) if tombstones else 0
        return Compared(sum(len(part) for part in lacking if part is not None), deleted)

    async def _digests_of(self, shard: Shard) -> dict[str, str]:
        reason = "it has no owner"
        for owner in shard.owners:
            try:
                return (await self._source.digests_at(owner, shard.id)).digests
            except Unavailable as error:
                reason = error.message
        raise ShardUnavailable(f"shard {shard.id} cannot be compared with the backup: {reason}")


def _conflicts(state: MetaState, wanted: Preparation, names: Mapping[int, str]) -> list[str]:
    """Fields that have another type here; ``names``: of the databases here, by the identity of the backup's."""
    return [
        told
        for database in wanted.databases
        for policy in database.policies
        for told in field_conflicts(state, names[id(database)], policy)
    ]


def _routed(points: Sequence[Points], groups: Sequence[ShardGroup]) -> tuple[list[Routed], int]:
    """The rows by shard, and how many of them have none."""
    covered = [part.select(np.flatnonzero(covered_rows(part, groups))) for part in points]
    left_out = sum(map(len, points)) - sum(map(len, covered))
    return route([part for part in covered if len(part)], groups), left_out


def _deleted(points: Points, tombstones: Sequence[Tombstone]) -> int:
    """How many rows, which have versions, the deletions of a shard hide."""
    assert points.versions is not None, "rows of a backup have versions"
    mine = [one for one in tombstones if one.measurement == points.measurement]
    unknown = np.full(len(points), -1, dtype=np.int64)
    return int(np.count_nonzero(deleted_here(points, points.versions, unknown, (), mine)))
