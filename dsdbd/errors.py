"""The error tree of DSDB; each class knows its HTTP status, its stable code and, where it ends the daemon, its exit.

::

    DSDBError                     500 internal
    ├── RequestError              400 invalid_request       the caller must change the request
    │   ├── QueryParseError       400 parse_error
    │   ├── UnparsablePoints      400 unparsable_points     no line of the body could be read
    │   ├── PartialWrite          400 partial_write         the good points are stored, the bad ones are named
    │   ├── FieldTypeConflict     400 field_type_conflict
    │   ├── NotFound              404 not_found             database, policy, shard, node …
    │   ├── BodyTooLarge          413 body_too_large
    │   ├── Unauthenticated       401 unauthenticated
    │   └── Forbidden             403 forbidden
    ├── MetaRefused               400 meta_refused          the metadata state machine refused a command
    ├── MembershipRefused         409 membership_refused    join, leave or drop of a node was refused
    │   ├── ForeignCluster        409 foreign_cluster
    │   ├── SecretRefused         403 secret_refused
    │   └── NodeRemoved           410 node_removed
    ├── Unavailable               503 unavailable           nothing was stored; retrying is safe
    │   ├── NoLeader              503 no_leader
    │   ├── ShardUnavailable      503 shard_unavailable
    │   │   ├── NotOwner          503 not_owner
    │   │   └── VersionBehind     503 version_behind
    │   ├── DiskFull              503 disk_full
    │   └── Overloaded            503 overloaded
    ├── OutcomeUnknown            504 outcome_unknown       may be stored; repeating is harmless
    ├── CorruptData               500 corrupt_data
    └── StartError                —   exit_code             the daemon cannot start; one sentence, no traceback
        ├── ConfigError               exit 2
        ├── UsageError                exit 2                the command line cannot be understood
        ├── StorageFull               exit 10
        ├── StorageCorrupt            exit 11
        ├── IdentityError             exit 12               foreign cluster, cloned or wiped identity
        ├── RemovedError              exit 13               this node was removed; do not restart
        ├── AddressError              exit 14               port in use, name that does not resolve
        └── SecretError               exit 15               the cluster secret is missing or differs

A message says what happened, to which object, why, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class DSDBError(Exception):
    """Root of every error DSDB raises on purpose."""

    http_status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    @property
    def message(self) -> str:
        """The sentence shown to the user."""
        return str(self.args[0]) if self.args else self.code


class RequestError(DSDBError):
    """The caller must change the request before it can succeed."""

    http_status = 400
    code = "invalid_request"


class QueryParseError(RequestError):
    """A statement is not InfluxQL; the message carries line and character."""

    code = "parse_error"


class UnparsablePoints(RequestError):
    """No line of a write body could be read."""

    code = "unparsable_points"


class PartialWrite(RequestError):
    """Some points were stored; the message names the ones that were not, and why."""

    code = "partial_write"


class FieldTypeConflict(RequestError):
    """A field was sent with another type than the one fixed in the metadata."""

    code = "field_type_conflict"


class NotFound(RequestError):
    """A named object does not exist."""

    http_status = 404
    code = "not_found"


class BodyTooLarge(RequestError):
    """A request body is over its limit."""

    http_status = 413
    code = "body_too_large"


class Unauthenticated(RequestError):
    """Credentials are missing or wrong."""

    http_status = 401
    code = "unauthenticated"


class Forbidden(RequestError):
    """The user exists and lacks the privilege."""

    http_status = 403
    code = "forbidden"


class MetaRefused(DSDBError):
    """The metadata state machine refused a command; the state is unchanged."""

    http_status = 400
    code = "meta_refused"


class MembershipRefused(DSDBError):
    """A change of the cluster's members was refused; the members are unchanged."""

    http_status = 409
    code = "membership_refused"


class ForeignCluster(MembershipRefused):
    """A request carries another cluster's id."""

    code = "foreign_cluster"


class SecretRefused(MembershipRefused):
    """A node-to-node request is not signed with the cluster secret."""

    http_status = 403
    code = "secret_refused"


class NodeRemoved(MembershipRefused):
    """The requesting node was removed from the cluster and is tombstoned."""

    http_status = 410
    code = "node_removed"


class Unavailable(DSDBError):
    """Nothing was stored; the same request may succeed later."""

    http_status = 503
    code = "unavailable"
    retry_after_s: ClassVar[int] = 1


class NoLeader(Unavailable):
    """The meta nodes have no leader, so metadata cannot change."""

    code = "no_leader"


class ShardUnavailable(Unavailable):
    """No owner of a shard answers."""

    code = "shard_unavailable"


class NotOwner(ShardUnavailable):
    """The node is no owner of the shard (any more); who sent it there has older metadata."""

    code = "not_owner"


class VersionBehind(ShardUnavailable):
    """The version of a new batch is far below what the owner has seen; who sent it takes a newer one."""

    code = "version_behind"

    def __init__(self, message: str, seen: int = 0) -> None:
        """``seen``: the newest version the owner has seen."""
        super().__init__(message)
        self.seen = seen


class DiskFull(Unavailable):
    """The disk is full; writes resume by themselves when space returns."""

    code = "disk_full"
    retry_after_s = 5


class Overloaded(Unavailable):
    """A bounded queue or cache is full."""

    code = "overloaded"


class OutcomeUnknown(DSDBError):
    """The change may or may not have happened; repeating it is harmless."""

    http_status = 504
    code = "outcome_unknown"


class CorruptData(DSDBError):
    """Stored bytes fail their check; the message names file and offset."""

    code = "corrupt_data"


class StartError(DSDBError):
    """The daemon cannot start, or must stop; printed as one sentence."""

    exit_code: ClassVar[int] = 1
    code = "start"


class ConfigError(StartError):
    """The configuration has problems; the message lists all of them, one a line."""

    exit_code = 2
    code = "config"


class UsageError(StartError):
    """The command line cannot be understood."""

    exit_code = 2
    code = "usage"


class StorageFull(StartError):
    """A directory has no space for what a start must write."""

    exit_code = 10
    code = "storage_full"


class StorageCorrupt(StartError):
    """Metadata on disk fails its check and cannot be set aside safely."""

    exit_code = 11
    code = "storage_corrupt"


class IdentityError(StartError):
    """The node's stored identity contradicts the cluster it meets."""

    exit_code = 12
    code = "identity"


class RemovedError(StartError):
    """The cluster removed this node."""

    exit_code = 13
    code = "removed"


class AddressError(StartError):
    """An address cannot be bound or resolved."""

    exit_code = 14
    code = "address"


class SecretError(StartError):
    """The cluster secret is missing, unreadable or not the cluster's."""

    exit_code = 15
    code = "secret"
