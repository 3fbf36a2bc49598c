"""The parts of a running node, as the edges and the cluster floor see them; ``dsdbd.main`` fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dsdbd.cluster.running import RunningQueries
from dsdbd.meta.identity import Phase

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from dsdbd.clock import Clock
    from dsdbd.cluster.detector import FailureDetector
    from dsdbd.cluster.formation import Addresses, Progress
    from dsdbd.cluster.handoff import Handoff
    from dsdbd.cluster.peers import PeerClient
    from dsdbd.cluster.repair import Repair
    from dsdbd.cluster.transfer import Transfer
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.config import Config
    from dsdbd.errors import DSDBError
    from dsdbd.meta.identity import Identity
    from dsdbd.meta.raft import RaftNode
    from dsdbd.meta.store import Metadata
    from dsdbd.model.columns import Points
    from dsdbd.storage import Store

    Forward = Callable[[str, str, Sequence[Points]], None]


@dataclass
class Node:
    """One daemon. ``identity`` is None until the node has founded or chosen a cluster; ``store`` without data role.

    ``fatal`` resolves with the error that ends the daemon, or with None when it is asked to stop.
    """

    config: Config
    clock: Clock
    uuid: str
    addresses: Addresses
    secret: bytes
    join: tuple[str, ...]
    peers: PeerClient
    metadata: Metadata
    progress: Progress
    started_ns: int
    fatal: asyncio.Future[DSDBError | None]
    identity: Identity | None = None
    raft: RaftNode | None = None
    store: Store | None = None
    handoff: Handoff | None = None
    """Writes kept for owners that missed them; None before the start has come so far, or where none are to be kept."""
    detector: FailureDetector | None = None
    """Tells which other nodes answer; None before the start has come so far."""
    repair: Repair | None = None
    """Compares this node's shards with those of other owners; None without the data role or before the start."""
    transfer: Transfer | None = None
    """Takes the copies of shards that the metadata orders; None without the data role or before the start."""
    versions: VersionClock | None = None
    """Gives the versions of writes; None before the start has come so far."""
    opening: str = ""
    """How far the storage is on its way to ``store``; empty before the first word of it."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Peer address to the latest reason why it and this node do not talk; shown by /health."""
    queries: RunningQueries = field(default_factory=RunningQueries)
    service_stats: dict[str, dict[str, int]] = field(default_factory=dict)
    """Counters of the node's services since its start, by service; shown by SHOW STATS and /metrics."""
    forward: Forward | None = None
    """Is told, from any thread, database, policy and points that were stored where the policy has subscriptions."""
    destination_stats: Callable[[], list[tuple[dict[str, str], dict[str, int]]]] = list
    """Tags and counters of each destination of a subscription, for SHOW STATS."""

    @property
    def cluster_id(self) -> str:
        """The cluster this node belongs to or is joining; empty before that."""
        return "" if self.identity is None else self.identity.cluster_id

    @property
    def is_member(self) -> bool:
        """Whether the node has its final identity."""
        return self.identity is not None and self.identity.phase is Phase.MEMBER

    @property
    def data_id(self) -> int | None:
        """The node's number as an owner of shards; None without the data role."""
        return None if self.identity is None else self.identity.data_id

    @property
    def storage_wait(self) -> str:
        """Why this node cannot store points yet; empty when it can or has no data role."""
        if self.store is not None or not self.config.data.enabled:
            return ""
        return "the storage is still opening" + (f": {self.opening}" if self.opening else "")

    def away(self) -> tuple[int, ...]:
        """Data nodes that do not answer now, as far as this node knows: new shard groups avoid them."""
        return () if self.detector is None else tuple(sorted(self.detector.down()))

    def fail(self, error: DSDBError) -> None:
        """End the daemon with this error; the first one counts. Call it on the event loop."""
        if not self.fatal.done():
            self.fatal.set_result(error)
