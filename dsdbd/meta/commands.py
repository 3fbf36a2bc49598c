"""Commands that change the metadata, the envelope they travel in, and the results they give; all MessagePack.

Whatever is not a function of the state (the time, a password hash, which nodes are away) is decided by the proposer
and travels inside the command, so that every node applies it to the same effect.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dsdbd.decoding import msgpack_decoder
from dsdbd.meta.state import Privilege, ShardGroup, SubscriptionMode
from dsdbd.model.types import FieldType

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
"""A uuid, an address, a request id: never empty, and short."""
ClusterId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class _Command(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Encoded as an array that opens with the name of the class."""


class _Registration(_Command, frozen=True):
    uuid: Text
    http_addr: Text
    tcp_addr: Text


class _OneCopy(_Command, frozen=True):
    shard_id: Int64
    node_id: Int64


class _OnePrivilege(_Command, frozen=True):
    user: str
    database: str
    privilege: Privilege


class _OfDatabase(_Command, frozen=True):
    database: str
    name: str


class PolicySpec(msgspec.Struct, frozen=True, array_like=True):
    """What WITH of CREATE DATABASE says about the first policy; None where it says nothing. Durations in ns, 0 = ∞."""

    name: str | None = None
    duration_ns: Int64 | None = None
    replica_n: Int64 | None = None
    shard_group_duration_ns: Int64 | None = None


# --- cluster and nodes
class InitCluster(_Command, frozen=True):
    """Fix the cluster id, 32 hex digits. Gives ClusterIs; another id than the one fixed is refused."""

    cluster_id: ClusterId


class CreateMetaNode(_Registration, frozen=True):
    """Register a meta node, or its changed addresses. Gives NodeIs."""


class CreateDataNode(_Registration, frozen=True):
    """Register a data node, or its changed addresses. Gives NodeIs."""


class UpdateMetaNode(_Registration, frozen=True):
    """Change the addresses of a registered meta node. Gives NodeIs."""


class UpdateDataNode(_Registration, frozen=True):
    """Change the addresses of a registered data node. Gives NodeIs."""


class DropMetaNode(_Command, frozen=True):
    """Remove a meta node and tombstone it; the last one is refused."""

    id: Int64
    reason: str = ""


class DropDataNode(_Command, frozen=True):
    """Remove a data node from the cluster and from all owner lists. Gives ShardsOrphaned.

    Without ``force`` the last node and the last copy of a live shard are refused. With it, a shard that lost its last
    copy starts empty on the node ``orphan_owners`` names (shard id to node id) or, without a usable entry, on the node
    with the fewest shards of the group; when no data node is left the groups are deleted.
    """

    id: Int64
    force: bool = False
    orphan_owners: dict[int, int] = {}
    reason: str = ""


class SetDraining(_Command, frozen=True):
    """Say whether a data node gives its shards away and takes no new ones; the last node that takes any is refused.

    Copies that a draining node is taking are cancelled, and those that replace it when it is draining no longer.
    """

    node_id: Int64
    draining: bool


# --- databases and retention policies
class CreateDatabase(_Command, frozen=True):
    """Create a database, or find it as described.

    With ``policy`` that policy is made its default. Without, ``autogen`` is made when ``autocreate``: infinite. Where
    no number of copies is stated there is one per data node, but at most ``max_replicas`` (0: no bound), and more when
    nodes join (RaiseReplication).
    """

    name: str
    policy: PolicySpec | None = None
    autocreate: bool = True
    max_replicas: Int64 = 3


class DropDatabase(_Command, frozen=True):
    """Forget a database, its shards and the privileges on it; an unknown name is no error."""

    name: str


class CreateRetentionPolicy(_OfDatabase, frozen=True):
    """Create a policy; the same one again is no error. Durations in ns; shard duration 0 = chosen from duration."""

    duration_ns: Int64
    replica_n: Int64
    shard_group_duration_ns: Int64 = 0
    default: bool = False


class UpdateRetentionPolicy(_OfDatabase, frozen=True):
    """Change what is not None; shard groups that exist stay as they are."""

    duration_ns: Int64 | None = None
    replica_n: Int64 | None = None
    shard_group_duration_ns: Int64 | None = None
    default: bool = False


