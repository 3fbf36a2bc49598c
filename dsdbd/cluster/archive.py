"""What a backup says about a cluster: its metadata, its shards, their files. Pure; docs/format/backup.md explains it.

The daemon answers with ``Contents`` and ``OpenedShard``, the tool writes a ``Manifest``; all are JSON.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from dsdbd.decoding import decode_json
from dsdbd.errors import CorruptData, NotFound, RequestError
from dsdbd.meta import views
from dsdbd.meta.state import Privilege, SubscriptionMode
from dsdbd.model.types import FieldType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dsdbd.meta.state import Database, MetaState, RetentionPolicy, User
    from dsdbd.model.digest import Grid

    Digests = dict[str, str]
    """Measurement to the sum of its cells' digests as 16 hexadecimal digits."""

FORMAT = 1
"""Number in every manifest; another one is refused rather than guessed at."""
_MASK = (1 << 64) - 1
_T = TypeVar("_T")


class Subscription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where accepted points of a policy are copied to."""

    name: str
    mode: SubscriptionMode
    destinations: list[str]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A retention policy; ``fields`` maps measurements to the types of their fields. Durations in ns, 0 = for ever."""

    name: str
    duration_ns: int
    shard_group_duration_ns: int
    replica_n: int
    replica_auto: bool
    default: bool
    fields: dict[str, dict[str, FieldType]] = {}
    subscriptions: list[Subscription] = []


class ContinuousQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A continuous query; ``query`` is its whole text, ``last_run_ns`` up to when it had been run."""

    name: str
    query: str
    last_run_ns: int | None = None


class DatabaseEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A database with its policies and continuous queries, in order of creation."""

    name: str
    policies: list[Policy]
    continuous_queries: list[ContinuousQuery] = []


class UserEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user with the hash of the password, and privileges by database."""

    name: str
    hash: str
    admin: bool
    privileges: dict[str, Privilege] = {}


class ShardEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shard: the times ``start_ns`` <= t < ``end_ns`` of some series of a policy."""

    id: int
    database: str
    policy: str
    start_ns: int
    end_ns: int


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a cluster is meant: everything, a database, one of its policies, one shard."""

    database: str = ""
    retention: str = ""
    shard: int = 0


class Contents(msgspec.Struct, frozen=True):
    """What there is to be backed up, and where it was seen."""

    cluster_id: str
    version: str
    taken_ns: int
    databases: list[DatabaseEntry]
    users: list[UserEntry]
    shards: list[ShardEntry]


class ListedFile(msgspec.Struct, frozen=True):
    """One segment file at an owner. ``modified_ns``: when it was written there."""

    measurement: str
    name: str
    size_bytes: int
    rows: int
    modified_ns: int


class OpenedShard(msgspec.Struct, frozen=True):
    """One owner's copy of a shard, whose files are kept while ``token`` is in use.

    ``owner``: its number as a data node; ``uuid``: its own. ``clean``: it holds all that a majority
    of the owners held just before. ``digests``: of exactly what the files hold; None while points were being written.
    """

    owner: int
    uuid: str
    token: str
    clean: bool
    files: list[ListedFile]
    tombstones: msgspec.Raw
    digests: dict[str, str] | None


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A segment file of a backup. ``path``: below the directory of the backup; empty where it was not copied.

    ``name``: at the owner. A file written before the time of ``-since`` is not copied. ``modified_ns``: when the owner
    wrote it, Unix time; 0 where that is not known.
    """

    measurement: str
    name: str
    path: str
    size_bytes: int
    rows: int
    sha256: str
    modified_ns: int = 0


class ShardRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shard of a backup, as of ``ShardEntry`` and ``OpenedShard``."""

    id: int
    database: str
    policy: str
    start_ns: int
    end_ns: int
    owner: int
    uuid: str
    clean: bool
    files: list[FileRecord]
    tombstones: msgspec.Raw
    digests: dict[str, str] | None
    """What the shard held, files that were not copied included; None where that is not known."""

    @property
    def whole(self) -> bool:
        """Whether every file is in the backup's directory."""
        return all(file.path for file in self.files)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file ``meta.NN`` of a backup."""

    format: int
    cluster_id: str
    version: str
    taken_ns: int
    scope: Scope
    since_ns: int | None
    databases: list[DatabaseEntry]
    users: list[UserEntry]
    shards: list[ShardRecord]
    stale: bool = False
    """The metadata are those of one node, without asking whether a majority knew newer ones."""
    sha256: str = ""
    """Of the file that holds it, with an empty one; ``encode_manifest`` sets it."""


def encode_manifest(manifest: Manifest) -> bytes:
    """The content of ``meta.NN``, which holds its own digest: that of all its bytes with an empty digest."""
    empty = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, sha256="")), indent=1) + b"\n"
    return _with_digest(empty, "", hashlib.sha256(empty).hexdigest())


def _with_digest(data: bytes, before: str, after: str) -> bytes:
    """A manifest with another digest of itself, which is its last key; those of its files come before it."""
    begin, _, end = data.rpartition(f'"sha256": "{before}"'.encode())
    return begin + f'"sha256": "{after}"'.encode() + end


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in ``data``. Raises CorruptData: the bytes are none, or changed, or one of another format."""
    manifest = _parse_manifest(data)
    if manifest.sha256:
        found = hashlib.sha256(_with_digest(data, manifest.sha256, "")).hexdigest()
        if found != manifest.sha256:
            raise CorruptData(f"it was changed since it was written: its bytes have the SHA-256 {found}")
    return manifest


