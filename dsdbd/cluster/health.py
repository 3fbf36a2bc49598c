"""What this node knows of the cluster's health: problems as sentences, and the picture that ``dsdb status`` prints."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from dsdbd.cluster.messages import StatusAnswer
from dsdbd.decoding import decode_json
from dsdbd.errors import DSDBError
from dsdbd.meta import views
from dsdbd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dsdbd.cluster.node import Node
    from dsdbd.config import Config

_ASK_TIMEOUT_S = 1.5
PASS, WARN, FAIL = "pass", "warn", "fail"


def own_problems(node: Node) -> list[str]:
    """What is wrong with this node, worst first; empty when all is well."""
    problems: list[str] = []
    if not node.is_member:
        problems.append(f"not a member of a cluster yet: {node.progress.waiting}")
    elif not node.metadata.leader() or (node.raft is not None and not node.raft.status().has_quorum):
        problems.append(_no_leader(node))
    if node.storage_wait and node.is_member:
        problems.append(node.storage_wait)
    if node.store is not None:
        problems += node.store.problems()
    if node.handoff is not None:
        problems += node.handoff.problems()
    if node.transfer is not None:
        problems += node.transfer.problems()
    problems += [f"{peer}: {reason}" for peer, reason in node.refusals.items()]
    return problems


def _no_leader(node: Node) -> str:
    if node.raft is None:
        return "no meta node answers; metadata cannot change, stored points are served"
    status = node.raft.status()
    missing = [peer.address for peer in status.peers if not peer.connected and peer.address in status.voters]
    have = len(status.voters) - len(missing)
    sentence = f"the meta nodes have no leader: {have} of {len(status.voters)} answer"
    return sentence + (f", missing: {', '.join(missing)}" if missing else "; an election is under way")


def own_state(node: Node) -> StatusAnswer:
    """What only this node knows, for another node's picture of the cluster."""
    status = None if node.raft is None else node.raft.status()
    return StatusAnswer(
        uuid=node.uuid,
        version=VERSION,
        applied_index=node.metadata.state.index,
        commit_index=0 if status is None else status.commit_index,
        term=0 if status is None else status.term,
        leader=node.metadata.leader(),
        problems=tuple(own_problems(node)),
        kept_bytes=0 if node.handoff is None else node.handoff.counters["bytes"],
        copied_bytes=0 if node.transfer is None else node.transfer.copied_bytes(),
    )


def roles(config: Config) -> list[str]:
    """The roles a configuration gives its node."""
    return [role for role, enabled in (("meta", config.meta.enabled), ("data", config.data.enabled)) if enabled]


async def cluster_status(node: Node) -> dict[str, Any]:
    """The whole cluster as this node sees it now; asks every other node and waits at most 1.5 s for each."""
    state = node.metadata.state
    rows: dict[str, dict[str, Any]] = {}
    for meta in state.meta_nodes:
        row = rows.setdefault(meta.uuid, _row(meta.tcp_addr))
        row["roles"].append("meta")
        row.update(meta_id=meta.id, meta_http_addr=meta.http_addr)
    for data in state.data_nodes:
        row = rows.setdefault(data.uuid, _row(data.tcp_addr))
        row["roles"].append("data")
        row.update(data_id=data.id, http_addr=data.http_addr)
    answers = await asyncio.gather(*(_ask(node, uuid, row["tcp_addr"]) for uuid, row in rows.items()))
    problems: list[str] = []
    leader_addr = node.metadata.leader()
    newest = max([answer.applied_index for answer in answers if isinstance(answer, StatusAnswer)], default=0)
    contacts = _contacts(node)
    for row, answer in zip(rows.values(), answers, strict=True):
        row["last_contact_s"] = contacts.get(row["tcp_addr"])
        row["is_leader"] = row["tcp_addr"] == leader_addr and "meta" in row["roles"]
        if isinstance(answer, StatusAnswer):
            row.update(state="up", version=answer.version, applied_index=answer.applied_index)
            row.update(lag=newest - answer.applied_index, message="; ".join(answer.problems))
            row.update(kept_bytes=answer.kept_bytes, copied_bytes=answer.copied_bytes)
            problems += [f"{row['tcp_addr']}: {problem}" for problem in answer.problems]
        else:
            row.update(state="down", message=answer)
            problems.append(f"{row['tcp_addr']} does not answer: {answer}")
    if not rows:
        problems += own_problems(node)
    down = {row["data_id"] for row in rows.values() if row["state"] == "down" and row["data_id"] is not None}
    shards = _shards(node, down)
    if shards["unavailable"]:
        problems.append(f"{shards['unavailable']} shards have no owner that answers")
    raft = None if node.raft is None else node.raft.status()
    leader = next((meta for meta in state.meta_nodes if meta.tcp_addr == leader_addr), None)
    if leader is None and node.is_member:
        problems.append(_no_leader(node))
    failed = leader is None or bool(shards["unavailable"])
    return {
        "cluster_id": node.cluster_id,
        "version": VERSION,
        "status": FAIL if failed else WARN if problems else PASS,
        "problems": list(dict.fromkeys(problems)),
        "leader": None if leader is None else {"meta_id": leader.id, "tcp_addr": leader.tcp_addr},
        "term": 0 if raft is None else raft.term,
        "commit_index": 0 if raft is None else raft.commit_index,
        "nodes": sorted(rows.values(), key=lambda row: row["meta_id"] or row["data_id"] or 0),
        "shards": shards,
        "moves": _moves(node, rows.values()),
        "handoff_bytes": sum(row["kept_bytes"] or 0 for row in rows.values()),
    }


def _contacts(node: Node) -> dict[str, float]:
    """Seconds since each meta node was last heard through Raft; other nodes have no such connection."""
    if node.raft is None:
        return {}
    peers = node.raft.status().peers
    return {peer.address: round(peer.last_contact_s, 1) for peer in peers if peer.last_contact_s is not None}


def _row(tcp_addr: str) -> dict[str, Any]:
    return {
        "host": tcp_addr.rpartition(":")[0],
        "roles": [],
        "meta_id": None,
        "data_id": None,
        "http_addr": "",
        "meta_http_addr": "",
        "tcp_addr": tcp_addr,
        "state": "unknown",
        "is_leader": False,
        "applied_index": None,
        "lag": None,
        "version": "",
        "last_contact_s": None,
        "kept_bytes": None,
        "copied_bytes": None,
        "message": "",
    }


async def _ask(node: Node, uuid: str, address: str) -> StatusAnswer | str:
    if uuid == node.uuid:
        return own_state(node)
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            raw = await node.peers.call(address, "GET", "/cluster/state", timeout_s=_ASK_TIMEOUT_S)
        return decode_json(raw, StatusAnswer)
    except TimeoutError:
        return f"no answer within {_ASK_TIMEOUT_S:g}s"
    except (DSDBError, msgspec.MsgspecError) as error:
        return str(error)


def _shards(node: Node, down: set[int]) -> dict[str, int]:
    places = list(views.all_shards(node.metadata.state))
    return {
        "groups": len({place.group.id for place in places}),
        "total": len(places),
        "unavailable": sum(1 for place in places if set(place.shard.owners) <= down),
    }


def _moves(node: Node, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Copies that are ordered and not complete, what of them has come so far, and the data nodes that drain."""
    state = node.metadata.state
    return {
        "copies": sum(len(place.shard.incoming) for place in views.all_shards(state)),
        "copied_bytes": sum(row["copied_bytes"] or 0 for row in rows),
        "draining": [data.id for data in state.data_nodes if data.draining],
    }
