"""Points: nothing acknowledged is lost, nothing was invented, nothing deleted is back, and owners hold the same.

The checkers get what each node has on its disk (files.Content) and the history. They know the points (points.py) and
nothing of the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.fault.files import Content, digest
from tests.fault.history import OK
from tests.fault.points import Int64s, shared_cell, split_value, unique_time_ns
from tests.fault.verdict import Verdict

_STRONG = ("quorum", "all")
_FEW = 5


def acknowledged(history: Iterable[dict[str, Any]]) -> dict[int, Int64s]:
    """Numbers of points of ``unique`` acknowledged at quorum or all, by writer."""
    found: dict[int, set[tuple[int, int]]] = {}
    for record in history:
        if record["kind"] == "write" and record["outcome"] == OK and record["level"] in _STRONG:
            found.setdefault(record["writer"], set()).add((record["first"], record["rows"]))
    return {
        writer: np.concatenate([np.arange(first, first + rows, dtype=np.int64) for first, rows in sorted(batches)])
        for writer, batches in found.items()
    }


def check_lost(history: list[dict[str, Any]], nodes: Mapping[int, Content], *, everywhere: bool) -> Verdict:
    """Every acknowledged point is there: on every node where all own all, else on some node.

    ``lost`` points are on no node at all; ``missing`` counts those that a node lacks, for every such node.
    """
    verdict = Verdict("lost")
    acked = acknowledged(history)
    held = {number: _unique_values(content) for number, content in nodes.items()}
    places = held if everywhere else {0: np.concatenate([*held.values(), np.empty(0, np.int64)])}
    missing = 0
    for writer, numbers in sorted(acked.items()):
        values = (writer << 40) + numbers
        for number, there in places.items():
            gone = values[~np.isin(values, there)]
            missing += len(gone)
            if len(gone):
                where = f"node {number}" if number else "every node"
                first, last = int(gone[0] & ((1 << 40) - 1)), int(gone[-1] & ((1 << 40) - 1))
                verdict.problems.append(
                    f"{len(gone)} acknowledged points of writer {writer} are missing on {where}, "
                    f"numbers {first} to {last}"
                )
    union = np.concatenate([*held.values(), np.empty(0, np.int64)])
    lost = sum(int((~np.isin((writer << 40) + numbers, union)).sum()) for writer, numbers in acked.items())
    verdict.figures = {"acknowledged": sum(map(len, acked.values())), "lost": lost, "missing": missing}
    verdict.problems = verdict.problems[: 3 * _FEW]
    return verdict


def _unique_values(content: Content) -> Int64s:
    found = [table["value"].to_numpy() for (_, measurement, field), table in content.items() if measurement == "unique"]
    return np.concatenate([*found, np.empty(0, np.int64)])


def check_invented(
    base_ns: int, issued: Mapping[int, int], shared_issued: Mapping[int, int], nodes: Mapping[int, Content]
) -> Verdict:
    """Every point there was sent: by a writer that is, in its series, at its time, and not beyond what was sent."""
    verdict = Verdict("invented")
    bad = 0
    for number, content in nodes.items():
        for (shard, measurement, _), table in content.items():
            if measurement == "unique":
                wrong = _wrong_unique(base_ns, issued, table)
            elif measurement == "shared":
                wrong = _wrong_shared(base_ns, shared_issued, table)
            else:
                continue
            bad += int(wrong.sum())
            for row in np.flatnonzero(wrong)[:_FEW].tolist():
                shown = {name: table[name][row].as_py() for name in table.column_names}
                verdict.problems.append(f"node {number} has a point in shard {shard} that nobody sent: {shown}")
    verdict.figures = {"invented": bad}
    verdict.problems = verdict.problems[: 3 * _FEW]
    return verdict


def _wrong_unique(base_ns: int, issued: Mapping[int, int], table: pa.Table) -> Any:
    writers, numbers = split_value(table["value"].to_numpy())
    limits = np.array([issued.get(int(writer), 0) for writer in range(int(writers.max(initial=0)) + 1)], np.int64)
    beyond = (writers < 0) | (numbers >= limits[np.maximum(writers, 0)])
    times = table["time"].to_numpy() != unique_time_ns(base_ns, numbers)
    text = [
        f"s={number % 10},writer=w{writer}" for writer, number in zip(writers.tolist(), numbers.tolist(), strict=True)
    ]
    series = pc.not_equal(table["series"], pa.chunked_array([text], pa.string())).to_numpy()
    return beyond | times | series


def _wrong_shared(base_ns: int, issued: Mapping[int, int], table: pa.Table) -> Any:
    writers, numbers = split_value(table["value"].to_numpy())
    cells = np.asarray(shared_cell(numbers, writers))
    limits = np.array([issued.get(int(writer), 0) for writer in range(int(writers.max(initial=0)) + 1)], np.int64)
    beyond = (writers < 0) | (numbers >= limits[np.maximum(writers, 0)])
    times = table["time"].to_numpy() != base_ns + (cells // 20) * 3_600 * 10**9
    text = [f"s={cell % 20}" for cell in cells.tolist()]
    series = pc.not_equal(table["series"], pa.chunked_array([text], pa.string())).to_numpy()
    return beyond | times | series


def check_equal(nodes: Mapping[int, Content], owners: Mapping[int, Iterable[int]]) -> Verdict:
    """The owners of each shard have the same values with the same versions. ``owners``: nodes of each shard."""
    verdict = Verdict("diverged")
    different = 0
    for shard, holders in sorted(owners.items()):
        numbers = sorted(set(holders) & set(nodes))
        places = sorted({place for number in numbers for place in nodes[number] if place[0] == shard})
        for place in places:
            first = nodes[numbers[0]].get(place)
            for number in numbers[1:]:
                other = nodes[number].get(place)
                rows, example = _difference(first, other)
                if rows:
                    different += rows
                    verdict.problems.append(
                        f"{rows} values of {place[1]}.{place[2]} in shard {shard} differ between node {numbers[0]} and "
                        f"node {number}, such as {example}"
                    )
    verdict.figures = {"different": different, "shards": len(owners), "digests": _digests(nodes)}
    verdict.problems = verdict.problems[: 3 * _FEW]
    return verdict


def _digests(nodes: Mapping[int, Content]) -> dict[int, str]:
    return {number: digest(content) for number, content in sorted(nodes.items())}


def _difference(left: pa.Table | None, right: pa.Table | None) -> tuple[int, str]:
    """How many rows only one of the two has, and one of them."""
    if left is None and right is None:
        return 0, ""
    if left is None or right is None:
        some = cast("pa.Table", left if left is not None else right)
        return len(some), str(some.slice(0, 1).to_pylist())
    if left.equals(right):
        return 0, ""
    keys = left.column_names
    only_left = left.join(right, keys=keys, join_type="left anti")
    only_right = right.join(left, keys=keys, join_type="left anti")
    order = [("series", "ascending"), ("time", "ascending")]
    example = (
        f"{only_left.sort_by(order).slice(0, 1).to_pylist()} and {only_right.sort_by(order).slice(0, 1).to_pylist()}"
    )
    return len(only_left) + len(only_right), example


def check_superseded(history: list[dict[str, Any]], nodes: Mapping[int, Content], *, apart_s: float = 0.0) -> Verdict:
    """No cell holds a value that an acknowledged write, begun after that value's was acknowledged, has overwritten.

    ``apart_s``: how long after it, at least. A batch with an attempt of unknown outcome may arrive at any time later.
    """
    verdict = Verdict("superseded")
    begun: dict[tuple[int, int], float] = {}
    ended: dict[tuple[int, int], float] = {}
    rows = 0
    for record in history:
        if record["kind"] != "shared":
            continue
        batch = (record["writer"], record["first"])
        rows = record["rows"]
        begun[batch] = min(begun.get(batch, record["begun"]), record["begun"])
        end_s = record["t"] if record["outcome"] == OK else 0.0 if record["outcome"] == "refused" else float("inf")
        ended[batch] = max(ended.get(batch, 0.0), end_s)
    acked = {
        (record["writer"], record["first"]): record["begun"]
        for record in history
        if record["kind"] == "shared" and record["outcome"] == OK
    }
    newest: dict[tuple[int, str], float] = {}
    for (writer, first), begun_s in acked.items():
        for number in range(first, first + rows):
            for field in (("a",), ("b",), ("a", "b"))[number % 3]:
                cell = (int(shared_cell(number, writer)), field)
                newest[cell] = max(newest.get(cell, 0.0), begun_s)
    for number, content in nodes.items():
        for (_, measurement, field), table in content.items():
            if measurement != "shared":
                continue
            for value in table["value"].to_pylist():
                writer, serial = value >> 40, value & ((1 << 40) - 1)
                batch = (writer, serial - serial % rows if rows else serial)
                later_s = newest.get((int(shared_cell(serial, writer)), field), 0.0)
                if ended.get(batch, float("inf")) + apart_s < later_s:
                    verdict.problems.append(
                        f"node {number} holds value {value} of shared.{field}, acknowledged at {ended[batch]:.3f}, "
                        f"though a write begun at {later_s:.3f} was acknowledged, too"
                    )
    verdict.figures = {"superseded": len(verdict.problems)}
    verdict.problems = verdict.problems[:_FEW]
    return verdict


def check_deleted(history: list[dict[str, Any]], nodes: Mapping[int, Content]) -> Verdict:
    """No point of a series is there whose deletion was acknowledged."""
    verdict = Verdict("resurrected")
    gone = {f"s=d{record['series']}" for record in history if record["kind"] == "delete" and record["outcome"] == OK}
    back = 0
    for number, content in nodes.items():
        for (shard, measurement, _), table in content.items():
            if measurement != "doomed":
                continue
            found = table.filter(pc.is_in(table["series"], pa.array(sorted(gone), pa.string())))
            back += len(found)
            if len(found):
                example = found.slice(0, 1).to_pylist()
                verdict.problems.append(f"node {number} has {len(found)} deleted points in shard {shard}: {example}")
    verdict.figures = {"deletions": len(gone), "resurrected": back}
    verdict.problems = verdict.problems[: 3 * _FEW]
    return verdict
