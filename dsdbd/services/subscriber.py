"""Sends copies of accepted writes to the destinations of subscriptions: at most once, and no write waits for it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import structlog

from dsdbd import limits
from dsdbd.logs import redact
from dsdbd.meta.state import SubscriptionMode
from dsdbd.services.lanes import AcceptedWrite, Lane, datagrams, request_bodies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dsdbd.cluster.node import Node
    from dsdbd.config.schema import SubscriberConfig
    from dsdbd.meta.state import Database, MetaState, Subscription
    from dsdbd.model.columns import Points

log = structlog.get_logger("subscriber")
_THREADS = 2
_BODY_BYTES = 1 << 20
"""Points of small writes that one request takes together, by their size in memory."""
_DATAGRAM_BYTES = 1_400
"""Lines of one datagram, so that it fits into a frame of the network."""
_DRAIN_S = 2.0
"""How long a daemon that stops goes on sending."""


class _Place(NamedTuple):
    """Where a subscription is."""

    database: str
    policy: str
    subscription: Subscription


class _Destination:
    """One URL of a subscription, with its counters."""

    def __init__(self, place: _Place, url: str) -> None:
        self.place = place
        self.url = url
        self.counters = {"pointsWritten": 0, "writeFailures": 0}
        self.failing = False

    @property
    def tags(self) -> dict[str, str]:
        """What SHOW STATS calls it."""
        database, policy, subscription = self.place
        return {
            "database": database,
            "destination": self.url,
            "mode": subscription.mode.value,
            "name": subscription.name,
            "retention_policy": policy,
        }


class _Route:
    """A queue with its destinations: the only one, or those of an ANY subscription, which take turns."""

    def __init__(self, destinations: Sequence[_Destination], lane: Lane) -> None:
        self.destinations = destinations
        self.lane = lane
        self.under_way: set[asyncio.Task[None]] = set()
        self._next = 0

    def turn(self) -> Iterator[_Destination]:
        """Every destination once, beginning with the one whose turn it is."""
        first, self._next = self._next, (self._next + 1) % len(self.destinations)
        yield from (*self.destinations[first:], *self.destinations[:first])


class Subscriber:
    """``[subscriber]``. Made on the event loop of the node, whose write path tells it what was stored.

    ``ALL``: a queue for each destination. ``ANY``: one queue, and the next destination where one does not take a
    request. What could not be sent is counted and dropped, as in InfluxDB 1.x.
    """

    name = "subscriber"

    def __init__(self, node: Node) -> None:
        self._settings = node.config.subscriber
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dsdb-subscriber")
        self._session: aiohttp.ClientSession | None = None
        self._databases: dict[str, Database] = {}
        self._routes: dict[_Place, list[_Route]] = {}
        self._by_policy: dict[tuple[str, str], list[_Route]] = {}
        self.counters = dict.fromkeys(("pointsDropped", "pointsWritten", "writeFailures", "writesDropped"), 0)
        node.service_stats[self.name] = self.counters
        node.forward = self.forward
        node.destination_stats = self.destination_stats
        node.metadata.on_change(self._follow)
        self._follow(node.metadata.state)

    def forward(self, database: str, policy: str, points: Sequence[Points]) -> None:
        """Take note of points that were stored; any thread may call it, and it never waits."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._offer, database, policy, points)

    def destination_stats(self) -> list[tuple[dict[str, str], dict[str, int]]]:
        """Tags and counters of each destination."""
        routes = [route for found in self._routes.values() for route in found]
        return [(one.tags, dict(one.counters)) for route in routes for one in route.destinations]

    async def stop(self) -> None:
        """Send what waits, for a moment, and end."""
        routes = [route for found in self._routes.values() for route in found]
        deadline_s = self._loop.time() + _DRAIN_S
        while (tasks := {task for route in routes for task in route.under_way}) and self._loop.time() < deadline_s:
            await asyncio.wait(tasks, timeout=deadline_s - self._loop.time(), return_when=asyncio.FIRST_COMPLETED)
        self._routes, self._by_policy = {}, {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _follow(self, state: MetaState) -> None:
        """Begin new subscriptions, end those that were dropped; the queues of the others stay."""
        if state.databases is self._databases:
            return
        self._databases = state.databases
        wanted = [
            _Place(database.name, policy.name, subscription)
            for database in state.databases.values()
            for policy in database.policies.values()
            for subscription in policy.subscriptions
        ]
        if list(self._routes) == wanted:
            return
        self._routes = {place: self._routes.get(place) or self._begin(place) for place in wanted}
        self._by_policy = {}
        for place, routes in self._routes.items():
            self._by_policy.setdefault((place.database, place.policy), []).extend(routes)

    def _begin(self, place: _Place) -> list[_Route]:
        destinations = [_Destination(place, url) for url in place.subscription.destinations]
        log.info("subscription begins", database=place.database, policy=place.policy, name=place.subscription.name)
        if place.subscription.mode is SubscriptionMode.ALL:
            return [_Route([one], self._lane()) for one in destinations]
        return [_Route(destinations, self._lane())]

    def _lane(self) -> Lane:
        return Lane(self._settings.write_buffer_size, limits.MAX_SUBSCRIPTION_BYTES_HELD)

    def _offer(self, database: str, policy: str, points: Sequence[Points]) -> None:
        write = AcceptedWrite(points)
        for route in self._by_policy.get((database, policy), ()):
            dropped = route.lane.push(write)
            self.counters["writesDropped"] += dropped.writes
            self.counters["pointsDropped"] += dropped.points
            self._pump(route)

    def _pump(self, route: _Route) -> None:
        """Begin as many requests as there may be for what waits."""
        while len(route.under_way) < self._settings.write_concurrency:
            taken = route.lane.take(_BODY_BYTES)
            if not taken:
                return
            task = self._loop.create_task(self._deliver(route, taken))
            route.under_way.add(task)
            task.add_done_callback(partial(self._delivered, route))

    def _delivered(self, route: _Route, task: asyncio.Task[None]) -> None:
        route.under_way.discard(task)
        if not task.cancelled():
            self._pump(route)

    async def _deliver(self, route: _Route, taken: list[AcceptedWrite]) -> None:
        """Send some writes to the first destination that takes them."""
        rows = sum(write.rows for write in taken)
        try:
            for destination in route.turn():
                reason = await self._send(destination, taken)
                if reason is None:
                    destination.counters["pointsWritten"] += rows
                    self.counters["pointsWritten"] += rows
                    self._tell(destination, None)
                    return
                destination.counters["writeFailures"] += 1
                self._tell(destination, reason)
            self.counters["writeFailures"] += 1
        finally:
            route.lane.done(taken)

    def _tell(self, destination: _Destination, reason: str | None) -> None:
        """Log the first failure of a destination, and that it works again."""
        if destination.failing == (reason is not None):
            return
        destination.failing = reason is not None
        told = {**destination.tags, "destination": redact(destination.url)}
        if reason is None:
            log.info("destination takes points again", **told)
        else:
            log.warning("destination does not take points", **told, reason=redact(reason))

    async def _send(self, destination: _Destination, taken: list[AcceptedWrite]) -> str | None:
        """None when the points were sent, else why not."""
        try:
            if urlsplit(destination.url).scheme == "udp":
                await self._loop.run_in_executor(self._threads, _send_datagrams, destination.url, taken)
                return None
            body = await self._loop.run_in_executor(self._threads, request_bodies, taken)
            return await self._post(destination, body)
        except TimeoutError:
            return f"no answer within {self._settings.http_timeout_s:g}s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return str(error) or type(error).__name__

    async def _post(self, destination: _Destination, body: bytes) -> str | None:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._settings.http_timeout_s)
            # Reading the authorities takes a tenth of a second.
            tls = await asyncio.to_thread(_tls, self._settings)
            if self._session is None:
                connector = aiohttp.TCPConnector(limit=0, ssl=tls)
                self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        place = destination.place
        params = {"db": place.database, "rp": place.policy, "precision": "ns"}
        url = destination.url.rstrip("/") + "/write"
        async with self._session.post(url, params=params, data=body, allow_redirects=False) as response:
            if response.status in (200, 204):
                return None
            text = await response.content.read(200)
            return f"status {response.status}: {text.decode(errors='replace').strip()}"


def _send_datagrams(url: str, taken: list[AcceptedWrite]) -> None:
    """Raises OSError for a name that does not resolve or a line too long for a datagram."""
    parts = urlsplit(url)
    family, kind, protocol, _, address = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sock:
        for datagram in datagrams(taken, _DATAGRAM_BYTES):
            sock.sendto(datagram, address)


def _tls(settings: SubscriberConfig) -> ssl.SSLContext | bool:
    """What is asked of an https destination's certificate. Raises OSError for a file that cannot be used."""
    if settings.insecure_skip_verify:
        return False
    return ssl.create_default_context(cafile=None if settings.ca_certs is None else str(settings.ca_certs))
