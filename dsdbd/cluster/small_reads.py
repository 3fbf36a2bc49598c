"""Small questions that come again and again, answered at once on the event loop.

A dashboard asks the same few statements with other times and tag values. Such a statement is planned once and bound
anew each time, and what it reads is mostly in memory. Handing it to a thread and back costs as much as answering it.
What is not known to be small, in memory and on this node is left to ``ReadPath``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dsdbd import query
from dsdbd.errors import DSDBError
from dsdbd.influxql import ast, parse
from dsdbd.influxql.condition import split_condition
from dsdbd.influxql.shapes import has_plain_literals, shape_of
from dsdbd.limits import MAX_KEPT_QUERIES, MAX_KEPT_QUERY_CHARS, SMALL_ANSWER_CELLS, SMALL_QUERY_VALUES
from dsdbd.meta import views
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS
from dsdbd.storage.inline import NotAtOnce, NotNow, inline

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsdbd.cluster.node import Node
    from dsdbd.cluster.reads import LocalShard, ReadPath
    from dsdbd.meta.state import MetaState
    from dsdbd.query import Emit, Prepared, SelectPlan, SeriesBlock, Steps

_Result = TypeVar("_Result")
_REST = 32
"""A statement that could not be answered at once is left to the usual way so many times before it is tried again."""
_MOST_SHARDS = 4


@dataclass(slots=True)
class _Known:
    """A shape of statements: what was asked first, its plan once it was asked twice, and how often to leave it alone.

    ``state``: the metadata in which database and policy were found to be those of the plan.
    """

    prepared: Prepared | None = None
    select: ast.Select | None = None
    state: MetaState | None = None
    rest: int = 0


class SmallReads:
    """The statements of one node that are answered at once; use it on the event loop."""

    def __init__(self, node: Node, reads: ReadPath) -> None:
        self._node = node
        self._reads = reads
        self._known: dict[tuple[str, str, str], _Known] = {}
        settings = node.config.cluster
        # Only the usual way counts series, values and windows.
        self._is_counted = bool(settings.max_select_point or settings.max_select_series or settings.max_select_buckets)

    def answer(self, text: str, database: str, policy: str, now_ns: int) -> list[SeriesBlock] | None:
        """The answer of a statement; None where it is to be asked for in the usual way."""
        return self._at_once(text, database, policy, now_ns, _finished)

    def begin(self, text: str, now_ns: int) -> Emit | None:
        """The only part of the answer to another node's statement, which names what it reads; None as ``answer``."""
        return self._at_once(text, "", "", now_ns, _as_it_is)

    def _at_once(
        self, text: str, database: str, policy: str, now_ns: int, use: Callable[[Emit], _Result | None]
    ) -> _Result | None:
        if len(text) > MAX_KEPT_QUERY_CHARS or self._is_counted or self._waits():
            return None
        shape, values = shape_of(text)
        key = (shape, database, policy)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MAX_KEPT_QUERIES:
                self._known.clear()
            self._known[key] = _Known()
            return None
        if known.rest:
            known.rest -= 1
            return None
        try:
            emit = self._read(known, text, values, database, policy, now_ns)
            found = None if emit is None else use(emit)
        except NotNow:
            return None  # the usual way waits for what is not there yet
        except (DSDBError, NotAtOnce, OSError):
            found = None  # the usual way tells what is wrong, if anything is
        if found is None:
            known.rest = _REST
        return found

    def _waits(self) -> bool:
        """Whether some copies of this node may be short for a moment: the usual way waits for them."""
        return self._node.repair is not None and self._node.repair.gone.is_looking()

    def _read(
        self, known: _Known, text: str, values: tuple[str, ...], database: str, policy: str, now_ns: int
    ) -> Emit | None:
        if known.prepared is None or known.state is not self._node.metadata.state:
            self._look_up(known, text, values, database, policy, now_ns)
        prepared = known.prepared
        plan = None if prepared is None else prepared.bind(values, now_ns)
        if prepared is None or plan is None or not _is_small(plan):
            return None
        with inline(SMALL_QUERY_VALUES):
            return self._run(prepared, plan, now_ns)

    # --- planning

    def _look_up(
        self, known: _Known, text: str, values: tuple[str, ...], database: str, policy: str, now_ns: int
    ) -> None:
        """Plan a statement, or see whether the plan there is still means the same database and policy."""
        state = self._node.metadata.state

        def default_policy(name: str) -> str:
            return views.policy(state, name, policy if name == database else "").name

        if known.select is not None and known.prepared is not None:
            (source,) = query.normalise(known.select, database or None, default_policy).sources
            assert isinstance(source, ast.Measurement), "only such statements are prepared"
            if (source.database, source.retention_policy) == known.prepared.place:
                known.state = state
                return
            known.prepared = None
        known.select, known.state = None, state
        if not has_plain_literals(text):
            return
        statement, *others = parse(text)
        if others or not isinstance(statement, ast.Select):
            return
        named = query.normalise(statement, database or None, default_policy)
        known.prepared = self._prepared(named, values, now_ns)
        known.select = statement

    def _prepared(self, select: ast.Select, values: tuple[str, ...], now_ns: int) -> Prepared | None:
        if len(select.sources) != 1 or not isinstance(source := select.sources[0], ast.Measurement) or source.regex:
            return None
        assert source.database is not None
        assert source.retention_policy is not None
        place = (source.database, source.retention_policy)
        _, span = split_condition(select.condition, now_ns)
        low = MIN_TIME_NS if span.min_ns is None else span.min_ns
        shards = self._reads.local_shards(*place, low, MAX_TIME_NS if span.max_ns is None else span.max_ns)
        if shards is None or len(shards) > _MOST_SHARDS:
            return None
        schemas = {place: query.shard_schema([shard.reader for shard in shards], [source.name])}
        schema = schemas[place].get(source.name)
        if schema is None:
            return None
        return query.prepare(select, query.plan_select(select, schemas, now_ns), schema, values, now_ns)

    # --- running

    def _run(self, prepared: Prepared, plan: SelectPlan, now_ns: int) -> Emit | None:
        low, high = query.bounds(plan)
        # A statement that ends now may read what shards of later times know of its fields.
        shards = self._reads.local_shards(*prepared.place, low, MAX_TIME_NS if high >= now_ns else high)
        if not shards or len(shards) > _MOST_SHARDS:
            return None
        name = prepared.measurement
        extents = []
        for shard in shards:
            seen = shard.stored.glance(name)
            if seen is not None and not seen.types:
                continue
            if seen is None or not prepared.fits(seen.types, seen.tags):
                return None
            if seen.extent is not None:
                extents.append(seen.extent)
        schemas = {prepared.place: {name: prepared.schema_with(tuple(extents))}}
        return _only_part(query.divide(plan, schemas), shards, prepared.place)


