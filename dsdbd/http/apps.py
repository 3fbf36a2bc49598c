"""Which services an address offers, as one aiohttp application per address."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from aiohttp import web

from dsdbd.cluster.freshness import Freshness
from dsdbd.cluster.statements import NodeParts
from dsdbd.http.auth import Authenticator
from dsdbd.http.backup import BackupRoutes
from dsdbd.http.cluster_admin import ClusterAdmin
from dsdbd.http.debug import DebugPages
from dsdbd.http.front import Front
from dsdbd.http.internal import InternalApi
from dsdbd.http.middleware import access_log, answer_errors, refuse_plain
from dsdbd.http.public import PublicPages
from dsdbd.http.query import QueryHandler
from dsdbd.http.responses import REALM, add_common_headers, header_text
from dsdbd.http.small_queries import SmallQueries
from dsdbd.http.small_writes import SmallWrites
from dsdbd.http.write import WriteHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dsdbd.cluster.membership import Membership
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.cluster.writes import WritePath


class Service(enum.Enum):
    """A set of routes that can be configured for an address."""

    PUBLIC = "public"
    META = "meta"
    NODE = "node"


class Applications:
    """Builds the application of each address from the parts of the node."""

    def __init__(self, node: Node, membership: Membership, writes: WritePath, reads: ReadPath) -> None:
        self._node = node
        self._auth = Authenticator(node)
        freshness = Freshness(node)
        self._internal = InternalApi(node, membership, writes, reads)
        self._public = PublicPages(node, writes, self._auth)
        self._cluster_admin = ClusterAdmin(node, membership, self._auth)
        self._backup = BackupRoutes(node, writes, self._auth)
        self._write = WriteHandler(node, writes, self._auth, freshness)
        self._small = SmallWrites(node, writes, self._write)
        self._small_queries = SmallQueries(node, reads, self._auth, freshness)
        node.service_stats["httpd"] = self._write.counters.values
        parts = NodeParts(node, reads, writes, membership)
        self._debug = DebugPages(parts, self._auth, self._write.counters)
        self._query = QueryHandler(parts, self._auth, freshness)

    def front(self, server: Callable[[], Any]) -> Front:
        """What answers ordinary writes on a public address before ``server``, which answers all else."""
        http = self._node.config.http
        return Front(
            server,
            self._write,
            self._small,
            self._small_queries,
            limit_bytes=http.max_body_size_bytes,
            log_enabled=http.log_enabled,
        )

    def build(self, services: Iterable[Service], *, tls: bool) -> web.Application:
        """One application with the routes of ``services``; where two have a path, the public API's counts.

        With ``tls`` clients must use it; requests between nodes are signed and come without.
        """
        wanted = set(services)
        config = self._node.config
        limit_bytes = config.http.max_body_size_bytes
        http = config.http
        log: Any = access_log(self._write.counters, enabled=http.log_enabled, tracing=config.meta.cluster_tracing)
        guard: list[Any] = [refuse_plain] if tls else []
        app = web.Application(middlewares=[log, answer_errors, *guard], client_max_size=limit_bytes)
        app[REALM] = header_text(config.http.realm.replace('"', "'"))
        app.on_response_prepare.append(add_common_headers)
        routes: list[web.RouteDef] = []
        if Service.PUBLIC in wanted:
            routes += self._public.routes()
            routes += self._cluster_admin.routes()
            routes += [
                web.post("/write", self._write),
                web.post("/api/v2/write", self._write.v2),
                *self._debug.routes(),
                *self._backup.routes(),
                web.get("/query", self._query, allow_head=False),
                web.post("/query", self._query),
            ]
        if Service.META in wanted:
            routes += self._internal.meta_routes()
            routes += [web.get("/ping", self._internal.leader_page), web.get("/", self._internal.metadata_page)]
        if Service.NODE in wanted:
            routes += [*self._internal.node_routes(), web.get("/", self._internal.metadata_page)]
        known: set[tuple[str, str]] = set()
        for route in routes:
            if (route.method, route.path) not in known:
                known.add((route.method, route.path))
                route.register(app.router)
        return app
