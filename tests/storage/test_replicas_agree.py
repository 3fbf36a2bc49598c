"""Replicas that got the same writes and deletions, in any order and number of times, hold the same and say so.

The model is a dictionary: what any sequence leaves is a set of values with versions, less what deletions hide.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.columns import Batch, Points, decode_batch, encode_batch
from dsdbd.model.digest import CELLS
from dsdbd.model.predicate import TagEquals, TagMatches, matches
from dsdbd.storage import Replica, Shard, StoreSettings, contents, exporting
from dsdbd.storage.tombstones import Tombstone
from tests.examples import examples
from tests.storage.storage_model import KEY, MAX_NS, MIN_NS, Row, make_points, rows_of, scan, series_of

END_NS = 64
Cell = tuple[Any, int, str]
"""Series, time, field."""
Content = dict[Cell, tuple[int, Any]]
"""Version and value of each cell."""


@dataclass(frozen=True)
class Write:
    """Rows with their versions; ``common``: one for all, which the batch has."""

    rows: tuple[tuple[int, Row], ...]
    common: bool


Step = Write | Tombstone


def value_of(version: int, host: str, time_ns: int) -> dict[str, Any]:
    """Values are made of their version: equal versions of a cell are one and the same write."""
    number = version * 7 + time_ns + len(host)
    return {"f": number / 2, "i": number, "s": f"v{number}" * (number % 4), "b": number % 2 == 0}


@st.composite
def writes(draw: st.DrawFn) -> Write:
    common = draw(st.booleans())
    version = draw(st.integers(1, 12))
    rows = []
    for host, time_ns, names in draw(
        st.lists(
            st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(-2, 70), st.sets(st.sampled_from("fisb"))),
            min_size=1,
            max_size=12,
        )
    ):
        at = version if common else draw(st.integers(1, 12))
        values = value_of(at, host, time_ns)
        rows.append((at, (host, time_ns, {name: values[name] for name in sorted(names or {"f"})})))
    return Write(tuple(rows), common)


deletions = st.builds(
    lambda predicate, low, width, version: Tombstone("m", predicate, low, low + width, version),
    st.sampled_from([None, TagEquals("host", "a"), TagMatches("zone", "z[bc]"), TagEquals("host", "")]),
    st.integers(-3, 60),
    st.integers(0, 30),
    st.integers(1, 12),
) | st.builds(lambda version: Tombstone("m", None, MIN_NS, MAX_NS, version), st.integers(1, 8))
steps = st.lists(st.one_of(writes(), writes(), deletions), min_size=1, max_size=7)
chores = st.lists(st.sampled_from(["", "", "flush", "merge", "purge", "reopen", "seal"]), min_size=16, max_size=16)


def content_of(taken: Iterable[Step]) -> Content:
    """What the steps leave, in whatever order."""
    done = list(taken)
    found: Content = {}
    for step in done:
        for version, (host, time_ns, values) in step.rows if isinstance(step, Write) else ():
            for name, value in values.items():
                cell = series_of(host), time_ns, name
                if cell not in found or found[cell][0] < version:
                    found[cell] = version, value
    gone = [step for step in done if isinstance(step, Tombstone)]
    return {cell: held for cell, held in found.items() if not any(hides(one, cell, held[0]) for one in gone)}


def hides(one: Tombstone, cell: Cell, version: int) -> bool:
    inside = version < one.version and one.min_ns <= cell[1] <= one.max_ns
    return inside and (one.predicate is None or matches(one.predicate, cell[0]))


def rows_in(content: Content) -> list[tuple]:
    """As a scan gives them."""
    found: dict[tuple, dict[str, Any]] = {}
    for (series, time_ns, name), (_, value) in content.items():
        found.setdefault((series, time_ns), {})[name] = value
    return sorted(((*key, values) for key, values in found.items()), key=lambda row: (row[0].key(), row[1]))


class Copy:
    """One replica: a shard by itself, which is opened anew when it should be."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.open()

    def open(self) -> None:
        self.shard = Shard(KEY, self.home, StoreSettings(merge_files=2), pytest.fail)
        self.replica = Replica(self.shard, 0, END_NS)

    def put(self, batch: Batch) -> None:
        # What travels between nodes and lies in the log.
        batch = decode_batch(encode_batch(batch))
        self.shard.check_types(batch)
        self.shard.insert(batch, 1, 0.0)

    def take(self, step: Step) -> None:
        if isinstance(step, Tombstone):
            self.shard.delete(step)
            self.shard.settle({step.measurement})
            return
        points = make_points([row for _, row in step.rows])
        versions = np.array([version for version, _ in step.rows], np.int64)
        self.put(Batch(int(versions.max()), (points if step.common else replace(points, versions=versions),)))

    def chore(self, name: str) -> None:
        if name == "reopen":
            self.shard.flush()
            self.open()
        elif name == "purge":
            self.shard.purge(1 << 62)
        elif name:
            getattr(self.shard, name)()

    def content(self, **chosen: Any) -> Content:
        """By the rows that leave for other replicas; each value does so once."""
        found: Content = {}
        for points in self.replica.export("m", **chosen):
            assert points.versions is not None
            for (series, time_ns, values), version in zip(rows_of(points), points.versions.tolist(), strict=True):
                for name, value in values.items():
                    assert (series, time_ns, name) not in found
                    found[series, time_ns, name] = version, value
        return found


