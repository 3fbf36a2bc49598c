"""The four field types of the data model."""

from __future__ import annotations

import enum


class FieldType(enum.Enum):
    """Type of a field; the value is the name users see in SHOW FIELD KEYS and in error messages."""

    FLOAT = "float"
    INTEGER = "integer"
    STRING = "string"
    BOOLEAN = "boolean"

    # Members are equal only to themselves. That of Enum is written in Python, and types are keys for every column.
    __hash__ = object.__hash__
