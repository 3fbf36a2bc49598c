"""Deleting points at every owner of every shard concerned.

A deletion hides what has an older version than its own, whenever that arrives; so owners agree on what is left whatever
the order in which they hear of writes and deletions.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from dsdbd import query
from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.errors import DSDBError, OutcomeUnknown, RequestError, Unavailable
from dsdbd.limits import MAX_TOMBSTONE_BYTES
from dsdbd.meta import views
from dsdbd.meta.commands import DropMeasurementSchema
from dsdbd.storage import ShardKey
from dsdbd.storage.tombstones import Tombstone, decode_tombstones, encode_tombstones

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.writes import WritePath
    from dsdbd.influxql import ast
    from dsdbd.meta.state import Database, RetentionPolicy
    from dsdbd.query import Deletion

log = structlog.get_logger("write")
_BARRIER_TIMEOUT_S = 5.0
_OBSERVE_TIMEOUT_S = 2.0
"""For nodes that own nothing of it and only take note of the version."""


class DeleteRequest(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What an owner is told to delete; ``shards``: numbers, each with the place of its deletions in ``tombstones``.

    ``metadata_index`` is the state of the metadata in which the coordinator found the shards. The deletions are encoded
    as a shard's file has them.
    """

    version: int
    metadata_index: int
    shards: list[tuple[int, int]]
    tombstones: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DeleteRequest)


async def delete(
    node: Node, writes: WritePath, database: str, statement: ast.Delete | ast.DropSeries, now_ns: int
) -> None:
    """Carry out DELETE or DROP SERIES: on return no owner shows the points.

    Raises RequestError and NotFound (nothing is deleted), Unavailable (nothing is deleted), OutcomeUnknown (some owners
    have deleted; the statement may be repeated).
    """
    await node.metadata.barrier(_BARRIER_TIMEOUT_S)
    policies = views.database(node.metadata.state, database).policies.values()
    version = await writes.clock.next_reserved()
    work: dict[int, list[Tombstone]] = {}
    for policy in policies:
        fields = {name: types.keys() for name, types in policy.schema.items()}
        add_shards(work, policy, query.deletions(statement, fields, now_ns), version)
    await _at_owners(node, work, version)


async def drop_measurement(node: Node, writes: WritePath, database: str, name: str) -> None:
    """Carry out DROP MEASUREMENT: its points and the types of its fields are gone on return. Raises as ``delete``."""
    await node.metadata.barrier(_BARRIER_TIMEOUT_S)
    owner = views.database(node.metadata.state, database)
    if all(policy.schema.get(name) is None for policy in owner.policies.values()):
        return
    await _erase(node, owner, name, await writes.clock.next_reserved())
    # Points that were written meanwhile must not outlive the types of their fields; those with new types are newer.
    version = await writes.clock.next_reserved()
    await node.metadata.propose(DropMeasurementSchema(database, name))
    await _erase(node, views.database(node.metadata.state, database), name, version)


async def _erase(node: Node, owner: Database, name: str, version: int) -> None:
    work: dict[int, list[Tombstone]] = {}
    for policy in owner.policies.values():
        add_shards(work, policy, [query.Deletion(name, None, query.MIN_NS, query.MAX_NS)], version)
    await _at_owners(node, work, version)


def add_shards(
    work: dict[int, list[Tombstone]], policy: RetentionPolicy, found: Sequence[Deletion], version: int
) -> None:
    """Add deletions to every live shard of a policy that may hold points of their times. Pure.

    Raises RequestError for a condition that is too long to be kept with every shard.
    """
    for one in found:
        tombstone = Tombstone(one.measurement, one.predicate, one.min_ns, one.max_ns, version)
        size_bytes = len(encode_tombstones([tombstone]))
        if size_bytes > MAX_TOMBSTONE_BYTES:
            raise RequestError(
                f"the condition takes {size_bytes} bytes, a deletion may have {MAX_TOMBSTONE_BYTES}; divide it into "
                "several statements, or use a regular expression"
            )
        for group in views.groups_overlapping(policy, one.min_ns, one.max_ns):
            for shard in group.shards:
                work.setdefault(shard.id, []).append(tombstone)