@contextlib.contextmanager
def pieces_of(rows: int) -> Iterator[None]:
    """Everything is read and sent in pieces of so many rows, about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "_LEAST_ROWS", 1)
        patch.setattr(contents, "_PIECE_ROWS", rows)
        patch.setattr(contents, "_TEXT_ROWS", rows)
        patch.setattr(exporting, "PIECE_BYTES", 40 * rows)
        yield


def cells_of(copy: Copy, **chosen: Any) -> list[int]:
    grid = copy.replica.digests(["m"], **chosen).get("m")
    return [0] * CELLS if grid is None else grid.cells.tolist()


@settings(deadline=None, max_examples=examples(25))
@given(steps, st.sampled_from([1, 3, 65_536]), st.data())
def test_any_order_and_number_of_arrivals_leaves_the_same(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[Step], piece_rows: int, data: st.DataObject
) -> None:
    home = tmp_path_factory.mktemp("replicas")
    with pieces_of(piece_rows):
        leaves_the_same(home, sequence, data)
    shutil.rmtree(home)


def leaves_the_same(home: Path, sequence: list[Step], data: st.DataObject) -> None:
    expected = content_of(sequence)
    copies = []
    for name in "ab":
        copy = Copy(home / name)
        copies.append(copy)
        arrivals = data.draw(st.permutations([*sequence, *sequence[: data.draw(st.integers(0, len(sequence)))]]))
        for step, chore in itertools.zip_longest(arrivals, data.draw(chores)[: len(arrivals)]):
            copy.take(step)
            copy.chore(chore)
            if chore:
                # What is remembered of this state must not be taken for the next one.
                copy.replica.digests()
        assert scan(copy.shard) == rows_in(expected)
        assert copy.content() == expected
    first, second = (copy.replica.digests() for copy in copies)
    assert {key: grid.total for key, grid in first.items()} == {key: grid.total for key, grid in second.items()}
    assert cells_of(copies[0]) == cells_of(copies[1])
    assert set(first) == ({"m"} if expected else set())
    low = data.draw(st.integers(-3, 70))
    window = {"min_ns": low, "max_ns": low + data.draw(st.integers(0, 40))}
    part = {cell: held for cell, held in expected.items() if window["min_ns"] <= cell[1] <= window["max_ns"]}
    assert cells_of(copies[0], **window) == cells_of(copies[1], **window)
    assert copies[0].content(**window) == part
    assert (cells_of(copies[0], **window) == cells_of(copies[0])) == (part == expected)


def absorb(copy: Copy, points: Points) -> Points | None:
    lacking = copy.replica.lacking(points)
    if lacking is not None:
        assert lacking.versions is not None
        copy.put(Batch(int(lacking.versions.max()), (lacking,)))
    return lacking


def lacked(theirs: Content, mine: Content, deleted: Sequence[Tombstone]) -> Content:
    return {
        cell: held
        for cell, held in theirs.items()
        if (cell not in mine or mine[cell][0] < held[0]) and not any(hides(one, cell, held[0]) for one in deleted)
    }


@settings(deadline=None, max_examples=examples(25))
@given(steps, st.sampled_from([1, 3, 65_536]), st.data())
def test_replicas_that_missed_some_become_equal(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[Step], piece_rows: int, data: st.DataObject
) -> None:
    home = tmp_path_factory.mktemp("replicas")
    with pieces_of(piece_rows):
        become_equal(home, sequence, data)
    shutil.rmtree(home)


def become_equal(home: Path, sequence: list[Step], data: st.DataObject) -> None:
    copies = [Copy(home / name) for name in "ab"]
    for number, step in enumerate(sequence):
        for copy in copies:
            # Deletions are exchanged by themselves, before rows are.
            if isinstance(step, Tombstone) or data.draw(st.booleans()):
                copy.take(step)
                copy.chore(data.draw(chores)[number])
    first, second = (copy.content() for copy in copies)
    union = {**first, **lacked(second, first, ())}
    assert (cells_of(copies[0]) == cells_of(copies[1])) == (first == second)
    deleted = [step for step in sequence if isinstance(step, Tombstone)]
    differing = [at for at, (one, other) in enumerate(zip(*map(cells_of, copies), strict=True)) if one != other]
    for copy, other in (copies, copies[::-1]):
        mine = copy.content()
        theirs = other.content(cells=differing)
        missing = lacked(theirs, mine, deleted)
        assert missing == lacked(other.content(), mine, deleted), "what differs is in cells that differ"
        found: Content = {}
        for points in other.replica.export("m", differing):
            lacking = absorb(copy, points)
            for (series, time_ns, values), version in zip(
                rows_of(lacking) if lacking is not None else [],
                lacking.versions.tolist() if lacking is not None and lacking.versions is not None else [],
                strict=True,
            ):
                row = {(series, time_ns, name): (version, value) for name, value in values.items()}
                assert row.keys() & missing.keys(), "a row without anything that is lacking"
                found.update(row)
            assert copy.replica.lacking(points) is None
        assert missing.items() <= found.items()
        assert copy.content() == union
        copy.chore(data.draw(chores)[0])
    assert cells_of(copies[0]) == cells_of(copies[1])
    assert scan(copies[0].shard) == scan(copies[1].shard) == rows_in(union)


@settings(deadline=None, max_examples=examples(20))
@given(st.lists(writes(), min_size=1, max_size=5), st.integers(0, 13), st.data())
def test_newer_versions_can_be_left_out(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[Write], below: int, data: st.DataObject
) -> None:
    """Replicas agree about older rows of cells while newer ones are on their way, where nothing was replaced yet."""
    home = tmp_path_factory.mktemp("replicas")
    # Each write has one version and times of its own, so that none replaces another's value.
    apart = []
    for at, one in enumerate(sequence):
        version = one.rows[0][0]
        rows = [(host, time_ns * 8 + at, values) for _, (host, time_ns, values) in one.rows]
        of_version = [(row[0], row[1], {name: value_of(version, *row[:2])[name] for name in row[2]}) for row in rows]
        apart.append(Write(tuple((version, row) for row in of_version), common=True))
    first, second = Copy(home / "a"), Copy(home / "b")
    for write in apart:
        for copy in (first, second):
            if copy is first or write.rows[0][0] < below:
                copy.take(write)
                copy.chore(data.draw(chores)[0])
    old = content_of(write for write in apart if write.rows[0][0] < below)
    for _ in range(2):
        assert cells_of(first, below=below) == cells_of(second) == cells_of(second, below=below)
        assert first.content(below=below) == second.content() == old
    shutil.rmtree(home)
