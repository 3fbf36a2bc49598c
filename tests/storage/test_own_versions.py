"""Rows that bring versions of their own: through the log, into memory and files, and below a deletion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsdbd.errors import FieldTypeConflict
from dsdbd.model.columns import Batch, Points
from dsdbd.storage import Store
from dsdbd.storage.tombstones import Tombstone
from tests.storage.storage_model import KEY, MAX_NS, MIN_NS, Model, Row, make_points, open_store, put, scan

VERSIONED = list[tuple[int, Row]]


def put_rows(store: Store, rows: VERSIONED) -> None:
    """Store rows, each with its version, in one batch."""
    versions = np.array([version for version, _ in rows], np.int64)
    points = replace(make_points([row for _, row in rows]), versions=versions)
    store.submit(KEY, Batch(int(versions.max()), (points,))).result(20)


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("reopened", [False, True])
def test_each_row_counts_by_its_own_version(tmp_path: Path, flushed: bool, reopened: bool) -> None:
    rows: VERSIONED = [
        (30, ("a", 1, {"f": 3.0})),
        (10, ("a", 1, {"f": 1.0, "i": 1})),
        (25, ("b", 1, {"s": "new"})),
        (5, ("c", 7, {"b": True})),
    ]
    model = Model()
    store = open_store(tmp_path)
    put(store, 20, [("a", 1, {"f": 2.0, "i": 2}), ("b", 1, {"s": "old"}), ("c", 7, {"b": False})])
    model.write(20, [("a", 1, {"f": 2.0, "i": 2}), ("b", 1, {"s": "old"}), ("c", 7, {"b": False})])
    put_rows(store, rows)
    for version, row in rows:
        model.write(version, [row])
    put_rows(store, [(21, ("b", 1, {"s": "in between"}))])
    model.write(21, [("b", 1, {"s": "in between"})])
    if flushed:
        store.flush()
    if reopened:
        store.close()
        store = open_store(tmp_path)
    assert scan(store.shard(1)) == model.rows()
    store.close()


@pytest.mark.parametrize("reopened", [False, True])
def test_rows_below_an_erasure_do_not_count_nor_do_their_types(tmp_path: Path, reopened: bool) -> None:
    store = open_store(tmp_path)
    put(store, 10, [("a", 1, {"f": 1.0})])
    store.delete(KEY, [Tombstone("m", None, MIN_NS, MAX_NS, 20)])
    # The older row has a field of another type than the newer one, which is all that is left.
    both = make_points([("a", 2, {"i": 7}), ("b", 3, {"f": 0.5})])
    retyped = {"x": both.fields["f"], "y": both.fields["i"]}
    points = Points("m", both.series, both.series_index, both.time_ns, retyped, np.array([19, 21]))
    store.submit(KEY, Batch(21, (points,))).result(20)
    store.submit(KEY, Batch(19, (replace(points, versions=np.array([18, 19])),))).result(20)
    if reopened:
        store.close()
        store = open_store(tmp_path)
    shard = store.shard(1)
    assert shard is not None
    found = scan(shard, fields=("x", "y", "f"))
    assert [(row[1], row[2]) for row in found] == [(3, {"x": 0.5})]
    assert set(shard.field_types("m")) == {"x"}
    put_rows(store, [(22, ("a", 1, {"i": 1}))])
    with pytest.raises(FieldTypeConflict):
        changed = replace(make_points([("a", 2, {"s": "no"})]), versions=np.array([23]))
        field = {"i": changed.fields["s"]}
        store.submit(KEY, Batch(23, (replace(changed, fields=field),))).result(20)
    store.close()
