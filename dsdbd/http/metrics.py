"""Prometheus metrics of the daemon; docs/operations.md describes each of them."""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.owners import WriteStats

_BEAT_S = 0.25
_BEATS = 40
REGISTRY = CollectorRegistry()


class RouteSeconds(Collector):
    """Durations by route, counted without a lock: on the event loop only, where the page is made as well.

    The library's histogram takes about as long as a tenth of a one-point write.
    """

    _labelnames = ("route",)
    """As the library's own metrics have it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bounds = Histogram.DEFAULT_BUCKETS[:-1]
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        registry.register(self)

    def observe(self, route: str, took_s: float) -> None:
        """Count one request."""
        counts = self._counts.get(route)
        if counts is None:
            counts = self._counts[route] = [0] * (len(self._bounds) + 1)
            self._sums[route] = 0.0
        counts[bisect_left(self._bounds, took_s)] += 1
        self._sums[route] += took_s

    def describe(self) -> list[HistogramMetricFamily]:
        """The histogram without any route."""
        return [HistogramMetricFamily("dsdb_http_request_seconds", "Duration of HTTP requests", labels=["route"])]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram of every route, for the page."""
        (family,) = self.describe()
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for route, counts in self._counts.items():
            cumulated = list(zip(names, itertools.accumulate(counts), strict=True))
            family.add_metric([route], cumulated, self._sums[route])
        yield family


REQUEST_SECONDS = RouteSeconds(REGISTRY)
LOOP_LAG_SECONDS = Gauge("dsdb_loop_lag_seconds", "Longest recent delay of the HTTP event loop", registry=REGISTRY)
RAFT_TICK_LAG_SECONDS = Gauge(
    "dsdb_raft_tick_lag_seconds", "Longest recent delay of the Raft thread", registry=REGISTRY
)
RAFT_TERM = Gauge("dsdb_raft_term", "Raft term", registry=REGISTRY)
RAFT_COMMIT_INDEX = Gauge("dsdb_raft_commit_index", "Raft commit index", registry=REGISTRY)
RAFT_IS_LEADER = Gauge("dsdb_raft_is_leader", "1 while this node leads the meta nodes", registry=REGISTRY)
RAFT_JOURNAL_BYTES = Gauge("dsdb_raft_journal_bytes", "Size of the Raft journal", registry=REGISTRY)
METADATA_INDEX = Gauge("dsdb_metadata_applied_index", "Raft index of the metadata this node holds", registry=REGISTRY)
META_NODES = Gauge("dsdb_meta_nodes", "Registered meta nodes", registry=REGISTRY)
DATA_NODES = Gauge("dsdb_data_nodes", "Registered data nodes", registry=REGISTRY)
WRITES = Gauge(
    "dsdb_write_requests", "Write requests coordinated by this node, by outcome", ["outcome"], registry=REGISTRY
)
POINTS = Gauge(
    "dsdb_write_points", "Points this node stored for write requests, by place", ["place"], registry=REGISTRY
)
QUERIES = Gauge("dsdb_queries", "Queries of this node, by what became of them", ["name"], registry=REGISTRY)
SERVICES = Gauge(
    "dsdb_services",
    "What the services of this node did since its start, by service",
    ["service", "name"],
    registry=REGISTRY,
)
PEER = Gauge(
    "dsdb_peer", "What this node knows of every other one, by its address", ["peer", "name"], registry=REGISTRY
)
STORE = Gauge("dsdb_store", "Figures of the local storage engine, by name", ["name"], registry=REGISTRY)


def render(node: Node, writes: WriteStats) -> bytes:
    """The metrics page, in the Prometheus text format."""
    state = node.metadata.state
    METADATA_INDEX.set(state.index)
    META_NODES.set(len(state.meta_nodes))
    DATA_NODES.set(len(state.data_nodes))
    if node.raft is not None:
        status = node.raft.status()
        RAFT_TERM.set(status.term)
        RAFT_COMMIT_INDEX.set(status.commit_index)
        RAFT_IS_LEADER.set(status.role == "leader")
        RAFT_JOURNAL_BYTES.set(status.journal_bytes)
        RAFT_TICK_LAG_SECONDS.set(status.tick_lag_max_s)
    for outcome, count in (
        ("ok", writes.write_ok),
        ("partial", writes.write_partial),
        ("error", writes.write_error),
        ("unknown", writes.write_timeout),
    ):
        WRITES.labels(outcome).set(count)
    POINTS.labels("local").set(writes.point_req_local)
    POINTS.labels("remote").set(writes.point_req_remote)
    for name, value in node.queries.stats().items():
        QUERIES.labels(name).set(value)
    for service, counters in node.service_stats.items():
        for name, value in counters.items():
            SERVICES.labels(service, name).set(value)
    PEER.clear()
    for address, figures in ({} if node.detector is None else node.detector.figures()).items():
        for name, figure in figures.items():
            PEER.labels(address, name).set(figure)
    if node.store is not None:
        for name, value in node.store.stats().items():
            if isinstance(value, int | float):
                STORE.labels(name).set(value)
    return generate_latest(REGISTRY)


async def watch_loop_lag() -> None:
    """Measure how late the event loop wakes up; the gauge holds the longest delay of the last 10 to 20 seconds."""
    loop = asyncio.get_running_loop()
    worst_s = before_that_s = 0.0
    for beat in itertools.count():
        before_s = loop.time()
        await asyncio.sleep(_BEAT_S)
        worst_s = max(worst_s, loop.time() - before_s - _BEAT_S)
        LOOP_LAG_SECONDS.set(max(worst_s, before_that_s))
        if beat % _BEATS == 0:
            worst_s, before_that_s = 0.0, worst_s
