"""From a SELECT to its plan: a pure function of the statement, the schemas of its sources and the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from zoneinfo import ZoneInfo

import re2
from msgspec.structs import replace

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql.condition import split_condition
from dsdbd.influxql.format import column_name, to_text
from dsdbd.limits import MAX_QUERY_BUCKETS
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS
from dsdbd.model.types import FieldType
from dsdbd.query import mathfunctions
from dsdbd.query.aggregates import SELECTORS
from dsdbd.query.plan_calls import aggregate_plan, checked, picked_tags, transform_plan, value_type
from dsdbd.query.plan_check import TRANSFORMS, check_select, time_dimension
from dsdbd.query.plan_condition import divide_condition, literal
from dsdbd.query.plan_derived import Outer, condition_schema, derived_place
from dsdbd.query.plan_fields import column_names, expand_dimensions, expand_fields, is_time, simplified
from dsdbd.query.plan_types import (
    CallPlan,
    Expr,
    Lit,
    MathCall,
    MeasurementPlan,
    Op,
    OutputColumn,
    Ref,
    SelectPlan,
    Slot,
    SourcePlan,
    Transform,
    predicate_to_wire,
)
from dsdbd.query.schema import Derived, MeasurementSchema, merge_schemas

Schemas = Mapping[tuple[str, str], Mapping[str, MeasurementSchema]]
SourceName = tuple[str | None, str | None, "str | re2._Regexp"]
_NUMBERS = (FieldType.FLOAT, FieldType.INTEGER)
_BITWISE = ("&", "|", "^")
_CASTS = {"float": "float", "integer": "integer", "unsigned": "integer", "string": "string", "boolean": "boolean"}


def sources_of(select: ast.Select) -> list[SourceName]:
    """(database, policy, name or compiled pattern) of every measurement a statement reads, subqueries included."""
    found: list[SourceName] = []
    for source in select.sources:
        if isinstance(source, ast.SubQuery):
            found += sources_of(source.statement)
        else:
            name = source.name if source.regex is None else re2.compile(source.regex.pattern)
            found.append((source.database, source.retention_policy, name))
    return found


def normalise(select: ast.Select, database: str | None, default_policy: Callable[[str], str]) -> ast.Select:
    """The statement with database and policy filled in on every source; RequestError where no database is known.

    ``default_policy`` gives the name of a database's default policy and raises NotFound for an unknown database.
    """
    sources: list[ast.Source] = []
    for source in select.sources:
        if isinstance(source, ast.SubQuery):
            sources.append(ast.SubQuery(normalise(source.statement, database, default_policy)))
            continue
        name = source.database or database
        if not name:
            raise RequestError("database name required")
        policy = source.retention_policy or default_policy(name)
        sources.append(replace(source, database=name, retention_policy=policy))
    return replace(select, sources=tuple(sources))


def plan_select(select: ast.Select, schemas: Schemas, now_ns: int) -> SelectPlan:
    """The plan of a normalised SELECT.

    Args:
        select: statement whose sources all have database and policy (``normalise``).
        schemas: what is stored, per (database, policy); measurements that are not in it have no points.
        now_ns: the value of ``now()``.

    Raises:
        RequestError: in the words of InfluxDB 1.x, or naming what is not supported yet.

    """
    return Planner(schemas, now_ns).plan(select)


def _matches(source: ast.Measurement, names: Iterable[str]) -> list[str]:
    if source.regex is None:
        return [source.name] if source.name in names else []
    compiled = re2.compile(source.regex.pattern)
    return sorted(name for name in names if compiled.search(name))


class _TypesDiffer(RequestError):
    """An operator does not take the types of its operands."""


class Planner:
    """Holds what is found while one statement is planned; it decides nothing from outside its arguments."""

    def __init__(self, schemas: Schemas, now_ns: int, derived: Sequence[Mapping[str, MeasurementSchema]] = ()) -> None:
        self._schemas = schemas
        self._now_ns = now_ns
        self._derived = derived
        """What each subquery of the statement gives, in their order."""
        self._schema = MeasurementSchema({}, frozenset())
        self._lenient = False
        """A subquery: what its types make impossible has no values there, and is no error."""
        self._refs: list[Ref] = []
        self._calls: list[CallPlan] = []
        self._ref_places: dict[Ref, int] = {}
        self._call_places: dict[tuple[object, ...], int] = {}
        self.found: list[tuple[tuple[str, str], str, MeasurementSchema]] = []
        """Place, name and schema of every measurement that is read."""
        self.dimensions: list[str] = []
        self.fields: tuple[ast.Field, ...] = ()
        """The select list without wildcards and without time, with the tags that ``top`` and ``bottom`` show."""
        self._listed: tuple[ast.Field, ...] = ()

    def plan(self, select: ast.Select) -> SelectPlan:
        """The plan of a statement without subqueries."""
        refuse_unsupported(select)
        select = simplified(select)
        window = time_dimension(select.dimensions, self._now_ns)
        check_select(select, has_interval=window[0] > 0)
        self.look_up(select)
        return self.planned(select, window=window)

    def look_up(self, select: ast.Select) -> None:
        """Find what the names of a statement stand for."""
        found = self.found = self._measurements(select)
        if len(found) == 1:
            self._schema = found[0][2]
        elif found:
            self._schema = merge_schemas([{"": schema} for _, _, schema in found])[""]
        self.dimensions = expand_dimensions(select.dimensions, self._schema)
        # With a pattern among the dimensions ``*`` stands for no tag at all, as in InfluxDB 1.x.
        patterns = any(isinstance(expr, ast.RegexLiteral) for expr in select.dimensions)
        grouped = self._schema.tags if patterns else frozenset(self.dimensions)
        self.fields = expand_fields(
            (field for field in select.fields if not is_time(field.expr)), self._schema, grouped
        )
        self._listed = self.fields
        if select.target is None:
            self.fields = picked_tags(self.fields)

    def planned(
        self, select: ast.Select, outer: Outer | None = None, window: tuple[int, int] | None = None
    ) -> SelectPlan:
        """The plan of the statement that was looked up.

        ``outer``: what the statement around it hands on to it. ``window``: its interval and offset, if they are known.
        """
        zone = ZoneInfo(select.timezone) if select.timezone else None
        condition, times = split_condition(select.condition, self._now_ns, zone)
        interval_ns, offset_ns = window or time_dimension(select.dimensions, self._now_ns)
        self._lenient = outer is not None
        fields = self.fields
        dimensions = self.dimensions if outer is None else outer.with_own(self.dimensions)
        columns = [
            OutputColumn(name, self._expr(field.expr)) for name, field in zip(column_names(fields), fields, strict=True)
        ]
        plan = SelectPlan(
            min_ns=MIN_TIME_NS if times.min_ns is None else max(times.min_ns, MIN_TIME_NS),
            max_ns=self._upper(times.max_ns, interval_ns),
            sources=_source_plans(self.found, condition, dimensions) if self._reads_something() else [],
            columns=columns,
            refs=self._refs,
            calls=self._calls,
            dimensions=dimensions,
            time_name=next((f.alias or "time" for f in select.fields if is_time(f.expr)), "time"),
            interval_ns=interval_ns,
            offset_ns=offset_ns,
            selector=len(self._calls) == 1 and self._calls[0].function in SELECTORS and not self._calls[0].transforms,
            ascending=select.ascending,
            fill=select.fill.value,
            fill_value=select.fill_value,
            limit=select.limit,
            offset=select.offset,
            slimit=select.slimit,
            soffset=select.soffset,
            timezone="" if select.timezone in (None, "UTC") else select.timezone,
        )
        if outer is not None:
            plan = outer.handed_on(plan)
        _refuse_too_many_buckets(plan)
        return plan

    def _upper(self, max_ns: int | None, interval_ns: int) -> int:
        if max_ns is not None:
            return min(max_ns, MAX_TIME_NS)
        return self._now_ns if interval_ns else MAX_TIME_NS

    def _measurements(self, select: ast.Select) -> list[tuple[tuple[str, str], str, MeasurementSchema]]:
        found = {}
        derived = 0
        for source in select.sources:
            if isinstance(source, ast.SubQuery):
                found.update({(derived_place(derived), name): one for name, one in self._derived[derived].items()})
                derived += 1
                continue
            if source.database is None or source.retention_policy is None:
                raise RequestError("database name required")
            place = (source.database, source.retention_policy)
            stored = self._schemas.get(place, {})
            for name in _matches(source, stored):
                found[place, name] = stored[name]
        return [(place, name, schema) for (place, name), schema in found.items()]

    def _reads_something(self) -> bool:
        """False when no name of the select list is a field: such a statement has an empty answer."""
        if self._calls:
            return any(call.ref.type not in ("tag", "unknown") for call in self._calls)
        return any(ref.type not in ("tag", "unknown") for ref in self._refs)

    def names(self) -> tuple[str, ...]:
        """What the columns are called before equal names get numbers."""
        return tuple(column_name(field) for field in self.fields)

    def schema(self) -> dict[str, MeasurementSchema]:
        """What a statement that was looked up gives to the one around it; raises RequestError as ``planned`` does."""
        fields: dict[str, FieldType] = {}
        labels, unknown = set(), set()
        for name, field in zip(self.names(), self.fields, strict=True):
            if name in fields or name in unknown:
                continue
            kind = self._kind(field.expr)
            if kind is None:
                unknown.add(name)
                continue
            fields[name] = kind
            if self._is_label(field.expr):
                labels.add(name)
        derived = Derived(
            labels=frozenset(labels),
            unknown=frozenset(unknown),
            hidden=frozenset(self.names()) - {column_name(field) for field in self._listed},
            titles=frozenset(column_names(self.fields)),
            windows=any(call.function != "raw" for call in self._calls)
            or any(one.derived is not None and one.derived.windows for _, _, one in self.found),
        )
        schema = MeasurementSchema(fields, frozenset(self.dimensions), derived=derived)
        return {name: schema for _, name, _ in self.found}

    def _kind(self, expr: ast.Expr) -> FieldType | None:
        try:
            self._expr(expr)
        except _TypesDiffer:
            return None
        return self._declared(expr)

    def _declared(self, expr: ast.Expr) -> FieldType | None:
        """Type of a column of a subquery. Whole numbers divided stay whole there, as in InfluxDB 1.x."""
        match expr:
            case ast.ParenExpr(inner):
                return self._declared(inner)
            case ast.BinaryExpr(_, lhs, rhs):
                left, right = self._declared(lhs), self._declared(rhs)
                if left is None or right is None:
                    return left or right
                return left if left is right else FieldType.FLOAT
        return self._type_of(expr)

    def _is_label(self, expr: ast.Expr) -> bool:
        """Whether values are those of a tag."""
        while isinstance(expr, ast.ParenExpr):
            expr = expr.expr
        if not isinstance(expr, ast.VarRef):
            return False
        derived = self._schema.derived
        if derived is None:
            return self._ref(expr).is_tag
        return expr.name in derived.labels or (expr.name not in self._schema.fields and expr.name in self._schema.tags)

    def _derived_ref(self, ref: ast.VarRef) -> Ref:
        """What a name stands for in subqueries: a cast makes numbers of numbers there, and nothing else."""
        kind = self._schema.fields.get(ref.name)
        if kind is None:
            return Ref(ref.name, "string" if ref.name in self._schema.tags else "unknown")
        cast = _CASTS.get(ref.type or "", "")
        return Ref(ref.name, cast if kind in _NUMBERS and cast in ("float", "integer") else kind.value)

    def _ref(self, ref: ast.VarRef) -> Ref:
        if self._schema.derived is not None:
            return self._derived_ref(ref)
        if ref.type in _CASTS:
            return Ref(ref.name, _CASTS[ref.type])
        if ref.type != "tag" and ref.name in self._schema.fields:
            return Ref(ref.name, self._schema.fields[ref.name].value)
        if ref.type != "field" and ref.name in self._schema.tags:
            return Ref(ref.name, "tag")
        return Ref(ref.name, "unknown")

    def _expr(self, expr: ast.Expr) -> Expr:
        match expr:
            case ast.Call(name) if name not in mathfunctions.ARGUMENT_COUNTS:
                return self._call_slot(self._call(expr))
            case ast.VarRef():
                return self._ref_slot(self._ref(expr))
            case ast.ParenExpr(inner):
                return self._expr(inner)
            case ast.BinaryExpr(op, lhs, rhs):
                self._check_types(expr)
                return Op(op, self._expr(lhs), self._expr(rhs))
            case ast.Call(name, args):
                return MathCall(name, [self._expr(arg) for arg in args])
            case ast.Distinct():
                return self._call_slot(self._call(expr))
            case ast.DurationLiteral(value):
                return Lit(value)
        found = literal(expr)
        if found is not None:
            return found
        raise RequestError(f"the select list cannot use this expression: {to_text(expr)}")

    def _ref_slot(self, ref: Ref) -> Slot:
        place = self._ref_places.setdefault(ref, len(self._refs))
        if place == len(self._refs):
            self._refs.append(ref)
        return Slot("ref", place)

    def _call_slot(self, call: CallPlan) -> Slot:
        key = (call.function, call.ref, call.arg, *call.transforms, *call.apart)
        place = self._call_places.setdefault(key, len(self._calls))
        if place == len(self._calls):
            self._calls.append(call)
        return Slot("call", place)

    def _call(self, call: ast.Call | ast.Distinct) -> CallPlan:
        transforms: list[Transform] = []
        while type(call) is ast.Call and call.name in TRANSFORMS:
            transforms.insert(0, transform_plan(call))
            inner = call.args[0]
            if isinstance(inner, ast.VarRef):
                return checked(CallPlan("raw", self._ref(inner), 0.0, transforms))
            assert isinstance(inner, ast.Call)
            call = inner
        if isinstance(call, ast.Distinct):
            return CallPlan("distinct", self._ref(ast.VarRef(call.name)))
        name, first = call.name, call.args[0]
        if isinstance(first, ast.Distinct):
            name, first = "count_distinct", ast.VarRef(first.name)
        elif isinstance(first, ast.Call):
            name, first = "count_distinct", first.args[0]
        assert isinstance(first, ast.VarRef)
        return aggregate_plan(name, self._ref(first), call, transforms, self._apart_ref, self._now_ns)

    def _apart_ref(self, ref: ast.VarRef) -> Ref:
        """What tells points of ``top`` apart: subqueries are grouped by it, so that it is a tag there."""
        return self._ref(ref) if self._schema.derived is None else Ref(ref.name, "tag")

    def _check_types(self, expr: ast.BinaryExpr) -> None:
        if self._lenient:
            return
        left, right = self._type_of(expr.lhs), self._type_of(expr.rhs)
        if left is None or right is None:
            return
        bitwise = expr.op in _BITWISE
        unsigned = isinstance(expr.lhs, ast.UnsignedLiteral) or isinstance(expr.rhs, ast.UnsignedLiteral)
        if unsigned and FieldType.INTEGER in (left, right):
            problem = f"cannot use {expr.op} with an integer and unsigned literal"
        elif _compute(left, right, bitwise=bitwise):
            return
        else:
            problem = f"incompatible types: {self._type_name(expr.lhs, left)} and {self._type_name(expr.rhs, right)}"
        raise _TypesDiffer(f"type error: {to_text(self._typed(expr))}: {problem}")

    def _type_name(self, expr: ast.Expr, found: FieldType) -> str:
        return "tag" if isinstance(expr, ast.VarRef) and self._ref(expr).is_tag else found.value

    def _type_of(self, expr: ast.Expr) -> FieldType | None:
        match expr:
            case ast.VarRef():
                ref = self._ref(expr)
                return None if ref.type == "unknown" else ref.field_type
            case ast.ParenExpr(inner):
                return self._type_of(inner)
            case ast.NumberLiteral() | ast.UnsignedLiteral():
                return FieldType.FLOAT
            case ast.IntegerLiteral() | ast.DurationLiteral():
                return FieldType.INTEGER
            case ast.StringLiteral():
                return FieldType.STRING
            case ast.BooleanLiteral():
                return FieldType.BOOLEAN
            case ast.Call(name, args) if name in mathfunctions.ARGUMENT_COUNTS:
                whole = all(self._type_of(arg) is FieldType.INTEGER for arg in args)
                integer = mathfunctions.result_is_integer(name, integer_arguments=whole)
                return FieldType.INTEGER if integer else FieldType.FLOAT
            case ast.Call() | ast.Distinct():
                call = self._call(expr)
                return None if call.ref.type in ("unknown", "tag") else value_type(call)
            case ast.BinaryExpr(op, lhs, rhs):
                types = (self._type_of(lhs), self._type_of(rhs))
                if types[0] is FieldType.BOOLEAN and op in _BITWISE:
                    return FieldType.BOOLEAN
                return types[0] if types[0] is types[1] and op != "/" else FieldType.FLOAT
        return None

    def _typed(self, expr: ast.Expr) -> ast.Expr:
        """The expression with every name's type written out, as error texts show it."""
        match expr:
            case ast.VarRef(name):
                kind = self._ref(expr).type
                return expr if kind == "unknown" else ast.VarRef(name, kind)
            case ast.ParenExpr(inner):
                return ast.ParenExpr(self._typed(inner))
            case ast.BinaryExpr(op, lhs, rhs):
                return ast.BinaryExpr(op, self._typed(lhs), self._typed(rhs))
            case ast.Call(name, args):
                return ast.Call(name, tuple(self._typed(arg) for arg in args))
        return expr


