"""Chunks of statements whose answers InfluxDB 1.x does not cut by rows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd.http.events import Chunking
from dsdbd.query import StatementResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dsdbd.http.events import Begun
    from dsdbd.query import AnswerPart, SeriesBlock, SeriesRows


class WholeChunker:
    """One result for all series of a statement, or one for each. Its rows are in memory anyway."""

    def __init__(self, begun: Begun) -> None:
        self._begun = begun
        self._series: list[SeriesRows | SeriesBlock] = []
        self._some = False

    def part(self, part: AnswerPart) -> Iterator[StatementResult]:
        """The results that are complete with this part."""
        if self._begun.chunking is Chunking.WHOLE:
            self._series += part.series
            return
        for rows in part.series:
            self._some = True
            yield StatementResult(self._begun.statement_id, (rows,), messages=self._begun.messages)

    def end(self) -> Iterator[StatementResult]:
        """What is left."""
        if not self._some:
            yield StatementResult(self._begun.statement_id, self._series, messages=self._begun.messages)
