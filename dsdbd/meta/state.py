"""The replicated metadata: one immutable value, and its encoding as a snapshot.

Nothing here is changed in place. A command copies the path from the root to what it changes and shares the rest:
the dict of databases, the dict of one database's policies, and for a new shard group the tuple of references to that
policy's groups (about 0.2 ms for 10,000 groups in one policy). Field types sit in a map whose copy costs √n.

Structs are encoded as MessagePack arrays, so a field may be added only at the end and with a default.
"""

from __future__ import annotations

import enum

import msgspec

from dsdbd.decoding import msgpack_decoder
from dsdbd.errors import CorruptData
from dsdbd.meta.persistent import PersistentMap
from dsdbd.model.types import FieldType

SNAPSHOT_FORMAT = 1
"""Number in front of every encoded state; another number is refused rather than guessed at."""
AUTOGEN = "autogen"
"""Name of the policy a database gets by itself."""
AUTOGEN_ALIAS = "default"
"""Other name of ``autogen``, accepted wherever a policy is named unless a policy is really called so."""
INTERNAL_DATABASE = "_internal"
"""The daemons' own statistics; its automatic policy keeps one copy."""

FieldTypes = dict[str, FieldType]
"""Field key to type, of one measurement in one policy."""


class Privilege(enum.IntEnum):
    """What a user may do with one database; the bits are read = 1 and write = 2."""

    NONE = 0
    READ = 1
    WRITE = 2
    ALL = 3


class SubscriptionMode(enum.Enum):
    """Whether each destination gets every point or the destinations take turns."""

    ALL = "ALL"
    ANY = "ANY"


class Role(enum.Enum):
    """Which of the two node lists a registration is in."""

    META = "meta"
    DATA = "data"