async def receive(node: Node, writes: WritePath, body: bytes) -> None:
    """Delete what another coordinator says; durable on return. Raises RequestError, Unavailable."""
    try:
        request = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise RequestError(f"the deletion cannot be decoded: {error}; run equal versions on all nodes") from error
    writes.observe(request.version)
    if not request.shards:
        return
    await node.metadata.wait_index(request.metadata_index, node.config.cluster.shard_writer_timeout_s)
    await _here(node, request)


async def _here(node: Node, request: DeleteRequest) -> None:
    store = node.store
    if store is None:
        raise Unavailable("the storage of this node is still opening")
    keys = {
        place.shard.id: ShardKey(place.database.name, place.policy.name, place.shard.id)
        for place in views.all_shards(node.metadata.state)
    }
    decoded = [decode_tombstones(encoded) for encoded in request.tombstones]
    for shard_id, place in request.shards:
        # A shard that is not in the metadata any more was dropped, and its points with it.
        if shard_id in keys:
            await asyncio.to_thread(store.delete, keys[shard_id], decoded[place])


async def _at_owners(node: Node, work: Mapping[int, Sequence[Tombstone]], version: int) -> None:
    """Tell every owner what to delete; every other data node only the version, so that what it writes is newer."""
    state = node.metadata.state
    parts: dict[int, DeleteRequest] = {one.id: DeleteRequest(version, state.index, [], []) for one in state.data_nodes}
    encoded: dict[int, dict[bytes, int]] = {}
    for place in views.all_shards(state):
        if place.shard.id not in work:
            continue
        deleted = encode_tombstones(work[place.shard.id])
        for owner in place.shard.owners:
            if owner not in parts:
                raise Unavailable(f"data node {owner}, an owner of shard {place.shard.id}, is not registered")
            known = encoded.setdefault(owner, {})
            parts[owner].shards.append((place.shard.id, known.setdefault(deleted, len(known))))
    for owner, known in encoded.items():
        parts[owner].tombstones.extend(known)
    results = await asyncio.gather(
        *(_at_owner(node, owner, request) for owner, request in parts.items()), return_exceptions=True
    )
    owners = [owner for owner in parts if parts[owner].shards]
    failures: dict[int, DSDBError] = {}
    for owner, result in zip(parts, results, strict=True):
        if isinstance(result, DSDBError):
            failures[owner] = result
        elif isinstance(result, BaseException):
            raise result
    raise_failures(owners, {owner: failures[owner] for owner in owners if owner in failures})


def raise_failures(owners: Sequence[int], failures: Mapping[int, DSDBError]) -> None:
    """Raise what a client is told when owners did not delete: Unavailable if none did anything, else OutcomeUnknown."""
    if not failures:
        return
    reasons = "; ".join(f"data node {owner}: {error.message}" for owner, error in failures.items())
    nothing = all(
        isinstance(error, Unavailable | RequestError) and not (isinstance(error, PeerUnreachable) and error.sent)
        for error in failures.values()
    )
    if nothing and len(failures) == len(owners):
        raise Unavailable(f"nothing was deleted: {reasons}")
    raise OutcomeUnknown(
        f"deleted at {len(owners) - len(failures)} of {len(owners)} owners, queries may still show the points: "
        f"{reasons}; repeat the statement when all owners are there"
    )


async def _at_owner(node: Node, owner: int, request: DeleteRequest) -> None:
    if owner == node.data_id:
        if request.shards:
            await _here(node, request)
        return
    peer = views.data_node(node.metadata.state, owner)
    if peer is None:
        raise Unavailable(f"data node {owner} is not registered")
    timeout_s = node.config.cluster.shard_writer_timeout_s if request.shards else _OBSERVE_TIMEOUT_S
    await node.peers.call(peer.tcp_addr, "POST", "/internal/delete", _encoder.encode(request), timeout_s=timeout_s)
