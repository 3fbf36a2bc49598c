"""The rows of a test in an influxd of Debian, and the comparison of its JSON answers with ours."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.line_text import escape, field_text
from tests.query.query_engine import Row
from tests.reference.influxd import Influxd, influxd


def line_of(row: Row) -> str:
    tags = "".join(f",{escape(key)}={escape(value)}" for key, value in row.tags)
    fields = ",".join(f"{escape(key)}={field_text(value)}" for key, value in row.fields)
    return f"{row.measurement}{tags} {fields} {row.time_ns}"


@contextmanager
def filled_influxd(directory: Path, rows: Sequence[Row]) -> Iterator[Influxd]:
    """A server with the rows in its database ``d``."""
    with influxd(directory) as server:
        server.query("CREATE DATABASE d")
        server.write("d", "\n".join(line_of(row) for row in rows))
        yield server


def same(ours: object, theirs: object) -> bool:
    """Equal but for the last digits of floats: the two add numbers in another order."""
    if isinstance(ours, float) or isinstance(theirs, float):
        if not isinstance(ours, int | float) or not isinstance(theirs, int | float):
            return False
        return math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-12)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    return type(ours) is type(theirs) and ours == theirs


def same_json(ours: str, theirs: str) -> bool:
    return ours == theirs or same(json.loads(ours), json.loads(theirs))
