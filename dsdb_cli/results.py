"""Answers of /query as values: the documents of a chunked answer are put together into one response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# What a column holds in one row: text, jsontext.Number, bool, None, or a list of these.
Cell = Any


@dataclass(slots=True)
class Series:
    """One series of a result: ``values`` has a row per point, each as long as ``columns``."""

    name: str
    tags: dict[str, str]
    columns: list[str]
    values: list[list[Cell]]

    def same_header(self, other: Series) -> bool:
        """Whether ``other`` may continue this series."""
        return (self.name, self.tags, self.columns) == (other.name, other.tags, other.columns)


@dataclass(slots=True)
class Result:
    """Answer to one statement; ``messages`` are (level, text)."""

    series: list[Series] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    error: str | None = None


@dataclass(slots=True)
class Response:
    """Answer to one request; ``error`` is a failure of the request as a whole, ``hint`` a sentence on what to do."""

    results: list[Result] = field(default_factory=list)
    error: str | None = None
    hint: str | None = None

    def first_error(self) -> str | None:
        """The request's error, else the first statement's that has one."""
        if self.error is not None:
            return self.error
        return next((result.error for result in self.results if result.error is not None), None)


def merge_documents(documents: Iterable[Any]) -> Response:
    """Put the documents of one answer together.

    A chunked answer spreads a statement over documents that carry the same ``statement_id``, and cuts a long series
    into pieces marked ``partial``. Raises ValueError when a document has another shape.
    """
    response = Response()
    last_id: Any = None
    last_partial = False
    open_series = False
    for document in documents:
        if not isinstance(document, Mapping):
            raise ValueError("a document of the answer is not an object")  # noqa: TRY004 - it is about the text
        if "error" in document:
            response.error = str(document["error"])
        for raw in document.get("results") or ():
            statement_id = raw.get("statement_id")
            continues = response.results and (last_partial or statement_id is not None) and statement_id == last_id
            if not continues:
                response.results.append(Result())
                open_series = False
            open_series = _add_result(response.results[-1], raw, open_series)
            last_id, last_partial = statement_id, bool(raw.get("partial"))
    return response


def _add_result(result: Result, raw: Mapping[str, Any], open_series: bool) -> bool:
    """Add one piece of a statement's answer; returns whether its last series goes on in the next piece."""
    for raw_series in raw.get("series") or ():
        series = Series(
            name=str(raw_series.get("name", "")),
            tags={str(key): str(value) for key, value in (raw_series.get("tags") or {}).items()},
            columns=[str(column) for column in raw_series.get("columns") or ()],
            values=list(raw_series.get("values") or ()),
        )
        if open_series and result.series and result.series[-1].same_header(series):
            result.series[-1].values.extend(series.values)
        else:
            result.series.append(series)
        open_series = bool(raw_series.get("partial"))
    for message in raw.get("messages") or ():
        result.messages.append((str(message.get("level", "")), str(message.get("text", ""))))
    if "error" in raw:
        result.error = str(raw["error"])
    return open_series
