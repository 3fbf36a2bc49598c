"""What a store must hold, kept in a plain dictionary; and small makers of points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from dsdbd.model.columns import Batch, Column, Points
from dsdbd.model.predicate import EVERY_SERIES, TagPredicate
from dsdbd.model.scan import Edge, Piece, ScanRequest
from dsdbd.model.series import Series, parse_key
from dsdbd.model.types import FieldType
from dsdbd.storage import Shard, ShardKey, Store, StoreSettings
from dsdbd.storage.rows import Rows

MIN_NS, MAX_NS = -(1 << 63), (1 << 63) - 1
TYPES = {"f": FieldType.FLOAT, "i": FieldType.INTEGER, "s": FieldType.STRING, "b": FieldType.BOOLEAN}
_DTYPES = {"f": np.float64, "i": np.int64, "b": np.bool_}

Row = tuple[str, int, dict[str, Any]]
"""Value of the tag ``host`` (empty: no tag), time, values of some of the fields f, i, s, b."""

CELLS = st.fixed_dictionaries(
    {},
    optional={
        "f": st.integers(0, 9).map(float),
        "i": st.integers(0, 9),
        "s": st.sampled_from(["", "x", "y"]),
        "b": st.booleans(),
    },
).filter(bool)
"""Values of some of the fields, at least one."""


def series_of(host: str, measurement: str = "m") -> Series:
    return Series(measurement, (("host", host), ("zone", "z" + host[-1])) if host else ())


def make_points(rows: Iterable[Row], measurement: str = "m") -> Points:
    rows = list(rows)
    hosts = list(dict.fromkeys(host for host, _, _ in rows))
    fields = {}
    for key in sorted({key for _, _, values in rows for key in values}):
        valid = np.array([key in values for _, _, values in rows], dtype=np.bool_)
        cells = [values.get(key) for _, _, values in rows]
        if key == "s":
            column: Any = pa.array(cells, pa.string())
        else:
            column = np.array([0 if cell is None else cell for cell in cells], dtype=_DTYPES[key])
        fields[key] = Column(TYPES[key], column, None if valid.all() else valid)
    return Points(
        measurement,
        tuple(series_of(host, measurement).key() for host in hosts),
        np.array([hosts.index(host) for host, _, _ in rows], dtype=np.int32),
        np.array([time_ns for _, time_ns, _ in rows], dtype=np.int64),
        fields,
    )


def make_rows(version: int, written: Iterable[Row], hosts: Sequence[str]) -> Rows:
    """Rows of one version; a series has the number of its host."""
    points = make_points(written)
    numbers = np.array([hosts.index(parse_key(key).tag("host")) for key in points.series], dtype=np.int64)
    versions = np.full(len(points), version, dtype=np.int64)
    return Rows(numbers[points.series_index], points.time_ns, versions, points.fields)


def make_batch(version: int, rows: Iterable[Row], measurement: str = "m") -> Batch:
    return Batch(version, (make_points(rows, measurement),))


class Model:
    """The newest value of every (series, time, field)."""

    def __init__(self) -> None:
        self.cells: dict[tuple[Series, int], dict[str, tuple[int, Any]]] = {}

    def write(self, version: int, rows: Iterable[Row], measurement: str = "m") -> None:
        for host, time_ns, values in rows:
            cell = self.cells.setdefault((series_of(host, measurement), time_ns), {})
            for key, value in values.items():
                if key not in cell or cell[key][0] <= version:
                    cell[key] = (version, value)

    def rows(self, choose: Callable[[Series, int], bool] = lambda series, time_ns: True) -> list[tuple]:
        """(series, time, values) in the order of a scan."""
        found = [
            (series, time_ns, {key: value for key, (_, value) in cell.items()})
            for (series, time_ns), cell in self.cells.items()
            if cell and choose(series, time_ns)
        ]
        return sorted(found, key=lambda row: (row[0].key(), row[1]))


def rows_of(points: Points) -> list[tuple]:
    """(series, time, values) of each row."""
    columns = {key: column.to_arrow().to_pylist() for key, column in points.fields.items()}
    return [
        (
            parse_key(points.series[points.series_index[row]]),
            int(points.time_ns[row]),
            {key: cells[row] for key, cells in columns.items() if cells[row] is not None},
        )
        for row in range(len(points))
    ]


def scan(
    shard: Shard | None,
    measurement: str = "m",
    *,
    predicate: TagPredicate = EVERY_SERIES,
    min_ns: int = MIN_NS,
    max_ns: int = MAX_NS,
    fields: Iterable[str] = ("f", "i", "s", "b"),
    edge: Edge | None = None,
) -> list[tuple]:
    if shard is None:
        return []
    request = ScanRequest(
        measurement=measurement,
        predicate=predicate,
        min_ns=min_ns,
        max_ns=max_ns,
        fields=list(fields),
        edge=edge,
    )
    pieces = shard.scan(request)
    found = [row for piece in pieces for row in rows_of(as_points(piece))]
    assert len({row[:2] for row in found}) == len(found), "a scan gives each series and time once"
    return sorted(found, key=lambda row: (row[0].key(), row[1]))


def as_points(piece: Piece) -> Points:
    """A piece in the shape in which points are written; checks that it is sorted."""
    assert piece.run_starts[0] == 0 and (np.diff(piece.run_starts) > 0).all()
    ascending = piece.time_ns[1:] > piece.time_ns[:-1]
    ascending[piece.run_starts[1:] - 1] = True
    assert ascending.all()
    index = piece.spread(np.arange(len(piece.series), dtype=np.int32))
    return Points(piece.series.measurement, tuple(piece.series.series_keys()), index, piece.time_ns, piece.fields)


KEY = ShardKey("db", "autogen", 1)


def open_store(home: Path, **settings: Any) -> Store:
    store = Store(data_dir=home / "data", wal_dir=home / "wal", settings=StoreSettings(**settings))
    store.open(lambda text: None)
    return store


def put(store: Store, version: int, rows: Iterable[Row], key: ShardKey = KEY, measurement: str = "m") -> None:
    store.submit(key, make_batch(version, rows, measurement)).result(20)


def eventually(check: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
