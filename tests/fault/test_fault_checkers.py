"""The checkers against contents and histories made by hand: each accepts the good ones and finds what is broken."""

from __future__ import annotations

import json
import random
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fault.check_health import check_health, sights
from tests.fault.check_meta import Operation, check_declared, check_registers, why_not_linearizable
from tests.fault.check_points import check_deleted, check_equal, check_invented, check_lost, check_superseded
from tests.fault.check_service import (
    check_alive,
    check_available,
    check_bounded,
    check_counters,
    check_last,
    majority_times,
)
from tests.fault.files import Content, digest, read_content
from tests.fault.points import shared_cell, shared_lines, unique_lines
from tests.fault.schedule import KINDS, Fault, schedule

BASE_NS = 20_000 * 86_400 * 10**9
PLACE = (1, "unique", "value")


def content(lines: bytes, version: int = 7) -> Content:
    """Line protocol as a node would hold it, all in shard 1."""
    found: dict[tuple[int, str, str], list[tuple[str, int, int, int]]] = {}
    for line in lines.decode().splitlines():
        key, fields, time_ns = line.split(" ")
        measurement, *tags = key.split(",")
        for field in fields.split(","):
            name, _, value = field.partition("=")
            row = (",".join(sorted(tags)), int(time_ns), version, int(value.rstrip("i")))
            found.setdefault((1, measurement, name), []).append(row)
    return {place: table(rows) for place, rows in found.items()}


def table(rows: list[tuple[str, int, int, int]]) -> pa.Table:
    newest = {(series, time_ns): (series, time_ns, version, value) for series, time_ns, version, value in sorted(rows)}
    columns = list(zip(*[newest[key] for key in sorted(newest)], strict=True)) or [[], [], [], []]
    return pa.table(
        {"series": pa.array(columns[0], pa.string())}
        | {
            name: pa.array(column, pa.int64())
            for name, column in zip(("time", "version", "value"), columns[1:], strict=True)
        }
    )


def write(writer: int, first: int, rows: int, outcome: str = "ok", level: str = "quorum") -> dict[str, Any]:
    return {"kind": "write", "writer": writer, "first": first, "rows": rows, "outcome": outcome, "level": level}


def test_a_point_that_one_owner_lacks_is_found() -> None:
    whole, short = content(unique_lines(BASE_NS, 2, 0, 30)), content(unique_lines(BASE_NS, 2, 0, 29))
    history = [write(2, 0, 20), write(2, 20, 10, "unknown"), write(2, 20, 10, level="one")]
    assert check_lost(history, {1: whole, 2: short}, everywhere=True).ok, "the last ten were acknowledged at one only"
    history.append(write(2, 20, 10))
    verdict = check_lost(history, {1: whole, 2: short}, everywhere=True)
    assert verdict.figures == {"acknowledged": 30, "lost": 0, "missing": 1}
    assert "missing on node 2, numbers 29 to 29" in verdict.problems[0]
    assert check_lost(history, {1: whole, 2: short}, everywhere=False).ok
    assert check_lost(history, {1: short, 2: short}, everywhere=False).figures["lost"] == 1


def test_a_point_that_nobody_sent_is_found() -> None:
    nodes = {1: content(unique_lines(BASE_NS, 1, 0, 30) + b"\n" + shared_lines(BASE_NS, 100, 0, 30))}
    assert check_invented(BASE_NS, {1: 30}, {100: 30}, nodes).ok
    assert check_invented(BASE_NS, {1: 29}, {100: 30}, nodes).figures["invented"] == 1
    assert check_invented(BASE_NS, {1: 30}, {100: 29}, nodes).figures["invented"] == 2, "the last sets both fields"
    assert check_invented(BASE_NS + 1, {1: 30}, {100: 30}, nodes).figures["invented"] > 30, "times are wrong"
    moved = {PLACE: nodes[1][PLACE].set_column(0, "series", pa.array(["s=3,writer=w9"] * 30))}
    assert check_invented(BASE_NS, {1: 30}, {}, {1: moved}).figures["invented"] == 30


