"""Orders about the members of a cluster, given as ``dsdb node`` gives them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from tests.fault.node import FaultNode

_PAUSE_S = 0.3


def data_ids(nodes: Sequence[FaultNode], asked: FaultNode) -> dict[int, int]:
    """Numbers of nodes to their data ids, as one node knows them. Raises OSError."""
    rows = {one["name"]: one.get("values", []) for one in asked.query("SHOW SERVERS")[0]["series"]}
    hosts = {node.host: node.number for node in nodes}
    found = {row[2].partition(":")[0]: row[0] for row in rows["data_nodes"]}
    return {hosts[host]: number for host, number in found.items() if host in hosts}


def order(nodes: Sequence[FaultNode], op: str, timeout_s: float, **members: int) -> None:
    """Give an order, to whichever node takes it, until it is carried out. Raises TimeoutError with the last answer.

    An answer that does not come or refuses is no end: the order is given again, as people would.
    """
    deadline_s = time.monotonic() + timeout_s
    last = "no node runs"
    while time.monotonic() < deadline_s:
        for node in nodes:
            if not node.alive or node.paused:
                continue
            try:
                done, last = _once(node, {"op": op, **members})
            except (OSError, ValueError) as error:
                last = str(error)
                continue
            if done:
                return
            break
        time.sleep(_PAUSE_S)
    raise TimeoutError(f"{op} {members} is not carried out within {timeout_s:g} s: {last}")


def _once(node: FaultNode, what: dict[str, Any]) -> tuple[bool, str]:
    """Give an order unless moves are under way; whether all is done, and what the answer said."""
    if under_way := moves(node):
        return False, f"{len(under_way)} moves under way, such as {under_way[0]}"
    body = json.dumps(what).encode()
    status, answer = node.request("POST", "/cluster/apply", body, timeout_s=15.0)
    text = answer.decode(errors="replace")
    return status == 200 and bool(json.loads(answer).get("done")), f"{status}: {text[:300]}"


def moves(node: FaultNode) -> list[dict[str, Any]]:
    """Copies of shards that are being taken, as a node knows them. Raises OSError, ValueError."""
    status, body = node.request("GET", "/cluster/moves")
    if status != 200:
        raise OSError(f"{status}: {body[:200]!r}")
    found = json.loads(body)
    return list(found["moves"] if isinstance(found, dict) else found)
