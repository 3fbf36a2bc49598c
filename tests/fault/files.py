"""What a stopped node has on its disk, read as docs/format/segment.md tells any reader to; nothing of the database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

Place = tuple[int, str, str]
"""Shard, measurement, field."""
Content = dict[Place, pa.Table]
"""Columns series (text), time (int64, ns), version (int64), value; sorted, one row for each series and time."""


def read_content(data_dir: Path, database: str) -> Content:
    """All that counts of one database on one node."""
    found: dict[Place, list[pa.Table]] = {}
    deleted: dict[int, list[list[Any]]] = {}
    for shard_dir in sorted((data_dir / database).glob("*/*")):
        if not shard_dir.name.isdecimal():
            continue
        shard = int(shard_dir.name)
        marks = shard_dir / "tombstones.json"
        deleted[shard] = json.loads(marks.read_text())["tombstones"] if marks.exists() else []
        for path in sorted(shard_dir.glob("*/*.parquet")):
            for place, table in _read_file(path, shard, deleted[shard]).items():
                found.setdefault(place, []).append(table)
    return {place: united for place, tables in sorted(found.items()) if len(united := _unite(tables))}


def _read_file(path: Path, shard: int, tombstones: Iterable[list[Any]]) -> Content:
    with pq.ParquetFile(path) as file:
        table = file.read()
        about = json.loads(json.loads(file.metadata.metadata[b"dsdb"])["about"])
    measurement = about["measurement"]
    keys = {name: (role, key) for name, role, key in about["columns"]}
    by_role: dict[str, dict[str, Any]] = {"tag": {}, "field": {}, "time": {}, "version": {}}
    for name in table.column_names:
        role, key = keys[name]
        by_role[role][key] = table[name]
    (time_ns,), (version,) = by_role["time"].values(), by_role["version"].values()
    time_ns, version = time_ns.cast(pa.int64()), version.cast(pa.int64())
    tags = {key: pc.fill_null(column.cast(pa.string()), "") for key, column in sorted(by_role["tag"].items())}
    hidden = _hidden(measurement, tags, time_ns, version, tombstones)
    parts = [pc.binary_join_element_wise(pa.scalar(key), column, "=") for key, column in tags.items()]
    series = pc.binary_join_element_wise(*parts, ",") if parts else pa.chunked_array([[""] * len(table)])
    result: Content = {}
    for key, column in by_role["field"].items():
        whole = pa.table({"series": series, "time": time_ns, "version": version, "value": column})
        counts = pc.is_valid(column) if hidden is None else pc.and_not(pc.is_valid(column), hidden)
        result[shard, measurement, key] = whole.filter(counts)
    return result


def _hidden(measurement: str, tags: dict[str, Any], time_ns: Any, version: Any, tombstones: Iterable[list[Any]]) -> Any:
    hidden = None
    for name, predicate, first, last, below, *_ in tombstones:
        if name != measurement:
            continue
        mask = pc.and_(pc.less(version, below), pc.and_(pc.greater_equal(time_ns, first), pc.less_equal(time_ns, last)))
        if predicate is not None:
            mask = pc.and_(mask, _matches(predicate, tags, len(time_ns)))
        hidden = mask if hidden is None else pc.or_(hidden, mask)
    return hidden


def _matches(predicate: list[Any], tags: dict[str, Any], size: int) -> Any:
    kind, *rest = predicate
    if kind == "equals":
        tag, text, negated = rest
        mask = pc.equal(tags[tag], text) if tag in tags else pa.chunked_array([[text == ""] * size])
        return pc.invert(mask) if negated else mask
    if kind in ("all", "any"):
        parts = rest[0] if len(rest) == 1 and rest[0] and isinstance(rest[0][0], list) else rest
        mask = _matches(parts[0], tags, size)
        for part in parts[1:]:
            other = _matches(part, tags, size)
            mask = pc.and_(mask, other) if kind == "all" else pc.or_(mask, other)
        return mask
    raise ValueError(f"a tombstone with {kind}, which no campaign makes")


def _unite(tables: list[pa.Table]) -> pa.Table:
    """Of each series and time the row of the highest version."""
    order = [("series", "ascending"), ("time", "ascending"), ("version", "ascending")]
    table = pa.concat_tables(tables).combine_chunks().sort_by(order)
    if len(table) < 2:
        return table
    same = pc.and_(
        pc.equal(table["series"].slice(1), table["series"].slice(0, len(table) - 1)),
        pc.equal(table["time"].slice(1), table["time"].slice(0, len(table) - 1)),
    )
    last = pa.concat_arrays([*pc.invert(same).chunks, pa.array([True])])
    return table.filter(last).combine_chunks().replace_schema_metadata(None)


def digest(content: Content) -> str:
    """One text for all that counts; equal contents give equal texts."""
    hasher = hashlib.blake2b(digest_size=16)
    for place, table in sorted(content.items()):
        hasher.update(repr((place, len(table))).encode())
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        hasher.update(sink.getvalue())
    return hasher.hexdigest()