def test_owners_that_differ_in_a_value_a_version_or_a_row_are_found() -> None:
    whole = content(unique_lines(BASE_NS, 1, 0, 30))
    assert check_equal({1: whole, 2: dict(whole)}, {1: [1, 2]}).ok
    assert digest(whole) == digest(content(unique_lines(BASE_NS, 1, 0, 30)))
    for other, rows in (
        (content(unique_lines(BASE_NS, 1, 0, 29)), 1),
        (content(unique_lines(BASE_NS, 1, 0, 30), version=8), 60),
        ({}, 30),
    ):
        verdict = check_equal({1: whole, 2: other}, {1: [1, 2]})
        assert verdict.figures["different"] == rows
        assert digest(other) != digest(whole)
        assert check_equal({1: whole, 2: other}, {1: [1]}).ok, "who is no owner does not count"


def test_an_overwritten_value_that_is_still_there_is_found() -> None:
    cell = int(shared_cell(0, 100))
    later = next(number for number in range(3, 10_000, 3) if int(shared_cell(number, 101)) == cell)
    first = {"kind": "shared", "writer": 100, "first": 0, "rows": 1, "begun": 1.0, "t": 2.0, "outcome": "ok"}
    second = {"kind": "shared", "writer": 101, "first": later, "rows": 1, "begun": 3.0, "t": 4.0, "outcome": "ok"}
    old = {1: content(shared_lines(BASE_NS, 100, 0, 1))}
    new = {1: content(shared_lines(BASE_NS, 101, later, 1))}
    assert check_superseded([first, second], new).ok
    assert not check_superseded([first, second], old).ok
    assert check_superseded([first, second | {"begun": 1.5}], old).ok, "side by side either may win"
    assert check_superseded([first, second], old, apart_s=1.1).ok, "clocks were set meanwhile"
    assert not check_superseded([first, second], old, apart_s=0.9).ok
    unsure = first | {"outcome": "unknown"}
    assert check_superseded([unsure, first, second], old).ok, "the attempt without an answer may have come later"


def test_a_deleted_point_that_is_back_is_found() -> None:
    nodes = {1: content(b"doomed,s=d1 value=1i 5\ndoomed,s=d2 value=1i 5")}
    gone = {"kind": "delete", "series": 1, "outcome": "unknown"}
    assert check_deleted([gone], nodes).ok
    assert check_deleted([gone | {"outcome": "ok"}], nodes).figures["resurrected"] == 1
    assert check_deleted([gone | {"outcome": "ok", "series": 3}], nodes).ok


# --- metadata


def explained(operations: list[Operation]) -> bool:
    """Whether some order explains a register, by trying all orders and all choices of uncertain writes."""
    certain = [one for one in operations if one[3] < float("inf")]
    unsure = [one for one in operations if one[3] == float("inf")]
    for chosen in range(1 << len(unsure)):
        ops = certain + [one for number, one in enumerate(unsure) if chosen >> number & 1]
        if any(_follows(order) for order in permutations(ops)):
            return True
    return False


def _follows(order: tuple[Operation, ...]) -> bool:
    held = 0
    for number, (kind, value, begun_s, _) in enumerate(order):
        if any(later[3] < begun_s for later in order[number + 1 :]):
            return False
        if kind == "read" and value != held:
            return False
        held = value if kind == "write" else held
    return True


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    operations: list[Operation] = []
    for number in range(draw(st.integers(0, 6))):
        # Times that differ: two calls at the very same time are ordered by no clock.
        begun_s = draw(st.integers(0, 12)) + number / 100
        ended_s = begun_s + draw(st.integers(0, 8)) + 0.005
        if draw(st.booleans()):
            lost = draw(st.integers(0, 4)) == 0
            operations.append(("write", number + 1, begun_s, float("inf") if lost else ended_s))
        else:
            operations.append(("read", draw(st.integers(0, 6)), begun_s, ended_s))
    return operations


@given(histories())
def test_a_register_is_judged_as_by_trying_all_orders(operations: list[Operation]) -> None:
    assert (why_not_linearizable(operations) == "") == explained(operations)


def test_a_stale_read_is_found() -> None:
    def did(op: str, value: int, begun: float, t: float, outcome: str = "ok") -> dict[str, Any]:
        return {"kind": "register", "key": "r", "op": op, "value": value, "begun": begun, "t": t, "outcome": outcome}

    history = [did("write", 1001, 1, 2), did("read", 1001, 3, 4), did("write", 1002, 5, 6), did("read", 1002, 7, 8)]
    assert check_registers(history).ok
    assert check_registers(history).figures == {"keys": 1, "operations": 4}
    assert not check_registers([*history, did("read", 1001, 9, 10)]).ok
    assert not check_registers([*history, did("read", 0, 9, 10)]).ok
    assert check_registers([*history, did("read", 1003, 9, 10), did("write", 1003, 1, 2, "unknown")]).ok
    assert not check_registers([*history, did("read", 1003, 9, 10), did("write", 1003, 1, 2, "refused")]).ok


