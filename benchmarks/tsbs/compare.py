"""Whether two systems gave the same answer."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.tsbs.queries import Query

INFLUXDB_TOLERANCE = 1e-12
"""Relative, of numbers that are not whole: a sum of floats depends on its order."""
VICTORIA_TOLERANCE = 1e-9
"""Relative and absolute: VictoriaMetrics stores decimal numbers of one exponent for a block, which rounds doubles."""

Point = tuple[str, str, int | None]
"""Field, host (empty where the answer has none), time in ms (None where it is not compared)."""


def difference(left: Any, right: Any, tolerance: float = INFLUXDB_TOLERANCE, place: str = "") -> str | None:
    """Where two JSON values differ first, or None; numbers may differ by ``tolerance``, relatively."""
    if isinstance(left, dict) and isinstance(right, dict):
        if left.keys() != right.keys():
            return f"{place}: keys {sorted(left)} and {sorted(right)}"
        pairs = [(f"{place}.{key}", left[key], right[key]) for key in left]
    elif isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            return f"{place}: {len(left)} and {len(right)} items"
        pairs = [(f"{place}[{number}]", *pair) for number, pair in enumerate(zip(left, right, strict=True))]
    else:
        return None if same(left, right, tolerance) else f"{place}: {left!r} and {right!r}"
    return next((found for name, one, other in pairs if (found := difference(one, other, tolerance, name))), None)


def same(left: Any, right: Any, tolerance: float) -> bool:
    """Whether two JSON scalars are equal; numbers within the relative tolerance."""
    if isinstance(left, int | float) and isinstance(right, int | float) and not isinstance(left, bool):
        return math.isclose(left, right, rel_tol=tolerance)
    return type(left) is type(right) and left == right


def difference_of_answers(left: bytes, right: bytes) -> str | None:
    """Where two answers of the InfluxDB API differ first, or None.

    Series are compared without ``partial``: InfluxDB 1.x leaves it on a series of more than 10,000 rows that it puts
    together in one answer, although the answer is complete.
    """
    if left == right:
        return None
    documents = [json.loads(answer) for answer in (left, right)]
    for document in documents:
        for result in document.get("results", ()):
            for series in result.get("series", ()):
                series.pop("partial", None)
    return difference(*documents)


def influx_points(query: Query, answer: bytes) -> dict[Point, float]:
    """The numbers of an answer of the InfluxDB API."""
    points: dict[Point, float] = {}
    for series in json.loads(answer)["results"][0].get("series", ()):
        columns = series["columns"]
        fields = list(query.fields) or [name if name.startswith("usage_") else "" for name in columns[1:]]
        host_place = columns.index("hostname") if "hostname" in columns else None
        for row in series["values"]:
            host = row[host_place] if host_place is not None else series.get("tags", {}).get("hostname", "")
            time_ms = None if query.promql.step_s is None else _time_ms(row[0])
            for name, value in zip(fields, row[1:], strict=True):
                if name and value is not None:
                    points[name, host, time_ms] = float(value)
    return points


def _time_ms(text: str) -> int:
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC).timestamp() * 1000)


def prometheus_points(query: Query, answer: bytes) -> dict[Point, float]:
    """The numbers of an answer of the Prometheus API, at the times that InfluxQL gives."""
    points: dict[Point, float] = {}
    for series in json.loads(answer)["data"]["result"]:
        name = series["metric"]["__name__"].removeprefix("cpu_")
        host = series["metric"].get("hostname", "")
        if query.promql.step_s is None:
            points[name, host, None] = float(series["value"][1])
            continue
        for time_s, value in series["values"]:
            points[name, host, round(time_s * 1000) + query.promql.shift_ms] = float(value)
    return points


def difference_of_points(query: Query, influx: bytes, prometheus: bytes) -> str | None:
    """Where the numbers of an InfluxQL and of a PromQL answer differ, or None."""
    left, right = influx_points(query, influx), prometheus_points(query, prometheus)
    if strange := sorted(left.keys() ^ right.keys(), key=str):
        return f"{len(left)} and {len(right)} points; only one has {strange[0]}"
    for point, value in left.items():
        if not math.isclose(value, right[point], rel_tol=VICTORIA_TOLERANCE, abs_tol=VICTORIA_TOLERANCE):
            return f"{point}: {value!r} and {right[point]!r}"
    return None
