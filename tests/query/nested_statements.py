"""Random statements with subqueries over the points of ``random_rows``, whose times are unique."""

from __future__ import annotations

import random

_RAW = ("load", "jobs", "load, jobs", "load, host", "load * 2 as load, jobs", "jobs - 1 as jobs, load, rack", "*")
_AGGREGATES = ("mean(load)", "count(load)", "sum(jobs)", "spread(load)", "mean(jobs)")
_SELECTORS = ("max(jobs)", "first(load)", "min(load)", "last(jobs)")
_OUTER_CALLS = ("mean", "max", "count", "sum", "first", "min", "last", "median", "spread")
_TAGS = ("", "host", "rack", "host, rack", "*")
_RANGE = "time >= {low}s and time < {high}s"


class Statements:
    """A seeded source of statements.

    Left out is what InfluxDB answers in a way of its own, as the page about InfluxQL says: windows that begin before
    the time range, values of fill() in a subquery with tags, several calls in one, rows that are not ordered by time.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def statement(self) -> str:
        low = self._random.choice((0, 600, 1800))
        return self._outer(_RANGE.format(low=low, high=low + self._random.choice((600, 1500, 3000))), depth=0)

    def _outer(self, times: str, depth: int) -> str:
        pick = self._random.choice
        raw = self._random.random() < 0.4
        inner, columns, tags = self._inner(depth, raw=raw)
        grouped = pick(("", "", *[tag for tag in ("host", "rack") if tag in tags]))
        where = f" where {times}"
        if columns and self._random.random() < 0.3:
            where += f" and {pick(columns)} {pick(('>', '<', '!='))} {self._random.randrange(-20, 20)}"
        if raw:
            fields = ", ".join(columns)
            by = f" group by {grouped}" if grouped else ""
            return f"select {fields} from ({inner}){where}{by}{pick(('', '', ' order by time desc', ' limit 7'))}"
        calls = [f"{pick(_OUTER_CALLS)}({pick(columns)})" for _ in range(self._random.choice((1, 1, 2)))]
        dimensions = [grouped] if grouped else []
        fill = ""
        if self._random.random() < 0.5:
            dimensions.insert(0, f"time({pick(('100s', '5m', '7m'))})")
            fill = pick(("", " fill(none)", " fill(0)", " fill(previous)"))
        by = f" group by {', '.join(dimensions)}{fill}" if dimensions else ""
        return f"select {', '.join(f'{call} as c{n}' for n, call in enumerate(calls))} from ({inner}){where}{by}"

    def _inner(self, depth: int, *, raw: bool) -> tuple[str, list[str], str]:
        """A subquery of a statement of points or of aggregates, its numeric columns and the tags it is grouped by."""
        pick = self._random.choice
        if depth < 1 and self._random.random() < 0.2:
            inner, columns, tags = self._inner(depth + 1, raw=False)
            name = pick(columns)
            by = f" group by {tags}" if tags and tags != "*" else ""
            return (
                f"select {pick(('mean', 'sum') if raw else ('max', 'min', 'last'))}({name}) as n from ({inner}){by}",
                ["n"],
                tags,
            )
        tags = pick(_TAGS)
        by = [tags] if tags else []
        shown = "host, rack" if tags == "*" else tags
        where = pick(("", "", " where jobs > 2", " where host != 'h2'", " where rack = 'r1' or load < 0"))
        if self._random.random() < 0.5:
            fields = pick(_RAW)
            columns = [name for name in ("load", "jobs") if fields == "*" or name in fields]
            return f"select {fields} from sys{where}{f' group by {tags}' if tags else ''}", columns, shown
        calls = self._random.sample(_AGGREGATES if raw else _AGGREGATES + _SELECTORS, 1 if tags else pick((1, 2)))
        columns = [f"k{n}" for n in range(len(calls))]
        fill = ""
        if self._random.random() < 0.5:
            by.insert(0, f"time({pick(('50s', '2m', '10m'))})")
            fills = ("",) if tags else (" fill(0)", " fill(previous)", " fill(linear)")
            fill = pick(("", " fill(none)", *fills))
        fields = ", ".join(f"{call} as {name}" for call, name in zip(calls, columns, strict=True))
        return f"select {fields} from sys{where}{f' group by {chr(44).join(by)}' if by else ''}{fill}", columns, shown
