"""SHOW REPAIRS: what every node repairs and copies, or did lately."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from dsdbd.cluster.repair_messages import PROGRESS_PATH
from dsdbd.cluster.repair_progress import Row
from dsdbd.cluster.statements.context import table_rows
from dsdbd.decoding import msgpack_decoder
from dsdbd.errors import DSDBError
from dsdbd.model.times import format_rfc3339nano

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.query import SeriesRows

log = structlog.get_logger("query")
_ASK_TIMEOUT_S = 2.0
_COLUMNS = (
    "node",
    "shard",
    "database",
    "retention_policy",
    "kind",
    "from",
    "to",
    "state",
    "rows",
    "bytes",
    "started",
    "error",
)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgpack_decoder(list[Row])


def own_repairs(node: Node) -> bytes:
    """What this node repairs and copies, for another one that asks."""
    return _encoder.encode(_own(node))


def _own(node: Node) -> list[Row]:
    rows = [] if node.repair is None else node.repair.progress()
    if node.transfer is not None:
        rows += [
            (
                one["shard"],
                one["database"],
                one["retention_policy"],
                "move",
                one["from"],
                one["to"],
                one["state"],
                0,
                one["bytes"],
                one["started_ns"] or 0,
                one["error"],
            )
            for one in node.transfer.progress()
        ]
    return sorted(rows, key=lambda row: row[9])


async def show_repairs(node: Node) -> SeriesRows:
    """One row for each repair or move under way, or ended lately, of every data node.

    A node that does not answer has one row that says so.
    """
    peers = [one for one in node.metadata.state.data_nodes if one.id != node.data_id]
    answers = await asyncio.gather(*(_ask(node, peer.tcp_addr) for peer in peers))
    found = [(node.data_id, _own(node))] if node.data_id is not None else []
    found += [(peer.id, answer) for peer, answer in zip(peers, answers, strict=True)]
    rows = [
        (number, row[0] or None, *row[1:9], format_rfc3339nano(row[9]) if row[9] else None, row[10])
        for number, some in sorted(found, key=lambda one: one[0])
        for row in some
    ]
    return table_rows("", _COLUMNS, rows)


async def _ask(node: Node, address: str) -> list[Row]:
    try:
        return _decoder.decode(await node.peers.call(address, "GET", PROGRESS_PATH, timeout_s=_ASK_TIMEOUT_S))
    except msgspec.MsgspecError as error:
        reason = f"its answer cannot be decoded: {error}"
    except DSDBError as error:
        reason = error.message
    log.warning("a node did not list its repairs", address=address, reason=reason)
    return [(0, "", "", "", None, None, "unknown", 0, 0, 0, reason)]
