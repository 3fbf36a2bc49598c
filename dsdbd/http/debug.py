"""``/debug/vars`` and ``/debug/requests``: figures of the node and who asks for what, in the form of InfluxDB 1.x."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from dsdbd.cluster.reads import Cancellation
from dsdbd.cluster.statements.context import StatementContext
from dsdbd.cluster.statements.server import show_stats
from dsdbd.errors import RequestError
from dsdbd.http.disconnect import cancel_when_gone
from dsdbd.model.times import format_rfc3339nano

if TYPE_CHECKING:
    from dsdbd.cluster.statements.context import NodeParts
    from dsdbd.http.auth import Authenticator
    from dsdbd.http.counters import HttpCounters
    from dsdbd.query import SeriesRows

_CONTENT_TYPE = {"Content-Type": "application/json; charset=utf-8"}
_DEFAULT_S = 10
_LONGEST_S = 6 * 3600
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class DebugPages:
    """Pages for programs that watch the daemon; for administrators, because they name databases and clients."""

    def __init__(self, parts: NodeParts, auth: Authenticator, counters: HttpCounters) -> None:
        self._parts = parts
        self._auth = auth
        self._counters = counters

    def routes(self) -> list[web.RouteDef]:
        """Their routes."""
        return [web.get("/debug/vars", self._vars), web.get("/debug/requests", self._requests)]

    async def _vars(self, request: web.Request) -> web.StreamResponse:
        """Every counter of SHOW STATS, with what the process takes."""
        self._auth.authorize_admin(await self._auth.user_of(request, {}))
        node = self._parts.node
        now_ns = node.clock.now_ns()
        context = StatementContext(*self._parts, "", "", now_ns, Cancellation(), None)
        memory = _memory()
        page: dict[str, Any] = {
            "system": {
                "currentTime": format_rfc3339nano(now_ns),
                "started": format_rfc3339nano(node.started_ns),
                "uptime": (now_ns - node.started_ns) // 10**9,
            },
            "cmdline": sys.argv,
            "memstats": memory,
            "runtime": {
                "name": "runtime",
                "tags": {},
                "values": {**memory, "NumGoroutine": threading.active_count() + len(asyncio.all_tasks())},
            },
        }
        for table in show_stats(context, None):
            tags = dict(table.tags or {})
            if table.name == "httpd":
                tags["bind"] = request.host
            page[":".join((table.name, *tags.values()))] = {
                "name": table.name,
                "tags": tags or None,
                "values": _values(table),
            }
        return web.Response(body=msgspec.json.encode(page) + b"\n", headers=_CONTENT_TYPE)

    async def _requests(self, request: web.Request) -> web.StreamResponse:
        """Writes and queries by user and address, counted for some seconds from now."""
        self._auth.authorize_admin(await self._auth.user_of(request, {}))
        wait_s = _seconds(request.query.get("seconds", ""))
        cancelled = Cancellation()
        with self._counters.profile() as profile, cancel_when_gone(request, cancelled):
            await cancelled.guard(asyncio.ensure_future(asyncio.sleep(wait_s)))
        lines = [f"{_text(sender)}: {_text(profile[sender])}" for sender in sorted(profile)]
        body = "{\n" + ",\n".join(lines) + "\n}\n"
        return web.Response(text=body, headers={**_CONTENT_TYPE, "Connection": "close"})


def _seconds(text: str) -> int:
    """How long requests are counted. Raises RequestError in the words of InfluxDB 1.x."""
    if not text:
        return _DEFAULT_S
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 18):
        raise RequestError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if int(text) > _LONGEST_S:
        raise RequestError(f"exceeded maximum interval time: {int(text)}s > 6h")
    return max(int(text), 0)


def _memory() -> dict[str, int]:
    """Memory of the process in the names of Go's memstats, as far as they mean something here."""
    sizes = Path("/proc/self/statm").read_text().split()
    resident = int(sizes[1]) * _PAGE_BYTES
    collections = sum(generation["collections"] for generation in gc.get_stats())
    return {"Alloc": resident, "HeapAlloc": resident, "NumGC": collections, "Sys": int(sizes[0]) * _PAGE_BYTES}


def _values(table: SeriesRows) -> dict[str, Any]:
    """The only row of a table of SHOW STATS."""
    return {name: column.to_arrow()[0].as_py() for name, column in zip(table.columns, table.data, strict=True)}


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
