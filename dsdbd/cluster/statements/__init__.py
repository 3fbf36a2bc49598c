"""Statements: each becomes a metadata command, a table from the metadata, or a read of the shards."""

from dsdbd.cluster.statements.context import StatementContext
from dsdbd.cluster.statements.dispatch import BY_POST, Series, execute

__all__ = ["BY_POST", "Series", "StatementContext", "execute"]
