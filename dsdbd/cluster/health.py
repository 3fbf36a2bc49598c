"""The state of the whole cluster as one node sees it: the picture that ``dsdb status`` prints."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from dsdbd.cluster.checks import (
    ABOUT_OTHERS,
    FAIL,
    PASS,
    WARN,
    count_shards,
    is_leaderless,
    no_leader,
    own_checks,
    shard_problems,
)
from dsdbd.cluster.messages import StatusAnswer
from dsdbd.decoding import decode_json
from dsdbd.errors import DSDBError
from dsdbd.meta import views
from dsdbd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dsdbd.cluster.node import Node
    from dsdbd.config import Config

_ASK_TIMEOUT_S = 1.0


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
        problems=tuple(check.message for check in own_checks(node) if check.name not in ABOUT_OTHERS),
        silent=() if node.detector is None else tuple(sorted(node.detector.silent())),
        kept_bytes=0 if node.handoff is None else node.handoff.counters["bytes"],
        copied_bytes=0 if node.transfer is None else node.transfer.copied_bytes(),
    )


def roles(config: Config) -> list[str]:
    """The roles a configuration gives its node."""
    return [role for role, enabled in (("meta", config.meta.enabled), ("data", config.data.enabled)) if enabled]


async def cluster_status(node: Node) -> dict[str, Any]:
    """The whole cluster as this node sees it now; asks every other node and waits at most a second for each."""
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
    unreached: list[tuple[str, str]] = []
    leader_addr = node.metadata.leader()
    newest = max([answer.applied_index for answer in answers if isinstance(answer, StatusAnswer)], default=0)
    contacts = _contacts(node)
    for (uuid, row), answer in zip(rows.items(), answers, strict=True):
        row["is_leader"] = row["tcp_addr"] == leader_addr and "meta" in row["roles"]
        if isinstance(answer, StatusAnswer):
            row.update(state="up", version=answer.version, applied_index=answer.applied_index)
            row.update(lag=newest - answer.applied_index, message="; ".join(answer.problems))
            row.update(kept_bytes=answer.kept_bytes, copied_bytes=answer.copied_bytes)
            # It has answered just now, whether or not the failure detector has looked at it yet.
            row["last_contact_s"] = None if uuid == node.uuid else 0.0
            problems += [f"{row['tcp_addr']}: {problem}" for problem in answer.problems]
            unreached += [(row["tcp_addr"], address) for address in answer.silent]
        else:
            row.update(state="down", message=answer, last_contact_s=contacts.get(row["tcp_addr"]))
            problems.append(f"{row['tcp_addr']} does not answer: {answer}")
    gone = {row["tcp_addr"] for row in rows.values() if row["state"] == "down"}
    problems += [f"{one} does not reach {other}" for one, other in unreached if other not in gone]
    problems += [check.message for check in own_checks(node) if not rows]
    down = {row["data_id"] for row in rows.values() if row["state"] == "down" and row["data_id"] is not None}
    shards = count_shards(state, down)
    problems += shard_problems(shards)
    leader = next((meta for meta in state.meta_nodes if meta.tcp_addr == leader_addr), None)
    if node.is_member and (leader is None or is_leaderless(node)):
        problems.append(no_leader(node))
    failed = leader is None or is_leaderless(node) or bool(shards.unavailable)
    return {
        "cluster_id": node.cluster_id,
        "version": VERSION,
        "status": FAIL if failed else WARN if problems else PASS,
        "problems": list(dict.fromkeys(problems)),
        "leader": None if leader is None else {"meta_id": leader.id, "tcp_addr": leader.tcp_addr},
        "term": _newest(answer.term for answer in answers if isinstance(answer, StatusAnswer)),
        "commit_index": _newest(answer.commit_index for answer in answers if isinstance(answer, StatusAnswer)),
        "nodes": sorted(rows.values(), key=lambda row: row["meta_id"] or row["data_id"] or 0),
        "shards": {
            "groups": shards.groups,
            "total": shards.total,
            "unavailable": shards.unavailable,
            "under_replicated": shards.short,
        },
        "moves": _moves(node, rows.values()),
        "handoff_bytes": sum(row["kept_bytes"] or 0 for row in rows.values()),
    }


def _newest(told: Iterable[int]) -> int | None:
    """The highest number that any node told of; nodes without a vote tell 0, None where no other answered."""
    return max(told, default=0) or None


def _contacts(node: Node) -> dict[str, float]:
    """Seconds since each other node last answered this one."""
    seen_s = {} if node.detector is None else node.detector.seen_s()
    return {address: round(age_s, 1) for address, age_s in seen_s.items()}


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
    known = {} if node.detector is None else node.detector.silent()
    if address in known:
        return known[address]
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            raw = await node.peers.call(address, "GET", "/cluster/state", timeout_s=_ASK_TIMEOUT_S)
        return decode_json(raw, StatusAnswer)
    except TimeoutError:
        return f"no answer within {_ASK_TIMEOUT_S:g}s"
    except (DSDBError, msgspec.MsgspecError) as error:
        return str(error)


def _moves(node: Node, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Copies that are ordered and not complete, what of them has come so far, and the data nodes that drain."""
    state = node.metadata.state
    return {
        "copies": sum(len(place.shard.incoming) for place in views.all_shards(state)),
        "copied_bytes": sum(row["copied_bytes"] or 0 for row in rows),
        "draining": [data.id for data in state.data_nodes if data.draining],
    }
