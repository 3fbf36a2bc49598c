"""The figures of a run as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.tsbs.queries import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

_OURS = "dsdb"
_INGEST = (
    ("rows/s", "rows_per_s"),
    ("values/s", "values_per_s"),
    ("server CPU, µs a row", "server_cpu_us_per_row"),
    ("server CPU until settled, µs a row", "settled_cpu_us_per_row"),
    ("client CPU, µs a row", "client_cpu_us_per_row"),
)
_REQUESTS = (
    ("rows/s", "rows_per_s"),
    ("server CPU, µs a row", "server_cpu_us_per_row"),
    ("client CPU, µs a row", "client_cpu_us_per_row"),
    ("p50 ms", "p50_ms"),
    ("p95 ms", "p95_ms"),
)
_COLUMNS = {
    ("hot", "p50_ms"): "p50 ms",
    ("hot", "p95_ms"): "p95 ms",
    ("hot", "server_cpu_ms"): "server CPU, ms",
    ("cold", "p50_ms"): "first after restart, ms",
    ("loaded", "p50_ms"): "under load p50 ms",
    ("loaded", "p95_ms"): "under load p95 ms",
}


@dataclass(frozen=True)
class Line:
    """One figure of every system that has it."""

    what: str
    values: dict[str, float]

    def ratio(self, other: str) -> float | None:
        """Ours divided by the other's."""
        if _OURS not in self.values or not self.values.get(other):
            return None
        return self.values[_OURS] / self.values[other]


def _at(figures: dict[str, Any], *path: str) -> float | None:
    found: Any = figures
    for key in path:
        if key not in found:
            return None
        found = found[key]
    return float(found)


def lines(figures: dict[str, dict[str, Any]]) -> list[Line]:
    """Every figure there is, in a fixed order."""
    paths: list[tuple[str, tuple[str, ...]]] = []
    for name in ("ingest", "ingest-float", "ingest-decimal", "ingest-int", "mixed"):
        paths += [(f"{name}: {what}", (name, key)) for what, key in _INGEST]
    paths += [(f"one-point: {what}", ("one-point", key)) for what, key in _REQUESTS]
    for column, what in _COLUMNS.items():
        paths += [(f"{kind}: {what}", ("queries", kind, *column)) for kind in KINDS]
    paths += [(f"bytes per value, {values}", ("disk", values)) for values in ("float", "decimal", "int")]
    paths += [
        ("bytes per value, mixed", ("mixed", "bytes_per_value")),
        ("rows/s of the load under which was asked", ("under-load", "rows_per_s")),
        ("restart to serving, s", ("restart", "start_s")),
        ("resident memory after the queries, bytes", ("memory", "rss_bytes")),
        ("resident memory at its highest, bytes", ("memory", "peak_rss_bytes")),
    ]
    found = []
    for what, path in paths:
        values = {name: value for name, one in figures.items() if (value := _at(one, *path)) is not None}
        if values:
            found.append(Line(what, values))
    return found


def number(value: float | None) -> str:
    """Three significant digits, thousands separated."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(systems: Sequence[str], found: Sequence[Line]) -> list[list[str]]:
    """Rows of texts, the first one the head; the last columns are ours divided by each other's."""
    others = [name for name in systems if name != _OURS] if _OURS in systems else []
    rows = [["figure", *systems, *(f"{_OURS} / {name}" for name in others)]]
    for line in found:
        values = [number(line.values.get(name)) for name in systems]
        ratios = [number(line.ratio(name)) for name in others]
        rows.append([line.what, *values, *ratios])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned so that it reads as text too."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]

    def one(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([one(rows[0]), rule, *(one(row) for row in rows[1:])]) + "\n"


def comparison(compared: dict[str, dict[str, str]], failures: Sequence[str]) -> str:
    """What was compared and what failed, as Markdown."""
    pairs = sorted({pair for verdicts in compared.values() for pair in verdicts})
    text = ""
    notes = [f"FAILED {failure}" for failure in failures]
    if pairs:
        rows = [["answers", *pairs]]
        for kind, verdicts in compared.items():
            rows.append([kind, *("equal" if verdicts[pair] == "equal" else "DIFFER" for pair in pairs)])
            notes += [f"{kind}: {pair}: {verdict}" for pair, verdict in verdicts.items() if verdict != "equal"]
        text += markdown(rows)
    return text + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")
