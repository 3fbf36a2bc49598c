"""What a statement runs with, and tables as rows of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from dsdbd.errors import RequestError
from dsdbd.model.columns import Column
from dsdbd.model.types import FieldType
from dsdbd.query import SeriesRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsdbd.cluster.membership import Membership
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import Cancellation, ReadPath
    from dsdbd.cluster.writes import WritePath
    from dsdbd.meta.rows import Table


class NodeParts(NamedTuple):
    """What of this node statements are carried out with, the same for every request."""

    node: Node
    reads: ReadPath
    writes: WritePath
    membership: Membership


@dataclass(frozen=True, slots=True)
class StatementContext:
    """One request's surroundings. ``database`` and ``policy`` are the request's parameters, empty when not given.

    ``user`` is the name of the authenticated user, None while authentication is off.
    """

    node: Node
    reads: ReadPath
    writes: WritePath
    membership: Membership
    database: str
    policy: str
    now_ns: int
    cancelled: Cancellation
    user: str | None = None

    def database_or(self, named: str | None) -> str:
        """The database a statement names, or the request's; raises RequestError when neither is given."""
        chosen = named or self.database
        if not chosen:
            raise RequestError("database name required")
        return chosen


def rows_of(table: Table) -> SeriesRows:
    """A table of the metadata as rows of an answer."""
    return table_rows(table.name, table.columns, table.rows)


def table_rows(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> SeriesRows:
    """Rows of plain values as an answer; the type of a column is that of its first value, None is no value."""
    data = tuple(_column([row[position] for row in rows]) for position in range(len(columns)))
    return SeriesRows(name, None, tuple(columns), data, time_column=None)


def _column(cells: Sequence[object]) -> Column:
    """One column; a cell that is None has no value."""
    there = [cell is not None for cell in cells]
    valid = None if all(there) else np.array(there, dtype=np.bool_)
    first = next((cell for cell in cells if cell is not None), "")
    for kind, field_type, dtype in _NUMBERS:
        if isinstance(first, kind):
            return Column(
                field_type, np.array([kind() if cell is None else cell for cell in cells], dtype=dtype), valid
            )
    if isinstance(first, list):
        return Column(FieldType.STRING, pa.array(cells, pa.list_(pa.string())), valid)
    texts = [None if cell is None else str(cell) for cell in cells]
    return Column(FieldType.STRING, pa.array(texts, pa.string()), valid)


_NUMBERS = (
    (bool, FieldType.BOOLEAN, np.bool_),
    (int, FieldType.INTEGER, np.int64),
    (float, FieldType.FLOAT, np.float64),
)
"""Kinds of plain values, the narrower first: a bool is an int, too."""
