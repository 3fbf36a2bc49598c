"""What happens while a request's statements are answered, in order: each begins, has parts, and ends."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dsdbd.query import AnswerPart

NOT_EXECUTED = "not executed"


class Chunking(enum.Enum):
    """How InfluxDB 1.x divides a statement's answer with ``chunked=true``."""

    ROWS = "rows"
    """Into so many rows of one series; each chunk but the last says ``partial``."""
    SERIES = "series"
    """Into series; none says ``partial``."""
    WHOLE = "whole"
    """Not at all."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A statement's answer begins; ``partial``: it lacks shards that could not be read."""

    statement_id: int
    messages: tuple[tuple[str, str], ...] = ()
    chunking: Chunking = Chunking.ROWS
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A statement's answer ends, with an error or without."""

    statement_id: int
    error: str | None = None


Event = Begun | AnswerPart | Ended
