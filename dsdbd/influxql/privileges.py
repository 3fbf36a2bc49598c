"""What a user must be allowed before a statement runs.

As InfluxDB 1.x asks it, and stricter in two places where 1.x leaves a hole: the exact cardinality statements without
FROM ask for nothing there, and a continuous query that writes into its own database asks only for reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dsdbd.influxql import ast, ast_show


@dataclass(frozen=True, slots=True)
class RequiredPrivilege:
    """One demand: to be an administrator, or to have a privilege on a database (``None``: the request's own)."""

    privilege: ast.Privilege
    database: str | None = None
    admin: bool = False


ADMIN: Final = RequiredPrivilege(ast.Privilege.ALL, admin=True)
_READ_HERE: Final = RequiredPrivilege(ast.Privilege.READ)
_WRITE_HERE: Final = RequiredPrivilege(ast.Privilege.WRITE)
_READ_ANY: Final = (
    ast_show.ShowContinuousQueries,
    ast_show.ShowQueries,
)
_READ_DATABASE: Final = (
    ast_show.ShowRetentionPolicies,
    ast_show.ShowMeasurements,
)


def required_privileges(statement: ast.Statement) -> tuple[RequiredPrivilege, ...]:
    """All demands of a statement, each of which must be met; none for SHOW DATABASES, which filters its answer.

    A statement this function does not know needs an administrator.
    """
    match statement:
        case ast.Select():
            return _select(statement)
        case ast.Explain(select):
            return _select(select)
        case ast.CreateContinuousQuery():
            return _continuous_query(statement)
        case ast.Delete() | ast.DropSeries():
            return (_WRITE_HERE,)
        case ast.DropRetentionPolicy(_, database) | ast.DropContinuousQuery(_, database):
            return (RequiredPrivilege(ast.Privilege.WRITE, database),)
        case ast_show.ShowDatabases():
            return ()
        case _ if isinstance(statement, _READ_ANY):
            return (_READ_HERE,)
        case _ if isinstance(statement, _READ_DATABASE):
            return (RequiredPrivilege(ast.Privilege.READ, statement.database),)
        case _ if isinstance(statement, ast_show.FromStatement):
            own = RequiredPrivilege(ast.Privilege.READ, statement.database)
            return _unique((own, *_sources(statement.sources, statement.database)))
        case _:
            return (ADMIN,)


def _select(select: ast.Select, database: str | None = None) -> tuple[RequiredPrivilege, ...]:
    demands = _sources(select.sources, database)
    if select.target is not None:
        demands += (RequiredPrivilege(ast.Privilege.WRITE, select.target.database or database),)
    return _unique(demands)


def _continuous_query(statement: ast.CreateContinuousQuery) -> tuple[RequiredPrivilege, ...]:
    own = RequiredPrivilege(ast.Privilege.READ, statement.database)
    return _unique((own, *_select(statement.source, statement.database)))


def _sources(sources: tuple[ast.Source, ...], database: str | None) -> tuple[RequiredPrivilege, ...]:
    demands: tuple[RequiredPrivilege, ...] = ()
    for source in sources:
        if isinstance(source, ast.SubQuery):
            demands += _select(source.statement, database)
        else:
            demands += (RequiredPrivilege(ast.Privilege.READ, source.database or database),)
    return demands


def _unique(demands: tuple[RequiredPrivilege, ...]) -> tuple[RequiredPrivilege, ...]:
    return tuple(dict.fromkeys(demands))
