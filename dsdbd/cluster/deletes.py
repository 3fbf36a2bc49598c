"""Deleting points at every owner of every shard concerned.

A deletion hides what has an older version than its own, whenever that arrives; so owners agree on what is left whatever
the order in which they hear of writes and deletions. It is done when a majority of the owners of each shard have it,
or all of them that are not down, and it is kept for the others: what one alone had, with what it keeps, would be gone
with its machine.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import structlog

from dsdbd import query
from dsdbd.cluster.freshness import reach_index
from dsdbd.cluster.messages import PulseAnswer
from dsdbd.cluster.owners import not_owner
from dsdbd.cluster.peers import PeerUnreachable
from dsdbd.cluster.pieces import in_groups
from dsdbd.cluster.shard_places import key_of
from dsdbd.decoding import decode_json, msgpack_decoder
from dsdbd.errors import DSDBError, NoLeader, NotOwner, OutcomeUnknown, RequestError, Unavailable
from dsdbd.limits import MAX_TOMBSTONE_BYTES
from dsdbd.meta import views
from dsdbd.meta.commands import DropMeasurementSchema
from dsdbd.storage import RecordKind, ShardKey
from dsdbd.storage.tombstones import Tombstone, decode_tombstones, encode_tombstones

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.writes import WritePath
    from dsdbd.influxql import ast
    from dsdbd.meta.state import Database, RetentionPolicy
    from dsdbd.query import Deletion

log = structlog.get_logger("write")
_BARRIER_TIMEOUT_S = 5.0
_KEPT_AT_ONCE = 256
_SHARDS_AT_ONCE = 4
"""Each has a file of its own that is synced; the log is synced once for all that one thread deletes from."""
_MOST_TURNS = 3
"""Rounds of a deletion while shards move on from the nodes it was told to."""
_AGAIN_S = 0.1
"""Pause before owners that are there and failed are told once more: just after a pause of this node none is asked."""
_OBSERVE_TIMEOUT_S = 2.0
"""For telling the version to nodes that own nothing of it, and for asking what version others have seen."""


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
_decoder = msgpack_decoder(DeleteRequest)


async def delete(
    node: Node, writes: WritePath, database: str, statement: ast.Delete | ast.DropSeries, now_ns: int
) -> None:
    """Carry out DELETE or DROP SERIES: on return no owner shows the points, or will when it is back.

    Raises RequestError and NotFound (nothing is deleted), Unavailable (nothing is deleted), OutcomeUnknown (some owners
    have deleted; the statement may be repeated).
    """
    await node.metadata.barrier(_BARRIER_TIMEOUT_S)
    policies = views.database(node.metadata.state, database).policies.values()
    await _learn_versions(node, writes)
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
    await _learn_versions(node, writes)
    await _erase(node, owner, name, await writes.clock.next_reserved())
    # Points that were written meanwhile must not outlive the types of their fields; those with new types are newer.
    await _learn_versions(node, writes)
    version = await writes.clock.next_reserved()
    await node.metadata.propose(DropMeasurementSchema(database, name))
    await _erase(node, views.database(node.metadata.state, database), name, version)


async def _learn_versions(node: Node, writes: WritePath) -> None:
    """Take note of the newest version that each data node has seen, as far as they answer.

    A deletion hides lower versions only. Clocks differ, and a node that has just come has seen nothing of what others
    confirmed a moment ago; of every point that a majority of its owners confirmed, one of those that answer knows.
    """
    down = node.away()
    peers = [peer for peer in node.metadata.state.data_nodes if peer.id != node.data_id and peer.id not in down]
    asked = (node.peers.call(peer.tcp_addr, "GET", "/cluster/pulse", timeout_s=_OBSERVE_TIMEOUT_S) for peer in peers)
    for peer, answer in zip(peers, await asyncio.gather(*asked, return_exceptions=True), strict=True):
        try:
            if isinstance(answer, BaseException):
                raise answer
            writes.observe(decode_json(answer, PulseAnswer).version)
        except (DSDBError, msgspec.MsgspecError) as error:
            log.info("a data node does not tell its newest version", address=peer.tcp_addr, reason=str(error))


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
    await reach_index(node, request.metadata_index, node.config.cluster.shard_writer_timeout_s / 2)
    await _here(node, request)


def encode_kept(key: ShardKey, encoded: bytes, metadata_index: int) -> bytes:
    """The request for a deletion of one shard that was kept for an owner. Raises CorruptData."""
    version = max((one.version for one in decode_tombstones(encoded)), default=0)
    return _encoder.encode(DeleteRequest(version, metadata_index, [(key.shard_id, 0)], [encoded]))


async def _here(node: Node, request: DeleteRequest) -> None:
    """Delete in this node's copies. Raises NotOwner where it has none of a shard any more, even if it has deleted.

    Whoever took its place may have compared before the deletion was here; the coordinator must tell that one.
    """
    store = node.store
    if store is None:
        raise Unavailable("the storage of this node is still opening")
    places = {place.shard.id: place for place in views.all_shards(node.metadata.state)}
    decoded = [decode_tombstones(encoded) for encoded in request.tombstones]
    wanted: list[tuple[ShardKey, tuple[Tombstone, ...]]] = []
    for shard_id, at in request.shards:
        place = places.get(shard_id)
        if place is None:
            # A shard that is not in the metadata any more was dropped, and its points with it.
            continue
        if node.data_id not in views.writers(place.shard):
            raise not_owner(node, shard_id)
        wanted.append((key_of(place), decoded[at]))
    some = (wanted[at::_SHARDS_AT_ONCE] for at in range(min(_SHARDS_AT_ONCE, len(wanted))))
    results = await asyncio.gather(*(asyncio.to_thread(store.delete_all, one) for one in some), return_exceptions=True)
    shards = {key.shard_id for key, _ in wanted}
    for result in results:
        if isinstance(result, BaseException):
            # Other owners may have deleted, and nobody but the coordinator knows that this one has not.
            if node.repair is not None:
                node.repair.refused(*shards)
            raise result
    for place in views.all_shards(node.metadata.state):
        if place.shard.id in shards and node.data_id not in views.writers(place.shard):
            raise not_owner(node, place.shard.id)


@dataclass
class Round:
    """One deletion at the nodes that shall hear of it: what each is told, and what became of it.

    ``keys``: the shards concerned; ``failures``: by node, those that did not confirm. ``to_tell``: nodes that are asked
    in this round; the others were in an earlier one, of the same shards. ``begun``: some node may have deleted before.
    """

    requests: dict[int, DeleteRequest]
    keys: dict[int, ShardKey] = field(default_factory=dict)
    owners: dict[int, tuple[int, ...]] = field(default_factory=dict)
    encoded: dict[int, bytes] = field(default_factory=dict)
    failures: dict[int, DSDBError] = field(default_factory=dict)
    to_tell: list[int] = field(default_factory=list)
    begun: bool = False

    def after(self, earlier: Round) -> None:
        """Take over what nodes said in an earlier round; those that have a shard more since, or moved on, are open."""
        self.begun = earlier.begun or any(
            request.shards and _may_have_deleted(earlier.failures.get(node_id))
            for node_id, request in earlier.requests.items()
        )
        for node_id, request in self.requests.items():
            before = earlier.requests.get(node_id)
            same = before is not None and {one for one, _ in request.shards} <= {one for one, _ in before.shards}
            failure = earlier.failures.get(node_id)
            if not same or (isinstance(failure, NotOwner) and request.shards):
                self.to_tell.append(node_id)
            elif failure is not None and request.shards:
                self.failures[node_id] = failure

    def missed(self) -> list[tuple[int, int]]:
        """Nodes that did not confirm, with each shard they were told of that is deleted at some owner."""
        return [
            (node_id, shard_id)
            for node_id in self.failures
            for shard_id, _ in self.requests[node_id].shards
            if self.is_done(shard_id)
        ]

    def lacking(self, down: Collection[int]) -> dict[int, list[int]]:
        """Owners that failed and are not down, with shards that some have deleted and fewer than a majority. Pure.

        Not those that would refuse again, or are no owners any more: they are told by newer metadata.
        """
        found: dict[int, list[int]] = {}
        for shard_id, owners in self.owners.items():
            failed = [owner for owner in owners if owner in self.failures]
            if 0 < len(owners) - len(failed) <= len(owners) // 2:
                for owner in failed:
                    if owner not in down and not isinstance(self.failures[owner], NotOwner | RequestError):
                        found.setdefault(owner, []).append(shard_id)
        return found

    def is_done(self, shard_id: int) -> bool:
        """Whether an owner of the shard confirmed."""
        return any(owner not in self.failures for owner in self.owners[shard_id])


def _plan_round(node: Node, work: Mapping[int, Sequence[Tombstone]], version: int) -> Round:
    """Tell every owner what to delete; every other data node only the version, so that what it writes is newer."""
    state = node.metadata.state
    found = Round({one.id: DeleteRequest(version, state.index, [], []) for one in state.data_nodes})
    known: dict[int, dict[bytes, int]] = {}
    for place in views.all_shards(state):
        shard = place.shard
        if shard.id not in work:
            continue
        found.keys[shard.id] = key_of(place)
        found.owners[shard.id] = shard.owners
        deleted = found.encoded[shard.id] = encode_tombstones(work[shard.id])
        for writer in views.writers(shard):
            request = found.requests.get(writer)
            if request is None:
                raise Unavailable(f"data node {writer}, an owner of shard {shard.id}, is not registered")
            places = known.setdefault(writer, {})
            if deleted not in places:
                request.tombstones.append(deleted)
            request.shards.append((shard.id, places.setdefault(deleted, len(places))))
    return found


async def _at_owners(node: Node, work: Mapping[int, Sequence[Tombstone]], version: int) -> None:
    """Delete at every owner; keep it for those that did not confirm where another one did.

    Shards may move meanwhile, and a node that confirmed may have ceased to be an owner before, by metadata that it had
    not heard of: so the newest metadata, after all have answered, say whether everybody was told. Who takes a copy
    later than that finds the deletion at an owner.

    A crash before it is kept leaves owners that differ, and a client without an answer: repair brings the deletion to
    all owners of the shards where one has it.
    """
    found = _plan_round(node, work, version)
    found.to_tell = list(found.requests)
    stale: NoLeader | None = None
    for _ in range(_MOST_TURNS):
        await _tell(node, found)
        await _tell_again(node, found)
        try:
            await node.metadata.barrier(_BARRIER_TIMEOUT_S)
        except NoLeader as error:
            stale = error
            break
        newer = _plan_round(node, work, version)
        newer.after(found)
        found = newer
        if not found.to_tell:
            break
    for owner in found.to_tell:
        if found.requests[owner].shards and stale is None:
            found.failures.setdefault(owner, Unavailable("shards move faster than it can be told"))
    lacking = found.lacking(node.away())
    unkept = await _keep_missed(node, found)
    raise_failures(found.owners, found.failures, unkept, begun=found.begun, lacking=lacking)
    if stale is not None:
        raise OutcomeUnknown(
            f"deleted, but an owner that came meanwhile may not know of it: {stale.message}; repeat the statement"
        )


async def _tell(node: Node, found: Round) -> None:
    """Tell the nodes that are to be told, all at once, and note which of them did not confirm."""
    results = await asyncio.gather(
        *(_at_owner(node, owner, found.requests[owner]) for owner in found.to_tell), return_exceptions=True
    )
    for owner, result in zip(found.to_tell, results, strict=True):
        if isinstance(result, DSDBError):
            if found.requests[owner].shards:
                found.failures[owner] = result
        elif isinstance(result, BaseException):
            raise result


async def _tell_again(node: Node, found: Round) -> None:
    """Tell owners that are there once more while too few of a shard have deleted, but not for long."""
    deadline_s = node.clock.monotonic_s() + node.config.cluster.shard_writer_timeout_s
    while (again := found.lacking(node.away())) and node.clock.monotonic_s() < deadline_s:
        await asyncio.sleep(_AGAIN_S)
        # What they said before still counts for whether something may have been deleted.
        found.begun = found.begun or any(_may_have_deleted(found.failures[owner]) for owner in again)
        for owner in again:
            del found.failures[owner]
        found.to_tell = list(again)
        await _tell(node, found)


async def _keep_missed(node: Node, found: Round) -> set[int]:
    """Keep the deletion durably for every node that missed it; returns the nodes for which it could not be kept."""
    missed = found.missed()
    if node.handoff is None:
        return {owner for owner, _ in missed}
    unkept: set[int] = set()
    for some in in_groups(missed, _KEPT_AT_ONCE):
        kept = await asyncio.gather(
            *(
                node.handoff.keep(owner, found.keys[shard_id], found.encoded[shard_id], kind=RecordKind.DELETE)
                for owner, shard_id in some
            ),
            return_exceptions=True,
        )
        for (owner, shard_id), result in zip(some, kept, strict=True):
            if isinstance(result, Unavailable):
                log.warning("a deletion is not kept", owner=owner, shard=shard_id, reason=result.message)
                unkept.add(owner)
            elif isinstance(result, BaseException):
                raise result
    return unkept


def _may_have_deleted(error: DSDBError | None) -> bool:
    """Whether a node that answered so may have deleted something; None: it confirmed."""
    if isinstance(error, NotOwner) or (isinstance(error, PeerUnreachable) and error.sent):
        return True
    return not isinstance(error, Unavailable | RequestError)


def raise_failures(
    owners: Mapping[int, tuple[int, ...]],
    failures: Mapping[int, DSDBError],
    unkept: Collection[int],
    *,
    begun: bool = False,
    lacking: Mapping[int, Sequence[int]] | None = None,
) -> None:
    """Raise what a client is told: nothing, where each shard has an owner that deleted and the others will. Pure.

    ``owners``: those of each shard. ``failures``: nodes that did not confirm. ``unkept``: those of them for which the
    deletion is not kept. ``begun``: nodes that are none of these may have deleted. ``lacking``: nodes that are there
    and did not confirm, with shards that too few have deleted. Raises Unavailable if no owner did anything, else
    OutcomeUnknown.
    """
    undone = [shard_id for shard_id, those in owners.items() if all(one in failures for one in those)]
    if not undone and not unkept and not lacking:
        return
    reasons = "; ".join(f"data node {owner}: {error.message}" for owner, error in failures.items())
    nothing = not begun and not any(map(_may_have_deleted, failures.values()))
    if nothing and len(undone) == len(owners):
        raise Unavailable(f"nothing was deleted: {reasons}")
    if undone:
        raise OutcomeUnknown(
            f"deleted in {len(owners) - len(undone)} of {len(owners)} shards, no owner of the others has confirmed: "
            f"{reasons}; repeat the statement when they are there"
        )
    if not unkept:
        shards = ", ".join(map(str, sorted({shard for those in (lacking or {}).values() for shard in those})))
        raise OutcomeUnknown(
            f"deleted, but fewer than a majority of the owners of shard {shards} have confirmed: {reasons}; it is kept "
            "for the others by this node alone; repeating the statement is harmless"
        )
    raise OutcomeUnknown(
        f"deleted, but not at every owner, and not kept for all that are away: {reasons}; queries may still show the "
        "points until repair has reached those; repeating the statement is harmless"
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
