"""Tables of statements: cells without a value, whichever row has the first one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dsdbd.cluster.statements.context import table_rows
from dsdbd.query.encode import encode_series


def _answered(cells: list[object]) -> list[Any]:
    rows = table_rows("t", ("cell",), [(cell,) for cell in cells])
    document = json.loads(b"".join(encode_series(rows, None)))
    return [row[0] for row in document["values"]]


@pytest.mark.parametrize(
    "cells",
    [
        [2, None, 4],
        [None, 2, 4],
        [None, None],
        ["a", None],
        [None, "a", ""],
        [True, None, False],
        [None, 0.5],
        [None] * 40 + [7],
    ],
)
def test_a_cell_without_a_value_is_null(cells: list[object]) -> None:
    assert _answered(cells) == cells