def _compute(left: FieldType, right: FieldType, *, bitwise: bool) -> bool:
    """Whether an operator has a value for these types: numbers, no floats with bits, and bits of a boolean first."""
    if bitwise and left is FieldType.BOOLEAN:
        return True
    return left in _NUMBERS and right in _NUMBERS and not (bitwise and FieldType.FLOAT in (left, right))


def _source_plans(
    found: list[tuple[tuple[str, str], str, MeasurementSchema]], condition: ast.Expr | None, dimensions: list[str]
) -> list[SourcePlan]:
    by_place: dict[tuple[str, str], list[MeasurementPlan]] = {}
    for place, name, schema in found:
        derived = schema.derived
        rows = divide_condition(condition, schema if derived is None else condition_schema(schema, dimensions))
        measurement = MeasurementPlan(name, predicate_to_wire(rows.predicate), rows.filter, list(rows.fields))
        if derived is not None:
            measurement = replace(measurement, derived=True, windows=derived.windows)
        by_place.setdefault(place, []).append(measurement)
    return [SourcePlan(database, policy, plans) for (database, policy), plans in by_place.items()]


def refuse_unsupported(select: ast.Select) -> None:
    """Raise RequestError for parts of a statement that no plan has."""
    if any(sort.name not in ("", "time") for sort in select.sort):
        raise RequestError("only ORDER BY time supported at this time")


def _refuse_too_many_buckets(plan: SelectPlan) -> None:
    if not plan.interval_ns or not plan.bounded_below or plan.max_ns < plan.min_ns:
        return
    buckets = (plan.max_ns - plan.min_ns) // plan.interval_ns + 1
    if buckets > MAX_QUERY_BUCKETS:
        raise RequestError(
            f"GROUP BY time makes {buckets} buckets in the time range of the query, the limit is {MAX_QUERY_BUCKETS}; "
            "use a longer interval or a shorter range"
        )
