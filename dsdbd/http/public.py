"""The small pages of the public API: ping, health, ready, metrics, cluster status."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from aiohttp import web

from dsdbd.cluster.checks import FAIL, PASS, WARN, own_checks, why_not_ready
from dsdbd.cluster.health import cluster_status
from dsdbd.errors import RequestError
from dsdbd.http.metrics import render
from dsdbd.http.responses import json_response, no_content
from dsdbd.http.v2 import FLUX_REFUSAL
from dsdbd.version import VERSION

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.writes import WritePath
    from dsdbd.http.auth import Authenticator

_WAIT = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_LONGEST_WAIT_S = 3600.0
_LOOK_S = 0.02


class PublicPages:
    """Pages that need no statement."""

    def __init__(self, node: Node, writes: WritePath, auth: Authenticator) -> None:
        self._node = node
        self._writes = writes
        self._auth = auth

    def routes(self) -> list[web.RouteDef]:
        """Their routes."""
        return [
            web.get("/ping", self._ping),
            web.get("/status", self._status),
            web.get("/health", self._health),
            web.get("/ready", self._ready),
            web.get("/metrics", self._metrics),
            web.get("/cluster/status", self._cluster),
            web.post("/api/v2/query", self._flux),
            web.options("/query", self._preflight),
            web.options("/write", self._preflight),
        ]

    async def _preflight(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    async def _flux(self, _: web.Request) -> web.StreamResponse:
        """Flux is another language, which DSDB does not know."""
        return web.Response(status=403, text=FLUX_REFUSAL, headers={"X-Content-Type-Options": "nosniff"})

    async def _status(self, request: web.Request) -> web.StreamResponse:
        """What old clients ask instead of /ping."""
        return no_content(request)

    async def _ping(self, request: web.Request) -> web.StreamResponse:
        """204 while the process lives; with ``wait_for_leader`` when a leader is known, 503 after the time given."""
        wait = request.query.get("wait_for_leader")
        if wait is not None and not await self._leader_within(_seconds(wait)):
            return web.Response(status=503)
        if request.query.get("verbose", "0") not in ("", "0", "false"):
            return json_response({"version": VERSION})
        return no_content(request)

    async def _leader_within(self, wait_s: float) -> bool:
        deadline_s = asyncio.get_running_loop().time() + wait_s
        while not (self._node.is_member and self._node.metadata.leader()):
            if asyncio.get_running_loop().time() >= deadline_s:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    async def _health(self, _: web.Request) -> web.StreamResponse:
        """The node's own health as JSON: 200 for pass and warn, 503 for fail."""
        checks = own_checks(self._node)
        status = FAIL if any(check.status == FAIL for check in checks) else WARN if checks else PASS
        page = {
            "name": "dsdb",
            "message": checks[0].message if checks else "ready for queries and writes",
            "checks": [check._asdict() for check in checks],
            "status": status,
            "version": VERSION,
        }
        return json_response(page, status=503 if status == FAIL else 200)

    async def _ready(self, request: web.Request) -> web.StreamResponse:
        """Whether a load balancer shall send requests here; ``for=query`` needs no leader."""
        wanted = request.query.get("for", "write")
        if wanted not in ("write", "query"):
            raise RequestError('for must be "write" or "query"')
        reason = why_not_ready(self._node, wanted)
        page = {"status": "not ready" if reason else "ready", "message": reason}
        return json_response(page, status=503 if reason else 200)

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(
            body=render(self._node, self._writes.stats), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    async def _cluster(self, request: web.Request) -> web.StreamResponse:
        self._auth.authorize_admin(await self._auth.user_of(request, {}))
        return json_response(await cluster_status(self._node))


def _seconds(text: str) -> float:
    """A wait such as ``1s``, ``500ms`` or a bare number of seconds; raises RequestError."""
    found = _WAIT.fullmatch(text)
    if found is None:
        raise RequestError(f'wait_for_leader: "{text}" is no duration; write it as 1s or 500ms')
    return min(float(found[1]) * _UNIT_S[found[2]], _LONGEST_WAIT_S)
