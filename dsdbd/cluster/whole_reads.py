"""A SELECT whose points are all at one other node: that node plans and reads it, in one request.

The general way of ``ReadPath`` asks an owner twice at least, for what is stored under the names and for rows, and a
small question takes less time than one such request. Whatever does not fit here, and whatever an owner does not answer,
goes the general way, which finds the next owner or tells what is wrong.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from dsdbd import query
from dsdbd.cluster.asking import ReadRequest
from dsdbd.decoding import msgpack_decoder
from dsdbd.errors import CorruptData, NotFound, RequestError, Unavailable
from dsdbd.influxql import ast, parse
from dsdbd.influxql.format import to_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dsdbd.cluster.asking import Asking
    from dsdbd.cluster.cancellation import Cancellation
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import ReadPath
    from dsdbd.meta.views import ShardPlace
    from dsdbd.query import Emit, SeriesBlock

_SMALL_BYTES = 64 << 10
"""A partial result up to this size of a small question is finished on the event loop, in less than a millisecond."""


class WholeAnswer(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The plan of a statement and its partial result, both encoded; ``small``: to finish it takes no time."""

    plan: bytes
    partial: bytes
    small: bool


_encoder = msgspec.msgpack.Encoder()
_decoder = msgpack_decoder(WholeAnswer)


class WholeReads:
    """Asks other nodes for whole answers, and answers them; one per node."""

    def __init__(self, node: Node, reads: ReadPath, asking: Asking) -> None:
        self._node = node
        self._reads = reads
        self._asking = asking

    async def ask(
        self, statement: ast.Select, places: Iterable[ShardPlace], now_ns: int, cancelled: Cancellation
    ) -> list[SeriesBlock] | None:
        """The whole answer, where these shards are all to be read at one other node.

        None where the statement is to go the general way. Raises RequestError, QueryCancelled, CorruptData.
        """
        owner = self._asking.only_owner(places)
        if owner is None or owner == self._node.data_id or self._counts_windows():
            return None
        request = ReadRequest("statement", "", "", [], to_text(statement).encode(), now_ns=now_ns)
        try:
            answer = await cancelled.guard(asyncio.ensure_future(self._asking.call(owner, request)))
        except (Unavailable, NotFound):
            return None
        if not answer:
            return None
        whole = _decoded(answer)
        if whole.small:
            return _finished(whole, cancelled)
        return await cancelled.guard(self._reads.work(_finished, whole, cancelled))

    async def serve(self, request: ReadRequest, cancelled: Cancellation) -> bytes:
        """Answer another coordinator's statement; with nothing where this node is not to answer it alone."""
        text = request.argument.decode()
        emit = self._reads.small.begin(text, request.now_ns)
        if emit is not None:
            return _encoded(emit, small=True)
        (statement,) = parse(text)
        if not isinstance(statement, ast.Select):
            raise RequestError("only a SELECT can be answered for another node; run equal versions on all nodes")
        if self._counts_windows():
            return b""
        return await self._reads.work(self._read, statement, request.now_ns, cancelled)

    def _counts_windows(self) -> bool:
        """Whether a setting limits windows, which counts at the node that the client asked; it plans for itself."""
        return self._node.config.cluster.max_select_buckets > 0

    def _read(self, statement: ast.Select, now_ns: int, cancelled: Cancellation) -> bytes:
        emit = self._reads.whole_here(statement, now_ns, cancelled)
        return b"" if emit is None else _encoded(emit, small=False)


def _encoded(emit: Emit, *, small: bool) -> bytes:
    partial = query.encode_partial(emit.partial)
    return _encoder.encode(WholeAnswer(query.encode_plan(emit.plan), partial, small and len(partial) <= _SMALL_BYTES))


def _decoded(answer: bytes) -> WholeAnswer:
    try:
        return _decoder.decode(answer)
    except msgspec.MsgspecError as error:
        raise CorruptData(f"the answer of another node cannot be decoded: {error}") from error


def _finished(whole: WholeAnswer, cancelled: Cancellation) -> list[SeriesBlock]:
    plan = query.decode_plan(whole.plan)
    return list(query.finish(plan, query.decode_partial(plan, whole.partial), cancelled))