def _parse_manifest(data: bytes) -> Manifest:
    try:
        found = decode_json(data, _FormatOnly).format
        if found != FORMAT:
            raise CorruptData(f"it has format {found}; this version of dsdbd reads format {FORMAT}")
        return decode_json(data, Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptData(str(error)) from error


class _FormatOnly(msgspec.Struct):
    format: int


def number_of(name: str) -> int | None:
    """The number of a manifest by its file name, ``meta.00`` and so on; None for other files."""
    found = re.fullmatch(r"meta\.([0-9]{2,6})", name)
    return None if found is None else int(found[1])


def describe(state: MetaState, scope: Scope, version: str, now_ns: int) -> Contents:
    """What a backup of ``scope`` holds of the metadata. Raises NotFound, RequestError.

    Users belong to a backup of everything only.
    """
    if scope.retention and not scope.database:
        raise RequestError("a retention policy is backed up with its database: name both")
    databases = [views.database(state, scope.database)] if scope.database else list(state.databases.values())
    policy = views.policy(state, scope.database, scope.retention).name if scope.retention else ""
    shards = [
        ShardEntry(place.shard.id, place.database.name, place.policy.name, place.group.start_ns, place.group.end_ns)
        for place in views.all_shards(state)
        if place.database in databases and policy in ("", place.policy.name) and scope.shard in (0, place.shard.id)
    ]
    if scope.shard:
        if not shards:
            where = f" in database {scope.database}" if scope.database else ""
            raise NotFound(f"shard not found{where}: {scope.shard}")
        databases = [views.database(state, shards[0].database)]
        policy = shards[0].policy
    everything = not (scope.database or scope.shard)
    return Contents(
        state.cluster_id,
        version,
        now_ns,
        [_database(database, policy) for database in databases],
        [_user(user) for user in state.users.values()] if everything else [],
        shards,
    )


def _database(database: Database, only_policy: str) -> DatabaseEntry:
    policies = [
        _policy(policy, default=policy.name == database.default_rp)
        for policy in database.policies.values()
        if only_policy in ("", policy.name)
    ]
    queries = [ContinuousQuery(one.name, one.query, one.last_run_ns) for one in database.continuous_queries.values()]
    return DatabaseEntry(database.name, policies, [] if only_policy else queries)


def _policy(policy: RetentionPolicy, *, default: bool) -> Policy:
    return Policy(
        policy.name,
        policy.duration_ns,
        policy.shard_group_duration_ns,
        policy.replica_n,
        policy.replica_auto,
        default,
        {measurement: dict(types) for measurement, types in policy.schema.items()},
        [Subscription(one.name, one.mode, list(one.destinations)) for one in policy.subscriptions],
    )


def _user(user: User) -> UserEntry:
    return UserEntry(user.name, user.hash, user.admin, dict(user.privileges))


def digest_text(total: int) -> str:
    """A sum of digests as it is written down."""
    return f"{total & _MASK:016x}"


def grid_digests(grids: Mapping[str, Grid]) -> Digests:
    """Digest of each measurement: the sum of its cells, which does not depend on how series and times are divided."""
    totals = {name: int(np.add.reduce(grid.cells, dtype=np.uint64)) for name, grid in grids.items()}
    return {name: digest_text(total) for name, total in totals.items() if total}


def add_digests(parts: Iterable[Mapping[str, str]]) -> Digests:
    """The digests of several shards together; measurements of which nothing is left are not named."""
    total: dict[str, int] = {}
    for part in parts:
        for measurement, text in part.items():
            total[measurement] = (total.get(measurement, 0) + int(text, 16)) & _MASK
    return {measurement: digest_text(value) for measurement, value in total.items() if value}


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Measurements whose digests are not the same, sorted."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def chosen_shards(manifest: Manifest, scope: Scope) -> list[ShardRecord]:
    """The shards of a backup that belong to ``scope``. Raises NotFound."""
    names = [database.name for database in manifest.databases]
    if scope.database and scope.database not in names:
        raise NotFound(f'the backup holds no database "{scope.database}"; it holds {", ".join(names) or "none"}')
    policies = [policy.name for one in manifest.databases if one.name == scope.database for policy in one.policies]
    if scope.retention and scope.retention not in policies:
        raise NotFound(
            f'the backup holds no retention policy "{scope.retention}" of database "{scope.database}"; '
            f"it holds {', '.join(policies) or 'none'}"
        )
    found = [
        shard
        for shard in manifest.shards
        if scope.database in ("", shard.database)
        and scope.retention in ("", shard.policy)
        and scope.shard in (0, shard.id)
    ]
    if scope.shard and not found:
        ids = ", ".join(str(shard.id) for shard in manifest.shards[:20]) or "none"
        raise NotFound(f"the backup holds no shard {scope.shard} there; it holds {ids}")
    return found