def test_databases_that_went_or_came_back_are_found() -> None:
    def did(name: str, op: str, outcome: str) -> dict[str, Any]:
        return {"kind": "declare", "name": name, "op": op, "outcome": outcome}

    history = [
        did("a", "create", "ok"),
        did("b", "create", "ok"),
        did("b", "drop", "ok"),
        did("c", "create", "unknown"),
    ]
    history += [did("d", "create", "ok"), did("d", "drop", "unknown")]
    assert check_declared(history, {1: ["a"], 2: ["a", "c", "d"]}).ok
    assert "lacks" in check_declared(history, {1: ["a"], 2: []}).problems[0]
    assert "dropped" in check_declared(history, {1: ["a"], 2: ["a", "b"]}).problems[0]


# --- service


def probe(t: float, outcome: str = "ok") -> dict[str, Any]:
    return {"kind": "probe", "level": "quorum", "outcome": outcome, "t": t}


def state(t: float, node: int, whole: bool) -> dict[str, Any]:
    return {"kind": "state", "t": t, "node": node, "whole": whole}


def link(t: float, source: int, to: int, whole: bool) -> dict[str, Any]:
    return {"kind": "link", "t": t, "source": source, "to": to, "whole": whole}


def test_only_time_with_a_whole_majority_counts_as_unavailable() -> None:
    calm = [probe(float(t)) for t in range(11)]
    assert check_available(calm, [1, 2, 3], 1.5).figures["worst_s"] == 1.0
    gap = [one for one in calm if not 3 < one["t"] < 8]
    assert check_available(gap, [1, 2, 3], 1.5).figures["worst_s"] == 5.0
    assert not check_available(gap, [1, 2, 3], 1.5).ok
    one_down = sorted([*gap, state(3.5, 1, False), state(7.5, 1, True)], key=lambda one: one["t"])
    assert not check_available(one_down, [1, 2, 3], 1.5).ok, "two of three are a majority"
    two_down = sorted([*one_down, state(3.4, 2, False), state(7.6, 2, True)], key=lambda one: one["t"])
    assert check_available(two_down, [1, 2, 3], 1.5).figures["worst_s"] == 1.0
    assert not check_available([probe(1.0, "unknown")], [1, 2, 3], 1.5).ok, "nothing was ever acknowledged"


def test_links_that_are_cut_one_way_are_no_majority() -> None:
    history = [link(2, 1, 2, False), link(3, 3, 2, False), link(4, 1, 3, False), link(6, 1, 3, True)]
    assert majority_times(history, [1, 2, 3], 0, 10) == [(0, 4), (6, 10)]
    two_of_five = [state(1, 4, False), state(2, 5, False)]
    assert majority_times(two_of_five, range(1, 6), 0, 9) == [(0, 2)], "they may be two of the three owners of a shard"
    left = [state(1, 3, False), state(2, 2, False), {"kind": "member", "t": 4, "node": 3, "there": False}]
    assert majority_times([*left, state(5, 2, True)], [1, 2, 3], 0, 9) == [(0, 2), (5, 9)]


def test_a_counter_that_goes_down_is_found() -> None:
    def sample(pid: int, value: int) -> dict[str, Any]:
        return {
            "kind": "sample",
            "node": 1,
            "pid": pid,
            "counters": {"write.req": value},
            "memory": 1 << 20,
            "files": 9,
        }

    assert check_counters([sample(1, 5), sample(1, 5), sample(2, 0)]).ok
    assert not check_counters([sample(1, 5), sample(1, 4)]).ok
    assert check_bounded([sample(1, 5)], 1 << 20, 9).ok
    assert not check_bounded([sample(1, 5)], (1 << 20) - 1, 9).ok
    assert not check_bounded([sample(1, 5)], 1 << 20, 8).ok


def test_a_node_that_does_not_do_its_last_operations_is_found() -> None:
    def last(node: int, outcome: str = "ok") -> dict[str, Any]:
        return {"kind": "last", "node": node, "op": "write", "outcome": outcome, "why": "503"}

    assert check_last([last(1), last(2)], [1, 2], 1).ok
    assert not check_last([last(1)], [1, 2], 1).ok
    assert not check_last([last(1), last(2, "unknown")], [1, 2], 1).ok


