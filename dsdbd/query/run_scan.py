"""Rows of a shard as a plan reads them: filtered, grouped, with the columns of fields and tags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dsdbd.model.columns import Bools, Column, Int32s, Int64s
from dsdbd.model.predicate import AllOf, AnyOf, TagPredicate
from dsdbd.model.scan import Edge, Piece, ScanRequest, SeriesSet
from dsdbd.model.types import FieldType
from dsdbd.query.columns import can_cast, cast_column, coded_strings
from dsdbd.query.evaluate import evaluate, to_mask
from dsdbd.query.groups import GroupSet, group_series, tag_texts
from dsdbd.query.ordering import run_lengths
from dsdbd.query.plan_types import FieldLeaf, MeasurementPlan, Ref, SelectPlan, Slot, TagLeaf, predicate_from_wire
from dsdbd.query.schema import ShardReader


@dataclass(frozen=True, slots=True)
class ScannedRows:
    """Rows of one measurement in one shard that pass the filter, in runs of one series, times ascending in each.

    ``kept``: int64[n], their rows in ``points``, None for all. ``run_series`` and ``run_group``: int32[r], each run's
    position in ``points.series`` and in ``groups``. ``run_starts``: int64[r], first row of each run. ``derived``: they
    are rows of a subquery, whose tags may be columns.
    """

    points: Piece
    groups: GroupSet
    kept: Int64s | None
    run_series: Int32s
    run_group: Int32s
    run_starts: Int64s
    time_ns: Int64s
    derived: bool = False

    def __len__(self) -> int:
        return len(self.time_ns)

    @staticmethod
    def read(
        plan: SelectPlan, measurement: MeasurementPlan, reader: ShardReader, lower: int, upper: int
    ) -> Iterator[ScannedRows]:
        """The pieces of a scan between two times, both included, that have rows the filter holds for."""
        refs = [*plan.refs, *(call.ref for call in plan.calls)]
        derived = measurement.derived
        wanted = {ref.name for ref in refs if ref.type != "unknown" and (derived or ref.type != "tag")}
        wanted |= set(measurement.filter_fields)
        request = ScanRequest(
            measurement=measurement.name,
            predicate=_flat(predicate_from_wire(measurement.predicate)),
            min_ns=lower,
            max_ns=upper,
            fields=sorted(wanted),
            edge=_edge(plan, measurement, reader, wanted),
        )
        series: SeriesSet | None = None
        for points in reader.scan(request):
            if points.series is not series:
                series = points.series
                groups, group_of_series = group_series(series, plan.dimensions)
            group = group_of_series[points.run_series]
            rows = ScannedRows(
                points, groups, None, points.run_series, group, points.run_starts, points.time_ns, derived
            )
            if measurement.filter is not None:
                rows = rows.where(to_mask(evaluate(measurement.filter, _Leaves(rows).lookup), len(rows)))
            if len(rows):
                yield rows

    def where(self, mask: Bools) -> ScannedRows:
        """The rows of ``mask``; of rows that are all of the piece's."""
        kept = np.flatnonzero(mask)
        if len(kept) == len(mask):
            return self
        counts = np.add.reduceat(mask, self.run_starts, dtype=np.int64)
        runs = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[runs]
        series, group, times = self.run_series[runs], self.run_group[runs], self.time_ns[kept]
        return ScannedRows(self.points, self.groups, kept, series, group, starts, times, self.derived)

    def spread(self, per_run: Any) -> Any:
        """A value per run as a value per row."""
        return np.repeat(per_run, run_lengths(self.run_starts, len(self)))

    def column(self, ref: Ref) -> Column:
        """Values of a field or tag in every row."""
        if ref.type == "unknown":
            return Column.missing(FieldType.FLOAT, len(self))
        if ref.is_tag and not (self.derived and ref.name in self.points.fields):
            texts, codes = tag_texts(self.points.series, ref.name, self.run_series)
            return coded_strings(texts, self.spread(codes))
        column = self.points.fields.get(ref.name)
        if column is None:
            return Column.missing(ref.field_type, len(self))
        return cast_column(column if self.kept is None else column.take(self.kept), ref.field_type)


def _flat(predicate: TagPredicate) -> TagPredicate:
    """The same with what is chained by AND or by OR on one level, as an index wants it: chains come nested in pairs."""
    if not isinstance(predicate, AllOf | AnyOf):
        return predicate
    kind = type(predicate)
    parts: list[TagPredicate] = []
    for part in map(_flat, predicate.parts):
        parts += part.parts if isinstance(part, kind) else (part,)
    return kind(tuple(parts))


def _edge(plan: SelectPlan, measurement: MeasurementPlan, reader: ShardReader, wanted: set[str]) -> Edge | None:
    """How many rows of each series are enough: of raw points as many as LIMIT and OFFSET let through of a group.

    One suffices for the first or last value of a field over all times. Every row that a scan gives must count: none
    may be filtered, or have nothing but values that the plan reads as another type, in which they are missing.
    """
    if measurement.filter is not None:
        return None
    if plan.calls:
        (call, *others) = plan.calls
        if others or call.function not in ("first", "last") or call.transforms or plan.interval_ns or len(wanted) > 1:
            return None
        edge = Edge(1, newest=call.function == "last")
    elif plan.limit:
        edge = Edge(plan.limit + plan.offset, newest=not plan.ascending)
    else:
        return None
    stored = reader.field_types(measurement.name)
    refs = [*plan.refs, *(call.ref for call in plan.calls)]
    readable = all(
        ref.is_tag or ref.type == "unknown" or can_cast(stored.get(ref.name, ref.field_type), ref.field_type)
        for ref in refs
    )
    return edge if readable else None


@dataclass(frozen=True, slots=True)
class _Leaves:
    """Columns of the leaves of a row filter."""

    rows: ScannedRows

    def lookup(self, leaf: Slot | FieldLeaf | TagLeaf) -> Column | None:
        match leaf:
            case FieldLeaf(name):
                return self.rows.points.fields.get(name)
            case TagLeaf(name):
                texts, codes = tag_texts(self.rows.points.series, name, self.rows.run_series)
                texts = pa.concat_arrays([texts, pa.array([""], pa.string())])
                codes = np.where(codes < 0, np.int32(len(texts) - 1), codes)
                return coded_strings(texts, self.rows.spread(codes))
        return None
