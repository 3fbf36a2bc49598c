"""Routes of backup and restore: public ones for administrators, and signed ones that ask an owner what it holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from dsdbd import limits
from dsdbd.cluster.acks import parse_consistency
from dsdbd.cluster.archive import Scope, describe
from dsdbd.cluster.backup import BackupSource
from dsdbd.cluster.budget import ByteBudget
from dsdbd.cluster.restore import Restore
from dsdbd.cluster.restored import Preparation
from dsdbd.decoding import decode_json
from dsdbd.errors import RequestError
from dsdbd.http.body import read_body
from dsdbd.http.responses import json_response
from dsdbd.http.signed import in_pieces
from dsdbd.version import VERSION

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.writes import WritePath
    from dsdbd.http.auth import Authenticator
    from dsdbd.http.signed import Signed

_MAX_DIGITS = 18


class BackupRoutes:
    """The routes of one node; only administrators get past them while authentication is on."""

    def __init__(self, node: Node, writes: WritePath, auth: Authenticator) -> None:
        self._node = node
        self._auth = auth
        self._source = BackupSource(node)
        self._restore = Restore(node, writes, self._source)
        self._bodies = ByteBudget(limits.MAX_RESTORE_BYTES_HELD, "points that are being restored")

    def routes(self) -> list[web.RouteDef]:
        """Their routes."""
        shard = "/cluster/backup/shards/{shard_id:[0-9]{1,18}}"
        return [
            web.get("/cluster/backup", self._contents, allow_head=False),
            web.post(shard, self._open),
            web.get(shard + "/files/{index:[0-9]{1,9}}", self._file, allow_head=False),
            web.delete(shard, self._close),
            web.post("/cluster/restore", self._prepare),
            web.post("/cluster/restore/points", self._points),
            web.post("/cluster/restore/compare", self._compare),
            web.get("/cluster/restore/digests", self._digests, allow_head=False),
        ]

    # --- backup

    async def _contents(self, request: web.Request) -> web.StreamResponse:
        await self._authorize(request)
        query = request.query
        if query.get("stale") != "true":
            await self._node.metadata.barrier(self._node.config.cluster.write_timeout_s)
        scope = Scope(query.get("database", ""), query.get("retention", ""), _number(request, "shard"))
        now_ns, state = self._node.clock.now_ns(), self._node.metadata.state
        return json_response(await asyncio.to_thread(describe, state, scope, VERSION, now_ns))

    async def _open(self, request: web.Request) -> web.StreamResponse:
        await self._authorize(request)
        opened = await self._source.open_shard(int(request.match_info["shard_id"]), _number(request, "prefer"))
        return json_response(opened)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """A file from ``offset`` and its digest, as the owner sends them; an owner that fails breaks it off."""
        await self._authorize(request)
        index, offset = int(request.match_info["index"]), _number(request, "offset")
        response = web.StreamResponse()
        response.content_type = "application/octet-stream"
        async with self._source.file(_number(request, "owner"), _token(request), index, offset) as pieces:
            return await in_pieces(request, response, pieces)

    async def _close(self, request: web.Request) -> web.StreamResponse:
        await self._authorize(request)
        await self._source.close_shard(_number(request, "owner"), _token(request))
        return web.Response(status=204)

    # --- restore

    async def _prepare(self, request: web.Request) -> web.StreamResponse:
        await self._authorize(request)
        with self._bodies.held() as hold:
            body = await read_body(request, limits.MAX_RESTORE_METADATA_BYTES, hold)
            try:
                wanted = await asyncio.to_thread(decode_json, body, Preparation)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise RequestError(f"the metadata of the backup cannot be read: {error}") from error
            return json_response(await self._restore.prepare(wanted))

    async def _points(self, request: web.Request) -> web.StreamResponse:
        await self._authorize(request)
        consistency = parse_consistency(request.query.get("consistency", "quorum"))
        database, policy = _place(request)
        with self._bodies.held() as hold:
            body = await read_body(request, limits.MAX_RESTORE_BODY_BYTES, hold)
            dropped = await self._restore.store(database, policy, body, consistency)
        return json_response({"dropped": [{"reason": one.reason, "count": one.count} for one in dropped]})

    async def _compare(self, request: web.Request) -> web.StreamResponse:
        await self._authorize(request)
        database, policy = _place(request)
        with self._bodies.held() as hold:
            body = await read_body(request, limits.MAX_RESTORE_BODY_BYTES, hold)
            return json_response(await self._restore.compare(database, policy, body))

    async def _digests(self, request: web.Request) -> web.StreamResponse:
        await self._authorize(request)
        return json_response({"digests": await self._restore.digests(*_place(request))})

    async def _authorize(self, request: web.Request) -> None:
        self._auth.authorize_admin(await self._auth.user_of(request, {}))


class BackupNodeRoutes:
    """What the nodes ask each other for backups and restores."""

    def __init__(self, node: Node, writes: WritePath) -> None:
        self._source = BackupSource(node)
        self._restore = Restore(node, writes, self._source)

    def routes(self, signed: Signed) -> list[web.RouteDef]:
        """Their routes; ``signed`` puts the check of secret and cluster in front of a handler."""
        return [
            web.post("/internal/backup/digests", signed(self._digests)),
            web.post("/internal/backup/compare/{shard_id:[0-9]{1,18}}", signed(self._compare)),
        ]

    async def _digests(self, _: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(body=await self._source.serve_digests(body))

    async def _compare(self, request: web.Request, body: bytes) -> web.StreamResponse:
        return json_response(await self._restore.serve_compare(int(request.match_info["shard_id"]), body))


def _number(request: web.Request, name: str) -> int:
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdecimal()) or len(text) > _MAX_DIGITS:
        raise RequestError(f"{name} must be a number")
    return int(text)


def _token(request: web.Request) -> str:
    token = request.query.get("token", "")
    if token and (len(token) > 64 or not token.isascii() or not token.isalnum()):
        raise RequestError("token is not one of this cluster")
    return token


def _place(request: web.Request) -> tuple[str, str]:
    database, policy = request.query.get("database", ""), request.query.get("retention", "")
    if not database or not policy:
        raise RequestError("database and retention are required")
    return database, policy
