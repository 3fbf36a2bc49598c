"""InfluxQL 1.x: from text to statements and back, without knowing how a statement is executed."""

from dsdbd.influxql import format_statements as _complete  # noqa: F401  registers the statements with to_text
from dsdbd.influxql.format import column_name, quote_identifier, quote_string, to_text
from dsdbd.influxql.repeated import parse

__all__ = ["column_name", "parse", "quote_identifier", "quote_string", "to_text"]