def test_a_daemon_that_ends_is_not_ready_or_invents_a_read_is_found() -> None:
    assert check_alive([{"kind": "exit", "node": 1, "code": 10, "log": ""}], frozenset({10})).ok
    assert not check_alive([{"kind": "exit", "node": 1, "code": -6, "log": ""}], frozenset({10})).ok
    assert not check_alive([{"kind": "fault", "name": "kill", "nodes": [1], "ready": False}]).ok
    assert not check_alive([{"kind": "read", "node": 1, "invented": 5}]).ok
    assert not check_alive([{"kind": "stuck", "why": "drain is not carried out"}]).ok
    assert check_alive([{"kind": "read", "node": 1, "invented": None}]).ok


# --- health


def page(t: float, node: int, kind: str, *facts: str) -> dict[str, Any]:
    return {"kind": "page", "t": t, "node": node, "page": kind, "facts": sorted(facts)}


def hit(name: str, begun: float, healed: float, nodes: list[int], touched: list[int] | None = None) -> dict[str, Any]:
    times = {"begun": begun, "struck": begun, "healed": healed}
    return {"kind": "fault", "name": name, "nodes": nodes, "touched": touched or nodes, "ready": True, **times}


QUIET = [page(0, node, kind) for node in (1, 2, 3) for kind in ("health", "ready", "status")]
DOWN = "peers: 10.77.0.3:8088 is down: it does not answer, for Ns"


def found(history: list[dict[str, Any]], name: str) -> tuple[float | None, float | None, str]:
    one = next(one for one in sights([*QUIET, *history], [1, 2, 3]) if one.page == name)
    return one.seen_s, one.cleared_s, one.why_not


def test_every_node_that_is_whole_has_to_name_a_fault() -> None:
    pause = hit("pause", 10, 14, [3])
    both = [page(11.5, 1, "health", DOWN), page(11.8, 2, "health", DOWN), page(14.4, 1, "health")]
    said = [pause, *both, page(15.5, 2, "health", "handoff: N bytes of writes are kept for data node 3")]
    assert found(said, "health") == (1.8, 1.5, "")
    assert found([pause, both[0]], "health") == (None, None, ""), "the other says nothing"
    other = [page(11.5, node, "health", DOWN.replace(".3:", ".2:")) for node in (1, 2)]
    assert found([pause, *other], "health") == (None, None, ""), "the wrong node is named"
    before = [page(9, 1, "health", DOWN), page(9, 2, "health", DOWN)]
    assert found([pause, *before], "health")[2] == "shown before"
    assert found([pause, before[0], both[1], page(14, 2, "health")], "health") == (1.8, 0.0, ""), "node 2 tells"


