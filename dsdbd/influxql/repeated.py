"""Statements of texts that were parsed before: a dashboard sends the same few texts again and again."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, TypeAlias

from dsdbd.influxql.ast import Select, Statement
from dsdbd.influxql.ast_show import SchemaStatement
from dsdbd.influxql.parser import parse as parse_anew
from dsdbd.limits import MAX_KEPT_QUERIES, MAX_KEPT_QUERY_CHARS

_Key: TypeAlias = tuple[str, str]
_SCALARS: Final = frozenset({str, int, float, bool})


def parse(text: str, params: Mapping[str, object] | None = None) -> tuple[Statement, ...]:
    """The statements that ``dsdbd.influxql.parser.parse`` gives, from memory where the text was read lately.

    Statements never change, so callers and threads may share them. Only SELECT and the SHOW statements about what is
    stored are kept: of the others some hold passwords, and none comes often.

    Raises:
        QueryParseError: as the parser does; errors are not kept.

    """
    key = _key(text, params)
    if key is None:
        return parse_anew(text, params)
    statements = _kept.get(key)
    if statements is None:
        statements = parse_anew(text, params)
        if all(isinstance(statement, Select | SchemaStatement) for statement in statements):
            _kept.put(key, statements)
    return statements


def _key(text: str, params: Mapping[str, object] | None) -> _Key | None:
    """What decides the statements; None for what is too long, or for parameters that are no plain values."""
    if len(text) > MAX_KEPT_QUERY_CHARS:
        return None
    if not params:
        return text, ""
    if type(params) is not dict:
        return None
    for value in params.values():
        inner = value.values() if type(value) is dict else (value,)
        if not _SCALARS.issuperset(map(type, inner)):
            return None
    bound = repr(params)  # tells 1, 1.0, True and '1' apart, which are or may be equal as keys
    return (text, bound) if len(bound) <= MAX_KEPT_QUERY_CHARS else None


class _Kept:
    """The statements of the texts asked for last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._statements: dict[_Key, tuple[Statement, ...]] = {}

    def get(self, key: _Key) -> tuple[Statement, ...] | None:
        with self._lock:
            statements = self._statements.pop(key, None)
            if statements is not None:
                self._statements[key] = statements
            return statements

    def put(self, key: _Key, statements: tuple[Statement, ...]) -> None:
        with self._lock:
            self._statements[key] = statements
            while len(self._statements) > self._most:
                del self._statements[next(iter(self._statements))]

    def __len__(self) -> int:
        return len(self._statements)


_kept: Final = _Kept(MAX_KEPT_QUERIES)