def _is_small(plan: SelectPlan) -> bool:
    """Whether the answer for one group is small; how much is read is counted while it is read."""
    if not plan.interval_ns:
        return True
    buckets = (plan.max_ns - plan.min_ns) // plan.interval_ns + 1
    return plan.bounded_below and buckets * (len(plan.columns) + 1) <= SMALL_ANSWER_CELLS


def _only_part(steps: Steps, shards: list[LocalShard], place: tuple[str, str]) -> Emit | None:
    """The whole answer, where it is one part; None where it is not, or is not small."""
    readers = [shard.reader for shard in shards]
    step = next(steps)
    while isinstance(step, query.Ask):
        if step.groups or step.onto is not None:
            return None
        try:
            partial = query.run_partial(step.plan, place, readers, _never, step.most_rows)
        except query.TooManyRows:
            return None
        step = steps.send(partial)
    if not step.last:
        return None
    if step.plan.interval_ns and not _fits_when_filled(step.plan, step.partial):
        return None
    return step


def _as_it_is(emit: Emit) -> Emit:
    return emit


def _finished(emit: Emit) -> list[SeriesBlock] | None:
    """The rows of an answer; None where they are too many after all."""
    blocks = list(query.finish(emit.plan, emit.partial))
    cells = sum(len(block) * len(block.data) for block in blocks)
    return blocks if cells <= SMALL_ANSWER_CELLS else None


def _fits_when_filled(plan: SelectPlan, partial: query.Partial) -> bool:
    """Whether the answer is small with a row for each window of each group."""
    groups = max([len(part.groups) for part in (partial.states, *partial.tables) if part is not None], default=0)
    buckets = (plan.max_ns - plan.min_ns) // plan.interval_ns + 1
    return groups * buckets * (len(plan.columns) + 1) <= SMALL_ANSWER_CELLS


def _never() -> bool:
    return False
