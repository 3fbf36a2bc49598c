"""Statements: each becomes a metadata command, a table from the metadata, or a read of the shards."""

from dsdbd.cluster.statements.context import StatementContext
from dsdbd.cluster.statements.ddl import CHANGES
from dsdbd.cluster.statements.dispatch import Series, execute

__all__ = ["CHANGES", "Series", "StatementContext", "execute"]