class RaiseReplication(_Command, frozen=True):
    """Give every policy whose number of copies nobody stated one copy per data node, ``cap`` at most (0: no bound).

    A number is never lowered. Shard groups that exist stay as they are; BeginMoves brings them their copies.
    """

    cap: Int64


class SetDefaultRetentionPolicy(_OfDatabase, frozen=True):
    """Make a policy the one that unnamed writes and queries use."""


class DropRetentionPolicy(_OfDatabase, frozen=True):
    """Forget a policy and its shards; an unknown name is no error, the default policy is refused."""


# --- shard groups
class CreateShardGroups(_Command, frozen=True):
    """Make sure that a live group covers each time. Gives ShardGroupsAre, one group per distinct group.

    ``avoid`` names data nodes that the proposer knows to be away; they get no shard while enough others are left.
    """

    database: str
    policy: str
    times_ns: tuple[Int64, ...]
    avoid: tuple[int, ...] = ()


class DeleteShardGroup(_Command, frozen=True):
    """Mark a group deleted, so that its owners remove the shards; repeating it is no error."""

    database: str
    policy: str
    id: Int64


class PruneShardGroups(_Command, frozen=True):
    """Forget groups deleted before ``deleted_before_ns``."""

    deleted_before_ns: Int64


class DropShard(_Command, frozen=True):
    """Drop the points of one shard: a new, empty shard with the same owners takes its place in the group.

    A group of one shard is deleted instead. An unknown id is no error.
    """

    id: Int64


class AddShardOwner(_OneCopy, frozen=True):
    """Record that a data node holds a full copy of a shard; send it after the copy is complete."""


class RemoveShardOwner(_OneCopy, frozen=True):
    """Take a data node off a shard's owners; the last owner is refused."""


class ShardMove(msgspec.Struct, frozen=True, array_like=True):
    """A data node shall take a copy of a shard, in place of the owner ``replaces``, or (0) in addition to all."""

    shard_id: Int64
    node_id: Int64
    replaces: Int64 = 0


class BeginMoves(_Command, frozen=True):
    """Order copies: each node is noted at its shard until CompleteMove or CancelMoves.

    All or nothing. Refused: a shard or node that does not exist, a node that owns the shard already or is taking a
    copy, a node that is draining, a replaced node that is no owner or is being replaced already.
    """

    moves: tuple[ShardMove, ...]


class CompleteMove(_OneCopy, frozen=True):
    """The node's copy is complete: it becomes an owner, in one step with the replaced one's end as an owner.

    Repeating it is no error; it is refused when the move was cancelled.
    """


class CancelMoves(_Command, frozen=True):
    """Forget the moves that match all numbers given (0: any): receiving node, shard, replaced owner.

    No move that matches is no error.
    """

    node_id: Int64 = 0
    shard_id: Int64 = 0
    replaces: Int64 = 0


# --- field types
class CreateFields(_Command, frozen=True):
    """Fix types of fields that have none yet: measurement to field key to type. Gives FieldTypesAre.

    A field that has another type keeps it and is reported; that is not an error of the command.
    """

    database: str
    policy: str
    fields: dict[str, dict[str, FieldType]]


class DropMeasurementSchema(_Command, frozen=True):
    """Forget the field types of a measurement in all policies of a database."""

    database: str
    measurement: str


# --- users
class CreateUser(_Command, frozen=True):
    """Create a user; the same name, hash and admin again is no error."""

    name: str
    hash: str
    admin: bool = False


class UpdateUser(_Command, frozen=True):
    """Replace a user's password hash."""

    name: str
    hash: str


class DropUser(_Command, frozen=True):
    """Forget a user."""

    name: str


class SetPrivilege(_OnePrivilege, frozen=True):
    """GRANT … ON: replace a user's privilege on a database."""


class RevokePrivilege(_OnePrivilege, frozen=True):
    """REVOKE … ON: take the bits of ``privilege`` from a user's privilege on a database."""


class SetAdminPrivilege(_Command, frozen=True):
    """Make a user an administrator, or no longer one."""

    user: str
    admin: bool


# --- continuous queries and subscriptions
class CreateContinuousQuery(_OfDatabase, frozen=True):
    """Store a continuous query; the same text again (case ignored) is no error."""

    query: str


class DropContinuousQuery(_OfDatabase, frozen=True):
    """Forget a continuous query; an unknown one is no error."""


