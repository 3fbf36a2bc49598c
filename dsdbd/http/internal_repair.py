"""Signed routes of repair: digests of this node's copies of shards, rows of them, and the order to complete them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from dsdbd.cluster.repair_messages import (
    COMPLETE_PATH,
    DIGESTS_PATH,
    EXPORT_PATH,
    LATELY_PATH,
    PROGRESS_PATH,
    SUMMARIES_PATH,
)
from dsdbd.cluster.statements.repairs import own_repairs
from dsdbd.errors import Unavailable
from dsdbd.http.kept_alive import answer_of
from dsdbd.http.signed import in_pieces

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.repair import Repair
    from dsdbd.http.signed import Signed


class RepairRoutes:
    """The routes of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, signed: Signed) -> list[web.RouteDef]:
        """Their routes; ``signed`` puts the check of secret and cluster in front of a handler."""
        return [
            web.post(SUMMARIES_PATH, signed(self._summaries)),
            web.post(DIGESTS_PATH, signed(self._digests)),
            web.post(EXPORT_PATH, signed(self._export)),
            web.post(COMPLETE_PATH, signed(self._complete)),
            web.post(LATELY_PATH, signed(self._lately)),
            web.get(PROGRESS_PATH, signed(self._progress)),
        ]

    def _repair(self) -> Repair:
        if self._node.repair is None:
            raise Unavailable(self._node.storage_wait or "this node does not compare shards yet")
        return self._node.repair

    async def _summaries(self, request: web.Request, body: bytes) -> web.StreamResponse:
        return await answer_of(request, self._repair().source.summaries(body))

    async def _digests(self, request: web.Request, body: bytes) -> web.StreamResponse:
        return await answer_of(request, self._repair().source.digests(body))

    async def _export(self, request: web.Request, body: bytes) -> web.StreamResponse:
        async with contextlib.aclosing(self._repair().source.export(body)) as frames:
            return await in_pieces(request, web.StreamResponse(), frames)

    async def _complete(self, request: web.Request, body: bytes) -> web.StreamResponse:
        return await answer_of(request, self._repair().completion.answer(body))

    async def _lately(self, _request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(body=await self._repair().gone.lately(body))

    async def _progress(self, _request: web.Request, _: bytes) -> web.StreamResponse:
        return web.Response(body=own_repairs(self._node))
