"""Answers: rows of one series as columns."""

from __future__ import annotations

from dataclasses import dataclass

from dsdbd.model.columns import Column


@dataclass(frozen=True, slots=True)
class SeriesRows:
    """Rows of one group, or of one table of a SHOW statement.

    ``columns`` are the titles, ``data`` one Column per title, all of the same length. ``time_column`` is the
    position of the column that holds times (int64 nanoseconds since the epoch), None where there is none.
    ``tags`` is None without GROUP BY tags. ``partial``: more rows of this series follow.
    """

    name: str
    tags: dict[str, str] | None
    columns: tuple[str, ...]
    data: tuple[Column, ...]
    time_column: int | None = 0
    partial: bool = False

    def __len__(self) -> int:
        return len(self.data[0]) if self.data else 0

    def slice(self, start: int, stop: int, *, partial: bool) -> SeriesRows:
        """Rows start to stop, without copying."""
        data = tuple(
            Column(
                column.type,
                column.values[start:stop],
                None if column.valid is None else column.valid[start:stop],
            )
            for column in self.data
        )
        return SeriesRows(self.name, self.tags, self.columns, data, self.time_column, partial)