class MetaNode(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A voting node. Addresses are ``host:port``: the metadata HTTP address and the one Raft listens on."""

    id: int
    uuid: str
    http_addr: str
    tcp_addr: str


class DataNode(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A node that holds points. Addresses are ``host:port``: the public HTTP address and the node-to-node one."""

    id: int
    uuid: str
    http_addr: str
    tcp_addr: str
    draining: bool = False
    """Its shards are being moved to others, and it gets no new ones while enough others are there."""


class Tombstone(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A removed registration; its uuid may not register in that role again."""

    id: int
    uuid: str
    role: Role
    http_addr: str
    tcp_addr: str
    removed_at_ns: int
    reason: str


class Incoming(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A data node that is taking a copy of a shard; it gets the shard's writes, but is not counted and answers nothing.

    ``replaces`` is the owner that stops being one when the copy is complete, 0 where a copy is added. ``begun_ns`` is
    when the copy was ordered.
    """

    node: int
    replaces: int = 0
    begun_ns: int = 0


class Shard(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part of a shard group. ``owners`` are ids of data nodes, the first being the preferred one.

    ``incoming`` names other nodes than the owners, each once; all this state knows of a move that is under way.
    """

    id: int
    owners: tuple[int, ...]
    incoming: tuple[Incoming, ...] = ()


class ShardGroup(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The shards of the times ``start_ns`` <= t < ``end_ns``.

    A series belongs to the shard at position ``series_hash % len(shards)``, so the number and the order of ``shards``
    never change while the group lives. ``deleted_at_ns`` is None exactly for the groups in ``shard_groups``.
    """

    id: int
    start_ns: int
    end_ns: int
    shards: tuple[Shard, ...]
    deleted_at_ns: int | None = None


class Subscription(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where accepted points of a policy are copied to."""

    name: str
    mode: SubscriptionMode
    destinations: tuple[str, ...]


class RetentionPolicy(msgspec.Struct, frozen=True, array_like=True):
    """How long points live, in how many copies, and where they are.

    ``shard_groups`` holds the live groups, disjoint and sorted by start; ``deleted_groups`` those whose shards the
    nodes shall remove, oldest deletion first, until PruneShardGroups forgets them. ``schema`` maps measurements to
    the types of their fields.
    """

    name: str
    duration_ns: int
    """0 means for ever."""
    shard_group_duration_ns: int
    replica_n: int
    """Copies asked for; a group made while fewer data nodes exist has fewer."""
    shard_groups: tuple[ShardGroup, ...] = ()
    deleted_groups: tuple[ShardGroup, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    schema: PersistentMap[FieldTypes] = PersistentMap()
    replica_auto: bool = False
    """The user stated no number of copies: RaiseReplication raises ``replica_n`` when data nodes join."""


class ContinuousQuery(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A named statement; ``query`` is the whole CREATE CONTINUOUS QUERY text in normal form."""

    name: str
    query: str
    last_run_ns: int | None = None
    """Up to when it has been run (``dsdbd.services.resampling``); None before its first run."""


class Database(msgspec.Struct, frozen=True, array_like=True):
    """A database; ``policies`` and ``continuous_queries`` keep the order of creation."""

    name: str
    default_rp: str = ""
    """Name of the default policy; empty where a database has none."""
    policies: dict[str, RetentionPolicy] = {}
    continuous_queries: dict[str, ContinuousQuery] = {}


class User(msgspec.Struct, frozen=True, array_like=True):
    """A user; ``hash`` is opaque to the state machine, ``privileges`` keeps the order in which they were set."""

    name: str
    hash: str
    admin: bool = False
    privileges: dict[str, Privilege] = {}


class Answers(msgspec.Struct, frozen=True, array_like=True):
    """Encoded results of recent requests, in chunks of which the oldest is dropped as a whole.

    A change copies only the newest chunk. ``newest_bytes`` is the size of the results in it.
    """

    chunks: tuple[dict[str, bytes], ...] = ()
    newest_bytes: int = 0

    def get(self, request_id: str) -> bytes | None:
        """The stored result of a request, or None."""
        for chunk in reversed(self.chunks):
            if (found := chunk.get(request_id)) is not None:
                return found
        return None


class MetaState(msgspec.Struct, frozen=True, array_like=True):
    """Everything the cluster agrees on. Node lists are sorted by id; databases and users keep creation order."""

    cluster_id: str = ""
    """32 hex digits, made once; empty until InitCluster."""
    index: int = 0
    """Raft index of the last applied entry, whether it changed anything or not."""
    max_node_id: int = 0
    """One counter for meta and data registrations; a number is never used again."""
    max_shard_group_id: int = 0
    max_shard_id: int = 0
    meta_nodes: tuple[MetaNode, ...] = ()
    data_nodes: tuple[DataNode, ...] = ()
    tombstones: tuple[Tombstone, ...] = ()
    """Oldest first, bounded by limits.MAX_TOMBSTONES."""
    databases: dict[str, Database] = {}
    users: dict[str, User] = {}
    answers: Answers = Answers()


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    format: int
    state: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_snapshot_decoder = msgpack_decoder(_Snapshot)
_state_decoder = msgpack_decoder(MetaState)


def encode_state(state: MetaState) -> bytes:
    """The state as MessagePack ``[format, state]``; equal states give equal bytes."""
    return _encoder.encode(_Snapshot(SNAPSHOT_FORMAT, msgspec.Raw(_encoder.encode(state))))


def decode_state(data: bytes) -> MetaState:
    """The state in ``data``.

    Raises CorruptData: the bytes are no snapshot, or one of another format.
    """
    try:
        snapshot = _snapshot_decoder.decode(data)
        if snapshot.format != SNAPSHOT_FORMAT:
            raise CorruptData(
                f"metadata snapshot has format {snapshot.format}, this version of dsdbd reads format "
                f"{SNAPSHOT_FORMAT}: start the version that wrote it"
            )
        return _state_decoder.decode(snapshot.state)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptData(f"metadata snapshot of {len(data)} bytes cannot be decoded: {error}") from error
