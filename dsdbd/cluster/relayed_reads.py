"""Small questions about points of one other node: passed on as they came, and its answer passed back as it comes.

To ask, to answer and to write an answer down take about the same time each where the question is small, so that a node
which only passes on does nothing twice. What the owner does not answer at once is asked for in the usual way, and so is
what takes longer than a moment.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from dsdbd import query
from dsdbd.decoding import msgpack_decoder
from dsdbd.errors import DSDBError
from dsdbd.influxql import ast, parse
from dsdbd.influxql.shapes import shape_of
from dsdbd.limits import MAX_KEPT_QUERIES, MAX_KEPT_QUERY_CHARS
from dsdbd.meta import views

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.query import SeriesBlock

PATH = "/internal/read/small"
_PATIENCE_S = 0.5
"""How long an answer is waited for; nobody can end a question meanwhile."""
_LONGEST_REST = 32


class SmallRequest(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A statement as a client sent it. ``metadata_index``: what the asking node knows, and the other is to know too."""

    text: str
    database: str
    policy: str
    epoch: str | None
    now_ns: int
    metadata_index: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgpack_decoder(SmallRequest)


@dataclass(slots=True)
class _Known:
    """A shape of statements: how often to leave it to the usual way, and how often then when it is not answered."""

    rest: int = 0
    next_rest: int = 1


class RelayedReads:
    """Passes statements on, and answers those of other nodes; one per node, used on the event loop."""

    def __init__(self, node: Node, reads: ReadPath) -> None:
        self._node = node
        self._reads = reads
        self._known: dict[tuple[str, str, str], _Known] = {}

    def owner_address(self, text: str, database: str, policy: str) -> str | None:
        """The node to pass a statement on to; None where it is to be asked for in the usual way."""
        others = any(peer.id != self._node.data_id for peer in self._node.metadata.state.data_nodes)
        if not others or len(text) > MAX_KEPT_QUERY_CHARS or self._node.config.cluster.max_select_buckets:
            return None
        known = self._known_shape(text, database, policy)
        if known.rest:
            known.rest -= 1
            return None
        address = self._only_owner(text, database, policy)
        if address is None:
            known.rest = _LONGEST_REST
        return address

    def _known_shape(self, text: str, database: str, policy: str) -> _Known:
        key = (shape_of(text)[0], database, policy)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MAX_KEPT_QUERIES:
                self._known.clear()
            known = self._known[key] = _Known()
        return known

    def _only_owner(self, text: str, database: str, policy: str) -> str | None:
        state = self._node.metadata.state

        def default_policy(name: str) -> str:
            return views.policy(state, name, policy if name == database else "").name

        try:
            statement, *others = parse(text)
            if others or not isinstance(statement, ast.Select) or query.has_subqueries(statement):
                return None
            named = query.normalise(statement, database or None, default_policy)
            owner = self._reads.only_other_owner(named, self._node.clock.now_ns())
        except DSDBError:
            return None  # the usual way tells what is wrong
        peer = None if owner is None else views.data_node(state, owner)
        return None if peer is None else peer.tcp_addr

    async def ask(self, address: str, text: str, database: str, policy: str, epoch: str | None) -> bytes | None:
        """The answer as a JSON document; None where the statement is to be asked for in the usual way."""
        node = self._node
        request = SmallRequest(text, database, policy, epoch, node.clock.now_ns(), node.metadata.state.index)
        answer = b""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await node.peers.call(
                    address,
                    "POST",
                    PATH,
                    _encoder.encode(request),
                    timeout_s=node.config.cluster.shard_mapper_timeout_s,
                )
        except (DSDBError, TimeoutError):
            pass  # the usual way finds another owner, or tells what is wrong
        known = self._known_shape(text, database, policy)
        if answer:
            known.next_rest = 1
            return answer
        known.rest, known.next_rest = known.next_rest, min(2 * known.next_rest, _LONGEST_REST)
        return None

    def serve(self, body: bytes) -> bytes:
        """Answer a statement of another node; with nothing where it cannot be done at once."""
        try:
            request = _decoder.decode(body)
        except msgspec.MsgspecError:
            return b""
        if self._node.metadata.state.index < request.metadata_index:
            return b""
        blocks = self._reads.small.answer(request.text, request.database, request.policy, request.now_ns)
        return b"" if blocks is None else document(blocks, request.epoch)


def document(blocks: list[SeriesBlock], epoch: str | None) -> bytes:
    """The whole answer to one statement as JSON."""
    written = query.JsonDocument(epoch=epoch)
    return b"".join((written.begin(0), *written.part(query.AnswerPart(blocks)), written.end(), written.close()))
