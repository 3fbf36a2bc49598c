"""SHOW QUERIES and KILL QUERY, on this node and on the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from dsdbd.cluster.running import COLUMNS, Row
from dsdbd.cluster.statements.context import table_rows
from dsdbd.decoding import msgpack_decoder
from dsdbd.errors import DSDBError, RequestError, Unavailable

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.meta.state import MetaState
    from dsdbd.query import SeriesRows

log = structlog.get_logger("query")
_ASK_TIMEOUT_S = 2.0
_encoder = msgspec.msgpack.Encoder()
_decoder = msgpack_decoder(list[Row])


def own_queries(node: Node) -> bytes:
    """The running queries of this node, for another one that asks."""
    return _encoder.encode(node.queries.rows(node.clock.monotonic_s()))


async def show_queries(node: Node) -> SeriesRows:
    """The running queries of every node; in a cluster of several each row ends with the node's address.

    A node that does not answer has one row that says so: a list that is silently short would hide what one looks for.
    """
    own = node.queries.rows(node.clock.monotonic_s())
    others = [address for address in _hosts(node.metadata.state) if address != node.addresses.tcp]
    if not others:
        return table_rows("", COLUMNS, own)
    answers = await asyncio.gather(*(_ask(node, address) for address in others))
    rows: list[tuple[object, ...]] = [(*row, node.addresses.tcp) for row in own]
    for address, answer in zip(others, answers, strict=True):
        rows += [(*row, address) for row in answer]
    return table_rows("", (*COLUMNS, "host"), rows)


async def kill_query(node: Node, qid: int, host: str | None) -> None:
    """End a query of this node, or of the node that ``host`` names.

    Raises RequestError for a query or a host that is not there, Unavailable when the host does not answer.
    """
    address = node.addresses.tcp if host is None else find_host(node.metadata.state, host)
    if address == node.addresses.tcp:
        node.queries.kill(qid)
        return
    path = f"/internal/queries/{qid}/kill"
    await node.peers.call(address, "POST", path, timeout_s=_ASK_TIMEOUT_S)


def find_host(state: MetaState, host: str) -> str:
    """The node-to-node address of the node that ``host`` names: one of its addresses, or their host alone.

    Raises RequestError when no node, or more than one, has that name.
    """
    hosts = _hosts(state)
    exact = {address for address, names in hosts.items() if host in names}
    loose = {address for address, names in hosts.items() if any(name.rpartition(":")[0] == host for name in names)}
    found = exact or loose
    if len(found) == 1:
        return found.pop()
    known = ", ".join(hosts)
    if found:
        raise RequestError(f'host "{host}" has several nodes; name one with its port: {", ".join(sorted(found))}')
    raise RequestError(f'no node has the address "{host}"; the nodes are {known}')


def _hosts(state: MetaState) -> dict[str, set[str]]:
    """Node-to-node address of every node, with all its addresses; a node may have two registrations."""
    hosts: dict[str, set[str]] = {}
    registered = [(node.tcp_addr, node.http_addr) for node in state.meta_nodes]
    registered += [(node.tcp_addr, node.http_addr) for node in state.data_nodes]
    for address, http_address in registered:
        hosts.setdefault(address, set()).update((address, http_address))
    return hosts


async def _ask(node: Node, address: str) -> list[Row]:
    try:
        answer = await node.peers.call(address, "GET", "/internal/queries", timeout_s=_ASK_TIMEOUT_S)
        return _decoder.decode(answer)
    except msgspec.MsgspecError as error:
        reason = f"its answer cannot be decoded: {error}"
    except Unavailable as error:
        reason = error.message
    except DSDBError as error:
        reason = f"{address} refused: {error.message}"
    log.warning("a node did not list its queries", address=address, reason=reason)
    return [(0, "", "", "0s", f"unknown: {reason}")]