def test_what_another_fault_hides_is_not_judged() -> None:
    pause = hit("pause", 10, 14, [3])
    assert found([pause, hit("kill", 12, 13, [1])], "health") == (None, None, ""), "node 2 is whole"
    busy = [hit("kill", 12, 13, [1]), hit("isolate", 12, 13, [2])]
    assert found([pause, *busy], "health")[2] == "no other node is whole"
    assert found([pause, busy[0]], "ready")[2] == "another fault may take the leader away"
    assert found([pause, hit("kill", 13, 16, [3])], "health")[2] == "another fault of the same node"
    # What has come meanwhile is asked, what has gone is not.
    fresh = [
        {"kind": "member", "t": 9, "node": 1, "there": False},
        {"kind": "member", "t": 9, "node": 4, "there": True},
    ]
    told = [page(9.5, 4, "health"), page(11, 4, "health", DOWN), page(14, 4, "health")]
    assert found([pause, hit("kill", 12, 13, [2]), *fresh, *told], "health") == (1.0, 0.0, "")
    # It stands until the next fault of the node that says it, which is too soon to tell.
    stands = [pause, page(11, 1, "health", DOWN), page(11, 2, "health", DOWN), hit("loss", 16, 17, [1, 2], [1, 2])]
    verdict = check_health([*QUIET, *stands], [1, 2, 3], 2.0, 5.0)
    assert verdict.figures["faults"]["pause health"] == {
        "judged": 1, "short": 0, "unjudged": 0, "late": 0, "stays": 0, "seen": [1.0], "cleared": []
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "page_name", "node", "fact"),
    [
        ("disk_full", "health", 3, "disk: no space is left for the log"),
        ("disk_full", "health", 3, "silent"),
        ("disk_stall", "status", 1, "10.77.0.3:8088: the disk of /d has not answered for Ns; writes wait for it"),
        ("clock", "health", 1, "clock: the clock of 10.77.0.3:8088 is Ns ahead of this node's"),
        ("clock", "health", 3, "clock: this node's clock is Ns behind that of 2 of 2 other nodes"),
        ("pause", "ready", 3, "silent"),
        ("pause", "status", 1, "down: 10.77.0.3:8088"),
        ("isolate", "health", 3, "partition: this node reaches 0 of 2 other nodes: it is cut off, or they are down"),
        ("isolate", "status", 3, "10.77.0.3:8088 does not reach 10.77.0.1:8088"),
        ("delay", "health", 1, "links: 10.77.0.3:8088 answers slowly"),
        ("kill", "status", 1, "10.77.0.3:8088: the storage is still opening: 3 shards found in /n3/disk/data"),
        ("pause", "health", 1, "moves: shard 1 of 'f0' cannot be copied to this node yet: 10.77.0.3:8088 is down: x"),
    ],
)
def test_a_fault_counts_as_named_where_it_is_named(kind: str, page_name: str, node: int, fact: str) -> None:
    one_is_enough = kind in ("clock", "delay")
    speakers = [node] if one_is_enough or node == 3 else [1, 2]
    said = [page(11, speaker, page_name, fact) for speaker in speakers]
    if kind == "isolate":
        said += [page(11, speaker, page_name, DOWN, "down: 10.77.0.3:8088") for speaker in (1, 2)]
    seen_s = found([hit(kind, 10, 14, [3]), *said], page_name)[0]
    assert seen_s == 1.0
    unlike = [page(11, speaker, page_name, "handoff: N bytes of writes are kept for data node 3") for speaker in (1, 2)]
    assert found([hit(kind, 10, 14, [3]), *unlike], page_name)[0] is None


def test_what_is_said_of_another_fault_does_not_keep_the_verdict_of_one_that_is_healed() -> None:
    pause, told = hit("pause", 10, 14, [3]), "10.77.0.3:8088 does not answer: no answer within Ns"
    seen = [page(11, node, "status", told) for node in (1, 2)] + [page(15, 2, "status")]
    cut = hit("isolate", 16, 20, [2])
    about_both = "10.77.0.3:8088 does not reach 10.77.0.2:8088"
    begun = [page(15, 1, "status"), page(17, 1, "status", about_both), page(24, 1, "status")]
    assert found([pause, cut, *seen, *begun], "status")[1] == 1.0, "node 2 is cut off, as its own verdict says"
    assert found([pause, *seen, *begun], "status")[1] == 10.0, "and without that it is the verdict of node 3"
    leaderless = "10.77.0.3:8088: the meta nodes have no leader: 2 of 3 answer, missing: 10.77.0.9:8088"
    begun[1] = page(17, 1, "status", leaderless)
    assert found([pause, cut, *seen, *begun], "status")[1] == 1.0
    assert found([pause, *seen, *begun], "status")[1] == 10.0
    assert found([pause, hit("clock", 16, 20, [2]), *seen, *begun], "status")[1] == 10.0, "a clock takes no leader"
    begun[1] = page(17, 1, "status", told)
    assert found([pause, cut, *seen, *begun], "status")[1] == 10.0, "this is about node 3 alone"
    # Long after the other fault nothing is its own any more.
    early = hit("isolate", 12, 13, [2])
    begun[1] = page(19, 1, "status", about_both)
    assert found([pause, early, *seen, *begun], "status")[1] == 10.0


@pytest.mark.parametrize(
    ("kind", "fact"),
    [
        ("disk_full", "10.77.0.3:8088: the storage is still opening: 3 shards found in /n3/disk/data"),
        (
            "clock",
            "10.77.0.3:8088: the versions of writes are Ns ahead of this machine's clock: its clock was set back",
        ),
        ("pause", "10.77.0.3:8088: shard 1 of 'f0' cannot be copied to this node yet: 10.77.0.9:8088 is down"),
    ],
)
def test_what_names_something_else_is_no_verdict(kind: str, fact: str) -> None:
    said = [page(11, node, "status", fact) for node in (1, 2)]
    assert found([hit(kind, 10, 14, [3]), *said], "status")[0] is None


