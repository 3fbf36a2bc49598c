"""``[http] max-row-limit``: an answer that is one document ends after so many rows, as in InfluxDB 1.x. Pure."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from dsdbd.http.events import Begun, Ended, Event
from dsdbd.query import AnswerPart
from dsdbd.query.rows import SeriesRows, each_series

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def limit_rows(events: AsyncGenerator[Event, None], most: int) -> AsyncGenerator[Event, None]:
    """The events up to ``most`` rows of all statements together; 0 sets no limit.

    The series that has more rows says ``partial``. What comes behind it is left out, further statements too, and not
    asked for.
    """
    left, statement_id = most, 0
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, Begun):
                statement_id = event.statement_id
            if not most or not isinstance(event, AnswerPart) or len(event) < left:
                left -= len(event) if isinstance(event, AnswerPart) else 0
                yield event
                continue
            kept, cut = _first_rows(event, left)
            following = None if cut else await anext(events, None)
            if isinstance(following, AnswerPart) and following.continues:
                kept[-1] = replace(kept[-1], partial=True)
            yield AnswerPart(kept, event.continues)
            yield Ended(statement_id, following.error if isinstance(following, Ended) else None)
            return


def _first_rows(part: AnswerPart, most: int) -> tuple[list[SeriesRows], bool]:
    """The first ``most`` rows of a part, which has as many, and whether a series was cut."""
    kept: list[SeriesRows] = []
    for rows in each_series(part.series):
        if len(rows) > most:
            kept.append(rows.slice(0, most, partial=True))
            return kept, True
        kept.append(rows)
        most -= len(rows)
        if most == 0:
            break
    return kept, False
