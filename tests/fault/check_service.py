"""Service: writes are taken whenever a majority is whole, counters only grow, memory and files stay bounded."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

from tests.fault.history import OK
from tests.fault.verdict import Verdict

_COPIES = 3
"""Most copies that a shard of a campaign has."""


def majority_times(
    history: Iterable[dict[str, Any]], nodes: Iterable[int], begin_s: float, end_s: float
) -> list[tuple[float, float]]:
    """Times in which most nodes ran and all links among those were whole. ``nodes``: the members at the beginning."""
    members = set(nodes)
    down: set[int] = set()
    cut: set[tuple[int, int]] = set()
    spans: list[tuple[float, float]] = []
    since_s: float | None = begin_s
    for record in history:
        if record["kind"] == "state":
            (down.discard if record["whole"] else down.add)(record["node"])
        elif record["kind"] == "link":
            (cut.discard if record["whole"] else cut.add)((record["source"], record["to"]))
        elif record["kind"] == "member":
            (members.add if record["there"] else members.discard)(record["node"])
        else:
            continue
        whole = _has_majority(members, down, cut)
        if whole and since_s is None:
            since_s = record["t"]
        elif not whole and since_s is not None:
            spans.append((since_s, record["t"]))
            since_s = None
    if since_s is not None:
        spans.append((since_s, end_s))
    return spans


def _has_majority(members: set[int], down: set[int], cut: set[tuple[int, int]]) -> bool:
    """More than half; of more than three all but one, as two that are away may be most owners of a shard."""
    up = sorted(members - down)
    needed = max(len(members) // 2 + 1, len(members) - 1 if len(members) > _COPIES else 0)
    return any(
        all((a, b) not in cut and (b, a) not in cut for a, b in combinations(group, 2))
        for group in combinations(up, needed)
    )


def check_available(history: list[dict[str, Any]], nodes: Iterable[int], limit_s: float) -> Verdict:
    """The longest time without an acknowledged write at quorum while a majority was whole."""
    verdict = Verdict("unavailable")
    acked = sorted(
        record["t"]
        for record in history
        if record["kind"] in ("probe", "write", "shared") and record["outcome"] == OK and record["level"] == "quorum"
    )
    worst_s, when_s = 0.0, 0.0
    if acked:
        for begin_s, end_s in majority_times(history, nodes, acked[0], acked[-1]):
            last_s = begin_s
            for now_s in [*(t for t in acked if begin_s < t < end_s), end_s]:
                if now_s - last_s > worst_s:
                    worst_s, when_s = now_s - last_s, last_s
                last_s = now_s
    else:
        verdict.problems.append("no write at quorum was ever acknowledged")
    if worst_s > limit_s:
        verdict.problems.append(
            f"no write at quorum for {worst_s:.1f} s from {when_s:.3f} on, though a majority was whole"
        )
    verdict.figures = {"worst_s": round(worst_s, 2), "from": round(when_s, 3)}
    return verdict


def check_counters(history: Iterable[dict[str, Any]]) -> Verdict:
    """No counter of a process goes down."""
    verdict = Verdict("counters went down")
    last: dict[tuple[int, int, str], float] = {}
    looks = 0
    for record in history:
        if record["kind"] != "sample":
            continue
        for name, value in record["counters"].items():
            looks += 1
            key = (record["node"], record["pid"], name)
            if value < last.get(key, value):
                verdict.problems.append(f"node {record['node']}: {name} went from {last[key]:g} to {value:g}")
            last[key] = value
    verdict.figures = {"looks": looks}
    return verdict


def check_bounded(history: Iterable[dict[str, Any]], memory_bytes: int, files: int) -> Verdict:
    """No process ever held more memory or open files than this."""
    verdict = Verdict("not bounded")
    most_memory = most_files = 0
    for record in history:
        if record["kind"] == "sample":
            most_memory, most_files = max(most_memory, record["memory"]), max(most_files, record["files"])
    if most_memory > memory_bytes:
        verdict.problems.append(f"a node held {most_memory >> 20} MiB of memory, of {memory_bytes >> 20} it may")
    if most_files > files:
        verdict.problems.append(f"a node held {most_files} files open, of {files} it may")
    verdict.figures = {"memory_mib": most_memory >> 20, "files": most_files}
    return verdict


def check_last(history: Iterable[dict[str, Any]], nodes: Iterable[int], each: int) -> Verdict:
    """After all faults are healed, the last operations succeed on every node."""
    verdict = Verdict("last operations failed")
    done: dict[int, int] = {}
    for record in history:
        if record["kind"] != "last":
            continue
        if record["outcome"] == OK:
            done[record["node"]] = done.get(record["node"], 0) + 1
        else:
            verdict.problems.append(f"node {record['node']}: {record['op']}: {record['why']}")
    verdict.problems += [
        f"node {number} did {done.get(number, 0)} of its {each} last operations"
        for number in nodes
        if done.get(number, 0) < each
    ]
    verdict.figures = {"operations": sum(done.values())}
    return verdict


def check_alive(history: Iterable[dict[str, Any]], allowed: frozenset[int] = frozenset()) -> Verdict:
    """No daemon ended by itself but with an exit code that is allowed, and each was ready after its fault."""
    verdict = Verdict("ended or not ready")
    exits = 0
    for record in history:
        if record["kind"] == "exit":
            exits += 1
            if record["code"] not in allowed:
                verdict.problems.append(f"node {record['node']} ended with {record['code']}: {record['log'][-400:]}")
        elif record["kind"] == "fault" and not record["ready"]:
            verdict.problems.append(f"nodes {record['nodes']} were not ready after {record['name']}")
        elif record["kind"] == "stuck":
            verdict.problems.append(f"shards do not move: {record['why']}")
        elif record["kind"] == "read" and record.get("invented") is not None:
            verdict.problems.append(f"a read on node {record['node']} gave {record['invented']}, which nobody had sent")
    verdict.figures = {"exits": exits}
    return verdict
