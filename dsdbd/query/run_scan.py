"""Rows of a shard as a plan reads them: filtered, grouped, with the columns of fields and tags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsdbd.model.columns import Bools, Column, Int32s
from dsdbd.model.scan import Piece
from dsdbd.model.types import FieldType
from dsdbd.query.columns import cast_column, string_column
from dsdbd.query.evaluate import evaluate, to_mask
from dsdbd.query.plan_types import FieldLeaf, MeasurementPlan, Ref, SelectPlan, Slot, TagLeaf, predicate_from_wire
from dsdbd.query.schema import ShardReader
from dsdbd.query.table import GroupKey, Table


@dataclass(frozen=True, slots=True)
class ScannedRows:
    """Rows of one measurement in one shard that pass the filter; ``group`` and ``points`` have the same rows."""

    points: Piece
    series_index: Int32s
    groups: tuple[GroupKey, ...]
    group: Any
    mask: Bools | None

    @staticmethod
    def read(
        plan: SelectPlan, measurement: MeasurementPlan, reader: ShardReader, lower: int, upper: int
    ) -> Iterator[ScannedRows]:
        """The pieces of a scan between two times, both included, that have rows the filter holds for."""
        refs = [*plan.refs, *(call.ref for call in plan.calls)]
        wanted = {ref.name for ref in refs if ref.type not in ("tag", "unknown")} | set(measurement.filter_fields)
        pieces = reader.scan(
            measurement.name,
            predicate=predicate_from_wire(measurement.predicate),
            min_ns=lower,
            max_ns=upper,
            fields=sorted(wanted),
        )
        for points in pieces:
            series_index = points.spread(np.arange(len(points.series), dtype=np.int32))
            mask = None
            if measurement.filter is not None:
                mask = to_mask(evaluate(measurement.filter, _Leaves(points, series_index).lookup), len(points))
                if not bool(mask.any()):
                    continue
            groups: dict[GroupKey, int] = {}
            of_series = np.empty(len(points.series), dtype=np.int32)
            texts = [points.series.texts(name) for name in plan.dimensions]
            for position, values in enumerate(zip(*texts, strict=True) if texts else [()] * len(points.series)):
                of_series[position] = groups.setdefault(GroupKey(measurement.name, values), len(groups))
            yield ScannedRows(points, series_index, tuple(groups), of_series[series_index], mask)

    def table(self, plan: SelectPlan, columns: dict[str, Column], mask: Bools, *, with_points: bool) -> Table:
        """Rows of the mask with these columns; without their points all rows are of one nameless series."""
        time = self.points.time_ns
        if plan.interval_ns:
            bucket = (time - plan.offset_ns) // plan.interval_ns * plan.interval_ns + plan.offset_ns
        else:
            bucket = np.zeros(len(time), dtype=np.int64)
        if with_points:
            members = tuple(key.decode() for key in self.points.series.series_keys())
            member = self.series_index
        else:
            members, member = ("",), np.zeros(len(time), dtype=np.int32)
        return Table(self.groups, members, self.group, bucket, time, member, columns).where(mask)

    def column(self, ref: Ref) -> Column:
        """Values of a field or tag in every row."""
        rows = len(self.points)
        if ref.type == "unknown":
            return Column.missing(FieldType.FLOAT, rows)
        if not ref.is_tag:
            column = self.points.fields.get(ref.name)
            return Column.missing(ref.field_type, rows) if column is None else cast_column(column, ref.field_type)
        return string_column(self.points.series.texts(ref.name), self.series_index, blank_is_null=True)


@dataclass(frozen=True, slots=True)
class _Leaves:
    """Columns of the leaves of a row filter."""

    points: Piece
    series_index: Int32s

    def lookup(self, leaf: Slot | FieldLeaf | TagLeaf) -> Column | None:
        match leaf:
            case FieldLeaf(name):
                return self.points.fields.get(name)
            case TagLeaf(name):
                return string_column(self.points.series.texts(name), self.series_index, blank_is_null=False)
        return None