class ContinuousQueryRun(msgspec.Struct, frozen=True, array_like=True):
    """Up to when one continuous query has been run."""

    database: str
    name: str
    last_run_ns: Int64


class RecordContinuousQueryRuns(_Command, frozen=True):
    """Remember up to when continuous queries have been run; those that are not there any more are passed over."""

    runs: tuple[ContinuousQueryRun, ...]


class CreateSubscription(_Command, frozen=True):
    """Copy the points of a policy to ``destinations``, URLs of scheme http, https or udp with a port."""

    database: str
    policy: str
    name: str
    mode: SubscriptionMode
    destinations: tuple[str, ...]


class DropSubscription(_Command, frozen=True):
    """Stop copying."""

    database: str
    policy: str
    name: str


Command = (
    InitCluster
    | CreateMetaNode
    | CreateDataNode
    | UpdateMetaNode
    | UpdateDataNode
    | DropMetaNode
    | DropDataNode
    | SetDraining
    | CreateDatabase
    | DropDatabase
    | CreateRetentionPolicy
    | UpdateRetentionPolicy
    | RaiseReplication
    | SetDefaultRetentionPolicy
    | DropRetentionPolicy
    | CreateShardGroups
    | DeleteShardGroup
    | PruneShardGroups
    | DropShard
    | AddShardOwner
    | RemoveShardOwner
    | BeginMoves
    | CompleteMove
    | CancelMoves
    | CreateFields
    | DropMeasurementSchema
    | CreateUser
    | UpdateUser
    | DropUser
    | SetPrivilege
    | RevokePrivilege
    | SetAdminPrivilege
    | CreateContinuousQuery
    | DropContinuousQuery
    | CreateSubscription
    | DropSubscription
    | RecordContinuousQueryRuns
)


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A command with the proposer's time and an id that stays the same when the request is repeated."""

    request_id: Text
    now_ns: Int64
    command: Command


# --- results
class _Value(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Encoded as an array that opens with the name of the class."""


class ClusterIs(_Value, frozen=True):
    """The cluster's id."""

    cluster_id: str


class NodeIs(_Value, frozen=True):
    """The number of a registration."""

    id: int


class ShardGroupsAre(_Value, frozen=True):
    """The groups that cover the requested times, sorted by start."""

    groups: tuple[ShardGroup, ...]


class ShardsOrphaned(_Value, frozen=True):
    """Shards that lost their last copy: id and the node on which each starts empty (None: its group is deleted)."""

    shards: tuple[tuple[int, int | None], ...] = ()


class FieldConflict(msgspec.Struct, frozen=True, array_like=True):
    """A field asked for with one type that has another."""

    measurement: str
    field: str
    asked: FieldType
    holds: FieldType


class FieldTypesAre(_Value, frozen=True):
    """For every field asked for the type that holds now, and those whose type differs from the one asked for."""

    fields: dict[str, dict[str, FieldType]]
    conflicts: tuple[FieldConflict, ...] = ()


Value = ClusterIs | NodeIs | ShardGroupsAre | ShardsOrphaned | FieldTypesAre


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why a command was refused: a code that never changes and the sentence for the user."""

    code: str
    message: str


class Result(msgspec.Struct, frozen=True, array_like=True):
    """Answer to a command; ``index`` is the Raft index at which it was first applied."""

    index: int
    error: Failure | None = None
    value: Value | None = None

    @property
    def ok(self) -> bool:
        """Whether the command was carried out."""
        return self.error is None


_encoder = msgspec.msgpack.Encoder()
_envelope_decoder = msgpack_decoder(Envelope)
_result_decoder = msgpack_decoder(Result)


def encode_envelope(envelope: Envelope) -> bytes:
    """What is given to Raft; its length must stay within limits.MAX_COMMAND_BYTES, which the proposer checks."""
    return _encoder.encode(envelope)


def decode_envelope(data: bytes) -> Envelope:
    """The envelope in ``data``.

    Raises ValueError: the bytes are no envelope, or hold a command this version does not know.
    """
    try:
        return _envelope_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"not a metadata command: {error}") from error


def encode_result(result: Result) -> bytes:
    """What the state machine answers to Raft."""
    return _encoder.encode(result)


def decode_result(data: bytes) -> Result:
    """The result in ``data``.

    Raises ValueError: the bytes are no result.
    """
    try:
        return _result_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"not a metadata result: {error}") from error
