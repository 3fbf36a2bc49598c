"""Metadata: registers are linearizable, and what was created or dropped is so on every node for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from tests.fault.history import OK, REFUSED
from tests.fault.verdict import Verdict

_EVER = float("inf")
Operation = tuple[str, int, float, float]
"""``read`` or ``write``, value, time of the call, time of the answer (infinite where there was none)."""


def why_not_linearizable(operations: Iterable[Operation], initial: int = 0) -> str:
    """Why no order explains a register whose written values are all different; empty where one does.

    The zones of Gibbons and Korach (Testing shared memories, 1997): a value's operations span a zone from their least
    end to their greatest begin. Zones that run forward must not overlap, and none that runs backward may lie in one.
    """
    writes: dict[int, tuple[float, float]] = {initial: (-_EVER, -_EVER)}
    least_end: dict[int, float] = {initial: -_EVER}
    greatest_begin: dict[int, float] = {initial: -_EVER}
    known = list(operations)
    for kind, value, begun_s, ended_s in known:
        if kind == "write":
            if value in writes:
                raise ValueError(f"value {value} was written twice; the check needs unique values")
            writes[value] = (begun_s, ended_s)
            least_end[value], greatest_begin[value] = ended_s, begun_s
    for kind, value, begun_s, ended_s in known:
        if kind != "read":
            continue
        if value not in writes:
            return f"value {value} was read and never written"
        if ended_s < writes[value][0]:
            return f"value {value} was read before its write began"
        least_end[value] = min(least_end[value], ended_s)
        greatest_begin[value] = max(greatest_begin[value], begun_s)
    # A write without an answer whose value nobody read need not have happened.
    values = [value for value in writes if least_end[value] < _EVER]
    forward = sorted((least_end[v], greatest_begin[v], v) for v in values if least_end[v] < greatest_begin[v])
    for (_, end_s, value), (begin_s, _, other) in pairwise(forward):
        if begin_s < end_s:
            return f"values {value} and {other} were both read or written before and after the other"
    for value in values:
        low_s, high_s = greatest_begin[value], least_end[value]
        if low_s > high_s:
            continue
        for begin_s, end_s, other in forward:
            if begin_s < low_s and high_s < end_s:
                return f"value {value} came and went while {other} was the register's value all the time"
    return ""


def check_registers(history: Iterable[dict[str, Any]]) -> Verdict:
    """Every register, by its key. A request without a certain answer may have taken effect at any later time."""
    verdict = Verdict("not linearizable")
    keys: dict[str, list[Operation]] = {}
    done = 0
    for record in history:
        if record["kind"] != "register" or record["outcome"] == REFUSED:
            continue
        certain = record["outcome"] == OK
        if record["op"] == "read" and not certain:
            continue
        done += certain
        ended_s = record["t"] if certain else _EVER
        keys.setdefault(record["key"], []).append((record["op"], record["value"], record["begun"], ended_s))
    for key, operations in sorted(keys.items()):
        why = why_not_linearizable(operations)
        if why:
            verdict.problems.append(f"register {key} ({len(operations)} operations): {why}")
    verdict.figures = {"keys": len(keys), "operations": done}
    return verdict


def check_declared(history: list[dict[str, Any]], databases: Mapping[int, Iterable[str]]) -> Verdict:
    """Databases whose creation was acknowledged are on every node, and those whose drop was are on none.

    ``databases``: the names each node shows at the end. Each name is created, and perhaps then dropped, once.
    """
    verdict = Verdict("metadata lost")
    outcomes = {(record["name"], record["op"]): record["outcome"] for record in history if record["kind"] == "declare"}
    names = {name for name, _ in outcomes}
    there, gone = set(), set()
    for name in names:
        dropped = outcomes.get((name, "drop"))
        created = outcomes.get((name, "create"))
        if dropped == OK and created == OK:
            gone.add(name)
        elif dropped in (None, REFUSED) and created == OK:
            there.add(name)
    for number, shown in sorted(databases.items()):
        has = set(shown)
        if there - has:
            verdict.problems.append(f"node {number} lacks databases that were created: {sorted(there - has)[:5]}")
        if gone & has:
            verdict.problems.append(f"node {number} has databases that were dropped: {sorted(gone & has)[:5]}")
    verdict.figures = {"databases": len(names), "certain": len(there) + len(gone)}
    return verdict