def test_a_verdict_that_is_late_stays_or_never_comes_is_found() -> None:
    def judged(*said: dict[str, Any]) -> list[str]:
        return check_health([*QUIET, hit("disk_full", 10, 14, [3]), *said], [1, 2, 3], 2.0, 5.0).problems

    disk = "disk: no space is left"
    named = "10.77.0.3:8088: no space is left"
    elsewhere = [page(11, 1, "status", named), page(11, 2, "status", named), page(11, 3, "ready", "not ready: full")]
    gone = [page(15, 1, "status"), page(15, 2, "status"), page(15, 3, "ready")]
    assert judged(*elsewhere, page(11, 3, "health", disk), *gone, page(15, 3, "health")) == []
    assert "seen after 3 s" in judged(*elsewhere, page(13, 3, "health", disk), *gone, page(15, 3, "health"))[0]
    assert "seen never" in judged(*elsewhere, *gone)[0]
    assert "cleared after 7 s" in judged(*elsewhere, page(11, 3, "health", disk), *gone, page(21, 3, "health"))[0]
    assert "and still" in judged(*elsewhere, page(11, 3, "health", disk), *gone)[0]


def test_a_fault_that_is_over_before_it_has_to_be_named_may_be_named_late_and_not_for_long() -> None:
    loss, lost = hit("loss", 10, 11, [3]), "network: 10.77.0.3:8088: packets are lost on the way"

    def judged(cleared_s: float) -> list[str]:
        said = [page(13, 1, "health", lost), page(cleared_s, 1, "health")]
        status = [page(11, 1, "status", lost), page(12, 1, "status")]
        return check_health([*QUIET, loss, *said, *status], [1, 2, 3], 2.0, 5.0).problems

    assert judged(15.0) == []
    assert judged(17.0) == ["loss at 10.000 for 1 s on /health: cleared after 6 s"]


# --- files and the schedule


def store(path: Path, measurement: str, rows: dict[str, list[Any]], roles: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"format": 2, "measurement": measurement, "columns": roles})
    made = pa.table(rows)
    with pq.ParquetWriter(path, made.schema) as writer:
        writer.write_table(made)
        writer.add_key_value_metadata({"dsdb": json.dumps({"about": about, "crc32": 0})})


@pytest.mark.parametrize("negated", [False, True])
def test_files_are_united_by_version_and_deleted_rows_left_out(tmp_path: Path, negated: bool) -> None:
    roles = [
        ["host", "tag", "host"],
        ["time", "time", "time"],
        ["_version", "version", "_version"],
        ["v", "field", "v"],
    ]
    shard = tmp_path / "d" / "autogen" / "5"
    times = np.array([10, 20, 30], "datetime64[ns]")
    first = {"host": ["a", "a", "b"], "time": times, "_version": [3, 3, 3], "v": [1, None, 3]}
    second = {"host": ["a", "a", "b"], "time": times, "_version": [2, 4, 9], "v": [100, 200, None]}
    store(shard / "m" / "00000001.parquet", "m", first, roles)
    store(shard / "m" / "00000002.parquet", "m", second, roles)
    found = read_content(tmp_path, "d")
    assert found[5, "m", "v"].to_pylist() == [
        {"series": "host=a", "time": 10, "version": 3, "value": 1},
        {"series": "host=a", "time": 20, "version": 4, "value": 200},
        {"series": "host=b", "time": 30, "version": 3, "value": 3},
    ]
    # Rows below version 4 of one host, times 10 to 29; the row of version 2 comes to light nowhere.
    marks = {"format": 1, "tombstones": [["m", ["equals", "host", "b" if negated else "a", negated], 10, 29, 4, []]]}
    (shard / "tombstones.json").write_text(json.dumps(marks))
    assert [row["value"] for row in read_content(tmp_path, "d")[5, "m", "v"].to_pylist()] == [200, 3]


def test_a_seed_gives_one_schedule_with_every_kind_in_it() -> None:
    def first(seed: int, count: int) -> list[Fault]:
        faults = schedule(seed)
        return [next(faults) for _ in range(count)]

    assert first(3, 100) == first(3, 100)
    assert first(3, 100) != first(4, 100)
    for seed in random.Random(1).sample(range(10_000), 20):
        assert {fault.kind for fault in first(seed, len(KINDS))} == set(KINDS)
