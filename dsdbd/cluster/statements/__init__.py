"""Statements: each becomes a metadata command, a table from the metadata, or a read of the shards."""

from dsdbd.cluster.statements.context import NodeParts, StatementContext
from dsdbd.cluster.statements.dispatch import Series, by_post, execute

__all__ = ["NodeParts", "Series", "StatementContext", "by_post", "execute"]
