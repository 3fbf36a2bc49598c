"""Queries: schemas, plans, partial results near the data, their merge, and answers.

How a SELECT travels: ``normalise`` fills in databases and policies; ``sources_of`` names what it reads, and every
owner of a shard in question answers with ``shard_schema``; ``plan_select`` makes the plan from their ``merge_schemas``;
``divide`` makes smaller plans of it where the answer is big, one after another; ``run_partial`` answers one for some
shards; ``merge`` unites the parts; ``finish`` gives the rows. Plans, schemas and
partial results can all be encoded, so that each step can run on another node.
"""

from __future__ import annotations

from dsdbd.query.answer import AnswerPart, Chunker, CsvDocument, JsonDocument
from dsdbd.query.deletion import MAX_NS, MIN_NS, Deletion, deletions
from dsdbd.query.encode import StatementResult, encode_results_json
from dsdbd.query.encode_csv import CsvWriter, encode_results_csv
from dsdbd.query.encode_msgpack import MsgpackDocument, encode_error_msgpack, encode_results_msgpack
from dsdbd.query.explain import plan_lines
from dsdbd.query.finish import finish
from dsdbd.query.json_layout import Indenter
from dsdbd.query.plan import normalise, plan_select, sources_of
from dsdbd.query.plan_derived import bounds, derived_place
from dsdbd.query.plan_nested import NestedPlan, has_subqueries, plan_nested
from dsdbd.query.plan_types import SelectPlan, decode_plan, encode_plan
from dsdbd.query.prepared import Prepared, prepare
from dsdbd.query.rows import SeriesBlock, SeriesRows
from dsdbd.query.run import (
    Collected,
    Partial,
    QueryCancelled,
    TooManyRows,
    decode_partial,
    encode_partial,
    merge,
    run_groups,
    run_partial,
)
from dsdbd.query.schema import (
    BoundedShard,
    MeasurementSchema,
    ShardReader,
    StoredShard,
    decode_schema,
    encode_schema,
    merge_schemas,
    shard_schema,
)
from dsdbd.query.show import show_finish, show_partial
from dsdbd.query.slices import divide
from dsdbd.query.slicing import Ask, Emit, Steps
from dsdbd.query.subquery import DerivedShard, derived_shards

__all__ = [
    "MAX_NS",
    "MIN_NS",
    "AnswerPart",
    "Ask",
    "BoundedShard",
    "Chunker",
    "Collected",
    "CsvDocument",
    "CsvWriter",
    "Deletion",
    "DerivedShard",
    "Emit",
    "Indenter",
    "JsonDocument",
    "MeasurementSchema",
    "MsgpackDocument",
    "NestedPlan",
    "Partial",
    "Prepared",
    "QueryCancelled",
    "SelectPlan",
    "SeriesBlock",
    "SeriesRows",
    "ShardReader",
    "StatementResult",
    "Steps",
    "StoredShard",
    "TooManyRows",
    "bounds",
    "decode_partial",
    "decode_plan",
    "decode_schema",
    "deletions",
    "derived_place",
    "derived_shards",
    "divide",
    "encode_error_msgpack",
    "encode_partial",
    "encode_plan",
    "encode_results_csv",
    "encode_results_json",
    "encode_results_msgpack",
    "encode_schema",
    "finish",
    "has_subqueries",
    "merge",
    "merge_schemas",
    "normalise",
    "plan_lines",
    "plan_nested",
    "plan_select",
    "prepare",
    "run_groups",
    "run_partial",
    "shard_schema",
    "show_finish",
    "show_partial",
    "sources_of",
]
