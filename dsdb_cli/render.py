"""Responses as text: the formats column, csv and json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dsdb_cli import jsontext
from dsdb_cli.results import Cell, Response, Result, Series
from dsdb_cli.tabwriter import align

FORMATS = ("json", "csv", "column")

# A control character inside a value would break the table, or command the terminal; it is shown as an escape.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROLS |= {ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}


def render(response: Response, output_format: str, *, pretty: bool) -> Iterator[str]:
    """Lines of the response, without line ends, in one of FORMATS; ``pretty`` matters for json only."""
    if output_format == "json":
        yield json_text(response, pretty=pretty)
    elif output_format == "csv":
        yield from csv_lines(response)
    else:
        yield from column_lines(response)


def cell_text(cell: Cell) -> str:
    """A value as the tables show it: null is empty, an array is its members between brackets."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list):
        return "[" + " ".join("<nil>" if member is None else cell_text(member) for member in cell) + "]"
    return jsontext.encode(cell)


def column_lines(response: Response) -> Iterator[str]:
    """Tables of every series; one blank line after each, nothing at all for an empty result."""
    for result in response.results:
        for level, text in result.messages:
            yield f"{level}: {text}"
        for series in result.series:
            yield from _series_table(series)
            yield ""


def _series_table(series: Series) -> list[str]:
    lines: list[list[str]] = []
    if series.name:
        title = f"name: {_shown(series.name)}"
        lines.append([title])
        if not series.tags:
            lines.append(["-" * len(title)])
    header = [_shown(column) for column in series.columns]
    if series.tags:
        lines.append(["tags: " + ", ".join(f"{_shown(k)}={_shown(v)}" for k, v in sorted(series.tags.items()))])
    lines.append(header)
    if series.tags:
        lines.append(["-" * len(column) for column in header])
    lines.extend([_shown(cell_text(cell)) for cell in row] for row in series.values)
    return align(lines)


def _shown(text: str) -> str:
    return text if text.isprintable() else text.translate(_CONTROLS)


def csv_lines(response: Response) -> Iterator[str]:
    """A header and the rows of every series, as RFC 4180 with bare line feeds; no blank lines between."""
    for result in response.results:
        for series in result.series:
            labels, values = _csv_labels(series)
            yield _csv_line([*labels, *series.columns])
            for row in series.values:
                yield _csv_line([*values, *map(cell_text, row)])


def _csv_labels(series: Series) -> tuple[list[str], list[str]]:
    labels: list[str] = []
    values: list[str] = []
    if series.name:
        labels.append("name")
        values.append(series.name)
    if series.tags:
        labels.append("tags")
        values.append(",".join(f"{key}={value}" for key, value in sorted(series.tags.items())))
    return labels, values


def _csv_line(fields: Iterable[str]) -> str:
    return ",".join(_csv_field(field) for field in fields)


def _csv_field(field: str) -> str:
    quoted = field[:1].isspace() or field == r"\." or any(mark in field for mark in ',"\r\n')
    return '"' + field.replace('"', '""') + '"' if quoted else field


def json_text(response: Response, *, pretty: bool) -> str:
    """The response as one document without statement numbers: one line, or indented by four spaces."""
    document: dict[str, Any] = {}
    if response.results:
        document["results"] = [_result_document(result) for result in response.results]
    if response.error is not None:
        document["error"] = response.error
    return jsontext.encode(document, "    " if pretty else None)


def _result_document(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if result.series:
        document["series"] = [_series_document(series) for series in result.series]
    if result.messages:
        document["messages"] = [{"level": level, "text": text} for level, text in result.messages]
    if result.error is not None:
        document["error"] = result.error
    return document


def _series_document(series: Series) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if series.name:
        document["name"] = series.name
    if series.tags:
        document["tags"] = dict(sorted(series.tags.items()))
    if series.columns:
        document["columns"] = series.columns
    if series.values:
        document["values"] = series.values
    return document
