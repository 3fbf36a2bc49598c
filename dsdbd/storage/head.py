"""Recent rows of one shard in memory, until they are on disk as segments. Its shard's lock guards it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dsdbd.model.columns import Points
from dsdbd.model.types import FieldType
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.rows import Rows, column_bytes, concat_rows

_ROW_BYTES = 24
"""Series number, time and version of one row."""
_MAX_PARTS = 64
"""Parts of a table that are read as they are; more are joined first, so that a read does not visit every write."""


class Head:
    """Rows by measurement.

    ``oldest_wal``: number of the first log file that holds a record of this head; that file and all later ones must
    stay until the head is on disk. ``since_s``: monotonic time of the first row.
    """

    def __init__(self, oldest_wal: int, since_s: float) -> None:
        self.oldest_wal = oldest_wal
        self.since_s = since_s
        self.size_bytes = 0
        self.tables: dict[str, list[Rows]] = {}

    def add(self, points: Points, version: int, index: SeriesIndex) -> None:
        """Append the rows of one batch; new series enter the index."""
        numbers = index.numbers(points.series)
        rows = Rows(
            numbers[points.series_index],
            points.time_ns,
            np.full(len(points), version, dtype=np.int64),
            points.fields,
        )
        self.tables.setdefault(points.measurement, []).append(rows)
        self.size_bytes += len(rows) * _ROW_BYTES + sum(column_bytes(column) for column in points.fields.values())

    def parts(self, measurement: str, types: Mapping[str, FieldType]) -> list[Rows]:
        """The rows of a measurement in arrival order; many small parts are joined on the way."""
        parts = self.tables.get(measurement, [])
        if len(parts) > _MAX_PARTS:
            parts = self.tables[measurement] = [concat_rows(parts, types)]
        return list(parts)
