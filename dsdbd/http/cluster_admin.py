"""Public pages for operators who move shards: which nodes there are, what would move, moving, how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from dsdbd.cluster.moving import Moving, Order
from dsdbd.decoding import decode_json
from dsdbd.errors import RequestError
from dsdbd.http.body import read_body
from dsdbd.http.responses import json_response

if TYPE_CHECKING:
    from dsdbd.cluster.membership import Membership
    from dsdbd.cluster.node import Node
    from dsdbd.http.auth import Authenticator

_MAX_BODY_BYTES = 4096


class ClusterAdmin:
    """Pages that need the admin privilege while authentication is on."""

    def __init__(self, node: Node, membership: Membership, auth: Authenticator) -> None:
        self._moving = Moving(node, membership)
        self._auth = auth

    def routes(self) -> list[web.RouteDef]:
        """Their routes."""
        return [
            web.get("/cluster/nodes", self._nodes),
            web.get("/cluster/moves", self._moves),
            web.post("/cluster/plan", self._plan),
            web.post("/cluster/apply", self._apply),
        ]

    async def _nodes(self, request: web.Request) -> web.StreamResponse:
        await self._authorize(request)
        return json_response({"nodes": await self._moving.nodes()})

    async def _moves(self, request: web.Request) -> web.StreamResponse:
        await self._authorize(request)
        return json_response({"moves": await self._moving.moves()})

    async def _plan(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._moving.plan(await self._order(request)))

    async def _apply(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._moving.apply(await self._order(request)))

    async def _authorize(self, request: web.Request) -> None:
        self._auth.authorize_admin(await self._auth.user_of(request, {}))

    async def _order(self, request: web.Request) -> Order:
        await self._authorize(request)
        body = await read_body(request, _MAX_BODY_BYTES)
        try:
            return decode_json(body, Order)
        except msgspec.MsgspecError as error:
            raise RequestError(f'the order cannot be read: {error}; send {{"op": "drain", "node": 4}}') from error
