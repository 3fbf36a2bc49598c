"""What nodes say to each other about membership: typed bodies of the node-to-node API, in JSON."""

from __future__ import annotations

import msgspec

PROTOCOL = 1
"""Version of the node-to-node API; a node refuses to join through a member that speaks another one."""


class Member(msgspec.Struct, frozen=True):
    """One registered node as others address it."""

    id: int
    uuid: str
    http_addr: str
    tcp_addr: str


class HelloAnswer(msgspec.Struct, frozen=True):
    """Answer of ``GET /cluster/hello``; ``removed`` tells the asking node that it was dropped, and why."""

    protocol: int
    uuid: str
    version: str
    meta_addr: str
    tcp_addr: str
    cluster_id: str
    join: tuple[str, ...]
    heard: tuple[str, ...]
    can_found: bool
    ready: bool
    waiting: str
    applied_index: int
    leader: str
    meta_nodes: tuple[Member, ...]
    removed: str = ""


class JoinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /cluster/prepare`` and ``POST /join``.

    ``meta_http_addr`` is empty for a node without the meta role, ``data_http_addr`` for one without the data role.
    """

    protocol: int
    uuid: str
    version: str
    tcp_addr: str
    meta_http_addr: str
    data_http_addr: str


class PrepareAnswer(msgspec.Struct, frozen=True):
    """The cluster a node may join, and its present voters (Raft addresses)."""

    cluster_id: str
    voters: tuple[str, ...]


class JoinAnswer(msgspec.Struct, frozen=True):
    """The ids a node was given; None for a role it does not have."""

    cluster_id: str
    meta_id: int | None
    data_id: int | None


class LeaveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /leave``: drop registration ``id``; ``role`` is ``meta``, ``data`` or empty for either."""

    id: int
    role: str = ""
    force: bool = False


class LeaveAnswer(msgspec.Struct, frozen=True):
    """Answer of ``POST /leave``: metadata of this index does not hold the registration any more."""

    index: int


class StatusAnswer(msgspec.Struct, frozen=True):
    """What a node says of itself in ``GET /cluster/state``; the parts of ``/cluster/status`` that only it knows."""

    uuid: str
    version: str
    applied_index: int
    commit_index: int
    term: int
    leader: str
    problems: tuple[str, ...]
    kept_bytes: int = 0
    """Writes it keeps for other owners."""
    copied_bytes: int = 0
    """What has come so far of the copies of shards it is taking."""
    silent: tuple[str, ...] = ()
    """Addresses of the nodes that do not answer it."""


class PulseAnswer(msgspec.Struct, frozen=True):
    """Answer of ``GET /cluster/pulse``: who answers, the time of its clock, and whether its storage is open.

    ``settled``: its copies of shards were equal to those of all other owners when they were last compared.
    ``clear_index``: of the metadata by which it held nothing of shards of others (FormerShards.clear_index).
    ``kept_for_s``: how old writes may be that it keeps for others and delivers (lateness.kept_for_s).
    ``version``: the newest version of a write or deletion that it has given or seen. ``started_ns``: when its process
    began, by its clock.
    """

    uuid: str
    now_ns: int
    serves: bool
    settled: bool = True
    clear_index: int = -1
    kept_for_s: float = -1.0
    version: int = 0
    started_ns: int = 0


def encode(message: msgspec.Struct) -> bytes:
    """JSON bytes of a message."""
    return msgspec.json.encode(message)
