"""Signed routes about shards that move: list and read their files, ask for sizes and progress, take over the rest."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from dsdbd.cluster.absorb import ABSORB_PATH, Absorber
from dsdbd.cluster.segment_messages import (
    DIGEST_BYTES,
    ListRequest,
    SizesAnswer,
    SizesRequest,
    decode,
    encode,
)
from dsdbd.cluster.segment_source import SegmentSource
from dsdbd.errors import RequestError, ShardUnavailable
from dsdbd.http.responses import json_response
from dsdbd.http.signed import in_pieces

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.version_clock import VersionClock
    from dsdbd.http.signed import Signed


class FileRoutes:
    """The routes of one node."""

    def __init__(self, node: Node, clock: VersionClock) -> None:
        self._node = node
        self._source = SegmentSource(node, clock)
        self._absorber = Absorber(node, clock)

    def routes(self, signed: Signed) -> list[web.RouteDef]:
        """Their routes; ``signed`` puts the check of secret and cluster in front of a handler."""
        one = "/internal/files/{token:[0-9a-f]{32}}"
        return [
            web.post("/internal/files", signed(self._list)),
            web.get(one + "/{index:[0-9]{1,9}}", signed(self._read), allow_head=False),
            web.delete(one, signed(self._close)),
            web.post("/internal/sizes", signed(self._sizes)),
            web.post(ABSORB_PATH, signed(self._absorb)),
            web.get("/internal/transfers", signed(self._transfers)),
        ]

    async def _list(self, _: web.Request, body: bytes) -> web.StreamResponse:
        wanted = decode(body, ListRequest)
        try:
            listing = await self._source.list_files(wanted.shard_id)
        except OSError as error:
            raise ShardUnavailable(
                f"shard {wanted.shard_id} cannot be written out or read: {error.strerror}"
            ) from error
        return web.Response(body=encode(listing))

    async def _read(self, request: web.Request, _: bytes) -> web.StreamResponse:
        """One file from ``offset`` and its digest. A disk that fails on the way breaks the connection off."""
        token, index = request.match_info["token"], int(request.match_info["index"])
        text = request.query.get("offset", "0")
        if not text.isdecimal() or len(text) > 18:
            raise RequestError("offset must be a number of bytes")
        size_bytes = self._source.size_of(token, index)
        response = web.StreamResponse()
        response.content_length = max(0, size_bytes - int(text)) + DIGEST_BYTES
        async with contextlib.aclosing(self._source.read(token, index, int(text))) as pieces:
            return await in_pieces(request, response, pieces)

    async def _close(self, request: web.Request, _: bytes) -> web.StreamResponse:
        await self._source.close(request.match_info["token"])
        return web.Response(status=204)

    async def _sizes(self, _: web.Request, body: bytes) -> web.StreamResponse:
        try:
            sizes = await self._source.sizes(frozenset(decode(body, SizesRequest).shard_ids))
        except OSError as error:
            raise ShardUnavailable(f"the sizes of shards cannot be read: {error.strerror}") from error
        rate = self._node.config.transfer.max_throughput_bytes
        kept = 0 if self._node.handoff is None else self._node.handoff.counters["bytes"]
        return web.Response(body=encode(SizesAnswer(sizes, rate, kept)))

    async def _absorb(self, _: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(body=await self._absorber.receive(body))

    async def _transfers(self, _request: web.Request, _: bytes) -> web.StreamResponse:
        rows = [] if self._node.transfer is None else self._node.transfer.progress()
        return json_response(rows)
