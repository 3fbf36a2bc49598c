"""The node-to-node API and the meta API: signed requests between nodes, and a few open pages for people."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from dsdbd import limits
from dsdbd.cluster import deletes, relayed_reads, signing
from dsdbd.cluster.budget import ByteBudget
from dsdbd.cluster.follower import LONG_POLL_S
from dsdbd.cluster.former_shards import UNKNOWN
from dsdbd.cluster.health import own_state
from dsdbd.cluster.lateness import kept_for_s
from dsdbd.cluster.membership import removed_reason
from dsdbd.cluster.messages import PulseAnswer, encode
from dsdbd.cluster.reads import Cancellation
from dsdbd.cluster.statements.queries import own_queries
from dsdbd.errors import ForeignCluster, NodeRemoved, NoLeader, RequestError, SecretRefused, Unavailable
from dsdbd.http.backup import BackupNodeRoutes
from dsdbd.http.body import read_body
from dsdbd.http.disconnect import cancel_when_gone
from dsdbd.http.internal_files import FileRoutes
from dsdbd.http.internal_repair import RepairRoutes
from dsdbd.http.kept_alive import ALIVE_S, answer_of, keep_alive
from dsdbd.http.responses import JSON, json_response
from dsdbd.meta.state import encode_state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dsdbd.cluster.membership import Membership
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.cluster.writes import WritePath
    from dsdbd.http.signed import Handler

_EXECUTE_TIMEOUT_S = 5.0


class InternalApi:
    """Handlers of both APIs; every signed one first checks secret and cluster id."""

    def __init__(self, node: Node, membership: Membership, writes: WritePath, reads: ReadPath) -> None:
        self._node = node
        self._membership = membership
        self._writes = writes
        self._reads = reads
        self._files = FileRoutes(node, writes.clock)
        self._backup = BackupNodeRoutes(node, writes)
        self._repair = RepairRoutes(node)
        self._bodies = ByteBudget(limits.MAX_INTERNAL_BYTES_HELD, "requests of other nodes")
        self._state_bytes: tuple[object, bytes] = (None, b"")

    def node_routes(self) -> list[web.RouteDef]:
        """Routes of the node-to-node address; joining works there, too, so that either port may be named."""
        return [
            web.get("/cluster/hello", self._signed(self._hello, any_cluster=True)),
            web.get("/cluster/state", self._signed(self._state)),
            web.get("/cluster/pulse", self._signed(self._pulse)),
            web.post("/cluster/prepare", self._signed(self._prepare, any_cluster=True)),
            web.post("/cluster/barrier", self._signed(self._barrier)),
            web.post("/join", self._signed(self._join)),
            web.post("/leave", self._signed(self._leave)),
            web.post("/execute", self._signed(self._execute)),
            web.post("/internal/shards/{shard_id:[0-9]+}", self._write_shard),
            web.post("/internal/delete", self._signed(self._delete)),
            web.post("/internal/read", self._signed(self._read)),
            web.post(relayed_reads.PATH, self._signed(self._read_small)),
            web.get("/internal/queries", self._signed(self._queries)),
            web.post("/internal/queries/{qid:[0-9]+}/kill", self._signed(self._kill)),
            *self._files.routes(self._signed),
            *self._backup.routes(self._signed),
            *self._repair.routes(self._signed),
        ]

    def meta_routes(self) -> list[web.RouteDef]:
        """Routes of the meta HTTP address: the above, and the pages that need no signature."""
        return [*self.node_routes(), web.get("/peers", self._peers), web.get("/status", self._status)]

    async def leader_page(self, _: web.Request) -> web.StreamResponse:
        """``GET /ping`` of the meta address: the leader's address as this node knows it, as text."""
        return web.Response(text=self._node.metadata.leader())

    async def metadata_page(self, request: web.Request) -> web.StreamResponse:
        """``GET /?index=N``: wait for metadata newer than N; the leader's address, a newline, the encoded state."""
        return await self._signed(self._follow)(request)

    # --- checks

    def _signed(
        self, handler: Handler, *, any_cluster: bool = False
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def checked(request: web.Request) -> web.StreamResponse:
            with self._bodies.held() as hold:
                body = await read_body(request, limits.MAX_INTERNAL_BODY_BYTES, hold)
                self._check(request, body, any_cluster=any_cluster)
                return await handler(request, body)

        return checked

    def _check(self, request: web.Request, body: bytes, *, any_cluster: bool) -> None:
        node = self._node
        cluster_id = request.headers.get(signing.CLUSTER_HEADER, "")
        sender = request.headers.get(signing.SENDER_HEADER, "")
        signature = request.headers.get(signing.SIGNATURE_HEADER, "")
        if not signature or not signing.is_valid(
            signature,
            node.secret,
            method=request.method,
            path_qs=request.raw_path,
            cluster_id=cluster_id,
            sender=sender,
            body=body,
        ):
            raise SecretRefused(
                f"{node.addresses.tcp} refuses the request: it is not signed with this cluster's secret. Copy "
                "cluster.secret from the metadata directory of a member (or the file its [meta] cluster-secret-file "
                "names) to the calling node."
            )
        if any_cluster:
            return
        if cluster_id != node.cluster_id:
            raise ForeignCluster(
                f"{node.addresses.tcp} belongs to cluster {node.cluster_id or '(none yet)'}, the calling node to "
                f"{cluster_id or '(none yet)'}; nodes of different clusters do not talk"
            )
        reason = removed_reason(node.metadata.state, sender)
        if reason:
            raise NodeRemoved(reason)
        if node.detector is not None:
            node.detector.heard(sender)

    # --- membership

    async def _hello(self, request: web.Request, _: bytes) -> web.StreamResponse:
        answer = self._membership.hello(request.headers.get(signing.SENDER_HEADER, ""))
        return web.Response(body=encode(answer), content_type=JSON)

    async def _state(self, _request: web.Request, _: bytes) -> web.StreamResponse:
        return web.Response(body=encode(own_state(self._node)), content_type=JSON)

    async def _pulse(self, _request: web.Request, _: bytes) -> web.StreamResponse:
        node = self._node
        settled = node.repair is None or node.repair.is_settled()
        clear_index = UNKNOWN if node.repair is None else node.repair.former.clear_index()
        serves = node.store is not None
        version = self._writes.clock.last
        answer = PulseAnswer(
            node.uuid,
            node.clock.now_ns(),
            serves,
            settled,
            clear_index,
            kept_for_s(node),
            version,
            started_ns=node.started_ns,
        )
        return web.Response(body=encode(answer), content_type=JSON)

    async def _prepare(self, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = await self._membership.prepare(body, forwarded="forwarded" in request.query)
        return web.Response(body=answer, content_type=JSON)

    async def _join(self, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = await self._membership.join(body, forwarded="forwarded" in request.query)
        return web.Response(body=answer, content_type=JSON)

    async def _leave(self, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = await self._membership.leave(body, forwarded="forwarded" in request.query)
        return web.Response(body=answer, content_type=JSON)

    async def _peers(self, _: web.Request) -> web.StreamResponse:
        return json_response([meta.tcp_addr for meta in self._node.metadata.state.meta_nodes])

    async def _status(self, _: web.Request) -> web.StreamResponse:
        state = own_state(self._node)
        page = {
            "nodeType": "meta" if self._node.raft is not None else "data",
            "leader": state.leader,
            "httpAddr": self._node.addresses.meta_http,
            "raftAddr": self._node.addresses.tcp,
            "peers": [meta.tcp_addr for meta in self._node.metadata.state.meta_nodes],
            "index": state.applied_index,
            "term": state.term,
            "problems": list(state.problems),
        }
        return json_response(page)

    # --- metadata

    def _require_vote(self) -> None:
        """A follower must not pass on requests of followers: they could go round in circles."""
        if self._node.raft is None:
            raise NoLeader(f"{self._node.addresses.tcp} is no meta node")

    async def _execute(self, _: web.Request, body: bytes) -> web.StreamResponse:
        self._require_vote()
        if len(body) > limits.MAX_COMMAND_BYTES:
            raise RequestError(f"the command is {len(body)} bytes, more than {limits.MAX_COMMAND_BYTES}")
        answer = await self._node.metadata.propose_encoded(body, timeout_s=_EXECUTE_TIMEOUT_S)
        return web.Response(body=answer)

    async def _barrier(self, _request: web.Request, _: bytes) -> web.StreamResponse:
        self._require_vote()
        await self._node.metadata.barrier(_EXECUTE_TIMEOUT_S)
        return web.Response(text=str(self._node.metadata.state.index))

    async def _follow(self, request: web.Request, _: bytes) -> web.StreamResponse:
        if self._node.raft is None or not self._node.is_member:
            raise Unavailable(f"{self._node.addresses.tcp} does not vote on the metadata")
        text = request.query.get("index", "")
        if not text.isdigit():
            raise RequestError("index must be a number")
        metadata = self._node.metadata
        head = metadata.leader().encode() + b"\n"
        if not await metadata.wait_index(int(text) + 1, LONG_POLL_S):
            return web.Response(body=head)
        state = metadata.state
        if self._state_bytes[0] is not state:
            self._state_bytes = (state, encode_state(state))
        return web.Response(body=head + self._state_bytes[1])

    # --- points

    async def _write_shard(self, request: web.Request) -> web.StreamResponse:
        # Before the body comes: the time that one takes on a slow link makes no write an old one.
        floor = self._writes.clock.floor() if "new" in request.query else 0

        async def store(request: web.Request, body: bytes) -> web.StreamResponse:
            index = request.query.get("index", "0")
            shard_id = int(request.match_info["shard_id"])
            await self._writes.receive(shard_id, body, int(index) if index.isdigit() else 0, floor)
            return web.Response(status=204)

        return await self._signed(store)(request)

    async def _delete(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """Delete for another coordinator, to the end also when that has gone; shows signs of life as a read does."""

        async def delete() -> bytes:
            await deletes.receive(self._node, self._writes, body)
            return b""

        return await answer_of(request, delete())

    async def _queries(self, _request: web.Request, _: bytes) -> web.StreamResponse:
        return web.Response(body=own_queries(self._node))

    async def _kill(self, request: web.Request, _: bytes) -> web.StreamResponse:
        self._node.queries.kill(int(request.match_info["qid"]))
        return web.Response(status=204)

    async def _read_small(self, _: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(body=self._reads.relayed.serve(body))

    async def _read(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """Read for another coordinator. An answer that takes long shows signs of life meanwhile."""
        cancelled = Cancellation()
        with cancel_when_gone(request, cancelled):
            work = asyncio.create_task(self._reads.serve(body, cancelled))
            # Nobody may be left to look at the error of a query whose coordinator has gone.
            work.add_done_callback(lambda task: task.cancelled() or task.exception())
            try:
                await asyncio.wait({work}, timeout=ALIVE_S)
                if work.done():
                    return web.Response(body=work.result())
                return await keep_alive(request, work)
            finally:
                work.cancel()
