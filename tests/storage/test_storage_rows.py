"""Which value counts when rows meet, whatever is folded on the way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.columns import Points
from dsdbd.storage.rows import Rows, concat_rows, fold_for_storage, sort_rows, unite_versions
from tests.examples import examples
from tests.storage.storage_model import CELLS, TYPES, Model, make_points, make_rows, rows_of

HOSTS = ("a", "b", "")
batches = st.lists(
    st.tuples(
        st.integers(1, 4), st.lists(st.tuples(st.sampled_from(HOSTS), st.integers(0, 3), CELLS), min_size=1, max_size=6)
    ),
    min_size=1,
    max_size=6,
)


def visible(rows: Rows) -> list[tuple]:
    united = unite_versions(sort_rows(rows))
    series = tuple(make_points([(host, 0, {"i": 1})]).series[0] for host in HOSTS)
    found = rows_of(Points("m", series, united.series.astype(np.int32), united.time_ns, united.fields))
    return sorted(found, key=lambda row: (row[0].key(), row[1]))


@settings(deadline=None, max_examples=examples(80))
@given(batches)
def test_the_newest_version_of_each_field_counts(written: list) -> None:
    model = Model()
    for version, rows in written:
        model.write(version, rows)
    assert visible(concat_rows([make_rows(*one, HOSTS) for one in written], TYPES)) == model.rows()


@settings(deadline=None, max_examples=examples(80))
@given(batches, st.integers(0, 6), st.integers(0, 6))
def test_folding_in_any_groups_changes_nothing_a_later_row_can_see(written: list, first: int, second: int) -> None:
    """Segments are folded groups of batches; merges fold folded ones; a reader must not notice either."""
    low, high = sorted((first, second))
    parts = [make_rows(*one, HOSTS) for one in written]
    groups = [group for group in (parts[:low], parts[low:high], parts[high:]) if group]
    folded = [fold_for_storage(sort_rows(concat_rows(group, TYPES))) for group in groups]
    merged = fold_for_storage(sort_rows(concat_rows(folded[:-1], TYPES))) if len(folded) > 1 else None
    final = [*([merged] if merged is not None else []), folded[-1]]
    assert visible(concat_rows(final, TYPES)) == visible(concat_rows(parts, TYPES))


@settings(deadline=None, max_examples=examples(40))
@given(batches)
def test_folding_leaves_no_row_without_a_value_and_no_replaced_value(written: list) -> None:
    folded = fold_for_storage(sort_rows(concat_rows([make_rows(*one, HOSTS) for one in written], TYPES)))
    seen = set()
    for row in range(len(folded)):
        filled = [key for key, column in folded.fields.items() if column.valid is None or column.valid[row]]
        assert filled
        for key in filled:
            cell = (int(folded.series[row]), int(folded.time_ns[row]), key)
            assert cell not in seen
            seen.add(cell)


def test_a_version_that_arrives_late_replaces_the_older_field_and_not_the_newer() -> None:
    old = make_rows(1, [("a", 0, {"i": 1})], HOSTS)
    new = make_rows(3, [("a", 0, {"f": 3.0})], HOSTS)
    stored = fold_for_storage(sort_rows(concat_rows([old, new], TYPES)))
    late = make_rows(2, [("a", 0, {"i": 2, "f": 2.0})], HOSTS)
    ((_, _, values),) = visible(concat_rows([stored, late], TYPES))
    assert values == {"i": 2, "f": 3.0}
