"""The read path of the coordinator: ask one owner of every shard for its part, near the data, and merge the parts.

An owner that does not answer is replaced by the next one at once. When a shard has no owner left the query fails and
names it: an answer is never silently short.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

import msgspec

from dsdbd import query
from dsdbd.cluster import nested
from dsdbd.cluster.asking import Asking, Part, ReadRequest, decode_request
from dsdbd.cluster.cancellation import Cancellation as Cancellation
from dsdbd.cluster.demand import ReadLevel
from dsdbd.cluster.freshness import reach_index
from dsdbd.cluster.local_reads import LocalReads
from dsdbd.cluster.relayed_reads import RelayedReads
from dsdbd.cluster.small_reads import SmallReads
from dsdbd.cluster.whole_reads import WholeReads
from dsdbd.errors import NotFound, RequestError, ShardUnavailable, Unavailable
from dsdbd.influxql.condition import split_condition
from dsdbd.meta import views
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS
from dsdbd.query import AnswerPart
from dsdbd.query.select_limits import limit_buckets

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from dsdbd.cluster.node import Node
    from dsdbd.influxql import ast
    from dsdbd.meta.views import ShardPlace
    from dsdbd.query import MeasurementSchema, Partial, SelectPlan, SeriesBlock, Steps
    from dsdbd.query.plan import Schemas
    from dsdbd.storage import Shard

_Source = tuple[str, str]
_Result = TypeVar("_Result")
_Args = ParamSpec("_Args")
_THREADS = 8
"""Pieces of queries that run at once; more than cores, because they also wait for files."""


@dataclass(slots=True)
class _Begun:
    """A SELECT whose first part is known: the steps behind it, and its rows where they are finished already.

    ``emit`` is None where there is no part at all.
    """

    steps: Steps
    emit: query.Emit | None
    series: list[SeriesBlock] | None = None


class LocalShard(NamedTuple):
    """A shard of this node: for a query, and by itself."""

    reader: query.BoundedShard
    stored: Shard


class ReadPath:
    """Answers SELECT and the SHOW statements about stored points; one per node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="query")
        self._local = LocalReads(node)
        self._asking = Asking(node, self._answer_here)
        self._whole = WholeReads(node, self, self._asking)
        self.small = SmallReads(node, self)
        self.relayed = RelayedReads(node, self)

    def work(self, function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> Future[_Result]:
        """Run a piece of a query in the threads for queries, apart from those that parse and store points."""
        return asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))

    async def select(
        self, statement: ast.Select, now_ns: int, cancelled: Cancellation
    ) -> AsyncGenerator[AnswerPart, None]:
        """The answer of a SELECT whose sources name database and policy, part by part as it is asked for.

        While one part is used the next is read, and not more: who asks slowly lets nothing pile up. Close the
        generator when it is not used to its end. Both raise RequestError, NotFound, ShardUnavailable, QueryCancelled.
        """
        if query.has_subqueries(statement):
            most = self._node.config.cluster.max_select_buckets
            return await nested.answer(self, statement, now_ns, cancelled, most)
        begun = None
        if cancelled.demand.level is ReadLevel.ONE:
            places = self._all_places(statement, now_ns)
            if self._are_here(places):
                begun = await cancelled.guard(self.work(self._begin_here, statement, now_ns, cancelled))
            else:
                whole = await self._whole.ask(statement, places, now_ns, cancelled)
                if whole is not None:
                    return _only(whole)
        if begun is None:
            schemas = await self.schemas(statement, now_ns, cancelled)
            plan = await cancelled.guard(self.work(self._plan, statement, schemas, now_ns))
            return await self.run(query.divide(plan, schemas), cancelled)
        return self._parts(begun, cancelled)

    async def run(self, steps: Steps, cancelled: Cancellation) -> AsyncGenerator[AnswerPart, None]:
        """The parts that the steps of a plan give, as ``select`` gives them."""
        return self._parts(_Begun(steps, await self._advance(steps, cancelled)), cancelled)

    async def _parts(self, begun: _Begun, cancelled: Cancellation) -> AsyncGenerator[AnswerPart, None]:
        steps, emit, series = begun.steps, begun.emit, begun.series
        begun.emit = begun.series = None
        while emit is not None:
            ahead = None if emit.last else asyncio.ensure_future(self._advance(steps, cancelled))
            try:
                if series is None:
                    series = await cancelled.guard(self.work(_finished, emit.plan, emit.partial, cancelled))
                part = AnswerPart(series, continues=emit.continues)
                emit = series = None  # so that no more than this part and the next are held
                yield part
                del part
                emit = None if ahead is None else await ahead
            finally:
                if ahead is not None:
                    ahead.cancel()
                    await asyncio.gather(ahead, return_exceptions=True)

    async def _advance(self, steps: Steps, cancelled: Cancellation) -> query.Emit | None:
        """Ask what the steps want to know, up to the next part of the answer; None after the last."""
        reply: Partial | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration:
                return None
            if isinstance(step, query.Emit):
                return step
            reply = await self.asked(step, cancelled)

    async def asked(self, step: query.Ask, cancelled: Cancellation) -> Partial | None:
        """The merged answer of all shards; None when a node has too many rows."""
        answers: list[bytes | Partial] = []
        for source in step.plan.sources:
            times = query.bounds(step.plan)
            places = self._places(source.database, source.policy, *times)
            kind = "groups" if step.groups else "select"
            request = ReadRequest(kind, source.database, source.policy, [], most_rows=step.most_rows)
            answers += await self._asking.all_of(Part(request, places, step.plan, *times), cancelled)
        if any(raw == b"" for raw in answers if isinstance(raw, bytes)):
            return None
        if len(answers) == 1 and step.onto is None and isinstance(answers[0], query.Partial):
            return answers[0]
        return await cancelled.guard(self.work(_united, step, answers))

    def _plan(self, statement: ast.Select, schemas: Schemas, now_ns: int) -> SelectPlan:
        plan = query.plan_select(statement, schemas, now_ns)
        return limit_buckets(plan, self._node.config.cluster.max_select_buckets)

    async def show(
        self, text: str, database: str, now_ns: int, cancelled: Cancellation, *, policy: str | None = None
    ) -> list[bytes]:
        """The encoded parts of a SHOW statement from every shard of a database, or of one of its policies.

        Raises as ``select`` does.
        """
        owner = views.database(self._node.metadata.state, database)
        parts: list[bytes] = []
        for name in owner.policies if policy is None else (policy,):
            places = self._places(database, name, MIN_TIME_NS, MAX_TIME_NS)
            request = ReadRequest("show", database, name, [], text.encode(), now_ns=now_ns)
            parts += [
                part for part in await self._asking.all_of(Part(request, places), cancelled) if isinstance(part, bytes)
            ]
        return parts

    async def serve(self, body: bytes, cancelled: Cancellation) -> bytes:
        """Answer another coordinator's request for shards that this node owns."""
        try:
            request = decode_request(body)
        except msgspec.MsgspecError as error:
            raise RequestError(
                f"the read request cannot be decoded: {error}; run equal versions on all nodes"
            ) from error
        await reach_index(self._node, request.metadata_index, self._node.config.cluster.shard_mapper_timeout_s / 2)
        if request.kind == "statement":
            return await self._whole.serve(request, cancelled)
        try:
            places = self._places_of(request)
        except NotFound:
            places = ()
        if len(places) != len(request.shards):
            raise ShardUnavailable(
                "this node's metadata does not hold all of the shards; they may just have been dropped"
            )
        await self._local.hold_all(places)
        answer = await self.work(self._local.run, request, places, cancelled)
        return answer if isinstance(answer, bytes) else await self.work(query.encode_partial, answer)

    # --- what is where

    async def schemas(
        self, statement: ast.Select, now_ns: int, cancelled: Cancellation
    ) -> dict[_Source, dict[str, MeasurementSchema]]:
        """Fields and tags of every measurement the statement may read, as its shards hold them."""
        found: dict[_Source, dict[str, MeasurementSchema]] = {}
        for key, request, places in self._schema_requests(statement, now_ns):
            part = Part(request, places, None, *_times_of(statement, now_ns))
            answers = await self._asking.all_of(part, cancelled)
            found[key] = query.merge_schemas(query.decode_schema(raw) for raw in answers if isinstance(raw, bytes))
        return found

    def _schema_requests(
        self, statement: ast.Select, now_ns: int
    ) -> list[tuple[_Source, ReadRequest, tuple[ShardPlace, ...]]]:
        """Whose schemas a statement needs, and of which shards."""
        wanted: dict[_Source, ReadRequest] = {}
        for database, policy, name in query.sources_of(statement):
            assert database is not None
            assert policy is not None
            key = (database, views.policy(self._node.metadata.state, database, policy).name)
            request = wanted.setdefault(key, ReadRequest("schema", *key, []))
            if isinstance(name, str):
                request.names.append(name)
            else:
                request.patterns.append(name.pattern)
        times = _times_of(statement, now_ns)
        return [(key, request, self._places(*key, *times)) for key, request in wanted.items()]

    def _all_places(self, statement: ast.Select, now_ns: int) -> list[ShardPlace]:
        return [place for _, _, places in self._schema_requests(statement, now_ns) for place in places]

    def only_other_owner(self, statement: ast.Select, now_ns: int) -> int | None:
        """The one other node at which all that a statement may read is to be read; None where there is none."""
        owner = self._asking.only_owner(self._all_places(statement, now_ns))
        return None if owner == self._node.data_id else owner

    def _places(self, database: str, policy_name: str, min_ns: int, max_ns: int) -> tuple[ShardPlace, ...]:
        state = self._node.metadata.state
        owner, policy = views.database(state, database), views.policy(state, database, policy_name)
        groups = views.groups_overlapping(policy, min_ns, max_ns)
        return tuple(views.ShardPlace(owner, policy, group, shard) for group in groups for shard in group.shards)

    def _places_of(self, request: ReadRequest) -> tuple[ShardPlace, ...]:
        wanted = set(request.shards)
        places = self._places(request.database, request.policy, MIN_TIME_NS, MAX_TIME_NS)
        return tuple(place for place in places if place.shard.id in wanted)

    def local_shards(self, database: str, policy: str, min_ns: int, max_ns: int) -> list[LocalShard] | None:
        """The shards with times of a range that hold anything; None where one is not here, or not to be read yet."""
        places = self._places(database, policy, min_ns, max_ns)
        store = self._node.store
        if store is None or not self._are_here(places):
            return None
        found = [(place.group, store.shard(place.shard.id)) for place in places]
        return [
            LocalShard(query.BoundedShard(shard, group.start_ns, group.end_ns), shard)
            for group, shard in found
            if shard is not None
        ]

    # --- asking

    def owners(self, database: str, policy: str, min_ns: int, max_ns: int) -> dict[int, list[ShardPlace]]:
        """Whom a query would ask for the shards with times of a range; raises ShardUnavailable."""
        return self._asking.chosen(self._places(database, policy, min_ns, max_ns))

    # --- answering, in a worker thread

    def _begin_here(self, statement: ast.Select, now_ns: int, cancelled: Cancellation) -> _Begun | None:
        """The first part of a SELECT whose shards are all on this node, in one go; None where they are not.

        Handing work to a thread and back takes about as long as a small query itself, so that it is done once and not
        for every step. None also where a shard here cannot be read, which another owner may have.
        """
        try:
            _, steps = self._steps_here(statement, now_ns)
            emit = self._advance_here(steps, cancelled)
        except (Unavailable, _Elsewhere):
            return None
        if emit is None or not emit.last:
            return _Begun(steps, emit)
        return _Begun(steps, emit, _finished(emit.plan, emit.partial, cancelled))

    def whole_here(self, statement: ast.Select, now_ns: int, cancelled: Cancellation) -> query.Emit | None:
        """The only part of a SELECT's answer, unfinished; None where it has several, or not all shards are here."""
        try:
            plan, steps = self._steps_here(statement, now_ns)
            step = next(steps, None)
            # What is divided into parts is for the coordinator to ask for, as fast as its client reads.
            if not isinstance(step, query.Ask) or step.groups or step.plan is not plan:
                return None
            found = self._asked_here(step, cancelled)
        except (Unavailable, _Elsewhere):
            return None
        emit = None if found is None else steps.send(found)
        return emit if isinstance(emit, query.Emit) and emit.last else None

    def _steps_here(self, statement: ast.Select, now_ns: int) -> tuple[SelectPlan, Steps]:
        """The plan of a SELECT and its steps; raises _Elsewhere where not all shards are on this node."""
        schemas = {}
        for key, request, places in self._schema_requests(statement, now_ns):
            if not self._are_here(places):
                raise _Elsewhere
            schemas[key] = self._local.schema(request, places)
        plan = self._plan(statement, schemas, now_ns)
        return plan, query.divide(plan, schemas)

    def _advance_here(self, steps: Steps, cancelled: Cancellation) -> query.Emit | None:
        """As ``_advance``; raises _Elsewhere where a step asks for shards that are not on this node."""
        reply: Partial | None = None
        while True:
            cancelled.check()
            try:
                step = steps.send(reply)
            except StopIteration:
                return None
            if isinstance(step, query.Emit):
                return step
            reply = self._asked_here(step, cancelled)

    def _asked_here(self, step: query.Ask, cancelled: Cancellation) -> Partial | None:
        parts: list[Partial] = [] if step.onto is None else [step.onto]
        for source in step.plan.sources:
            places = self._places(source.database, source.policy, *query.bounds(step.plan))
            if not self._are_here(places):
                raise _Elsewhere
            kind = "groups" if step.groups else "select"
            request = ReadRequest(kind, source.database, source.policy, [], most_rows=step.most_rows)
            part = self._local.run(request, places, cancelled, step.plan)
            if not isinstance(part, query.Partial):
                return None
            parts.append(part)
        return query.merge(step.plan, parts)

    def _are_here(self, places: Iterable[ShardPlace]) -> bool:
        """Whether this node is the one to read all of these shards from."""
        return self._node.store is not None and all(map(self._asking.is_read_here, places))

    async def _answer_here(self, part: Part, places: Sequence[ShardPlace], cancelled: Cancellation) -> bytes | Partial:
        await self._local.hold_all(places)
        return await self.work(self._local.run, part.request, tuple(places), cancelled, part.plan)


async def _only(series: list[SeriesBlock]) -> AsyncGenerator[AnswerPart, None]:
    yield AnswerPart(series)


class _Elsewhere(Exception):
    """Shards are asked for that are not on this node. No user sees it."""


def _times_of(statement: ast.Select, now_ns: int) -> tuple[int, int]:
    """The first and the last time that a statement reads."""
    _, span = split_condition(statement.condition, now_ns)
    low = MIN_TIME_NS if span.min_ns is None else span.min_ns
    return low, MAX_TIME_NS if span.max_ns is None else span.max_ns


def _united(step: query.Ask, answers: Sequence[bytes | Partial]) -> Partial:
    parts = [raw if isinstance(raw, query.Partial) else query.decode_partial(step.plan, raw) for raw in answers]
    return query.merge(step.plan, parts if step.onto is None else [step.onto, *parts])


def _finished(plan: SelectPlan, partial: Partial, cancelled: Cancellation) -> list[SeriesBlock]:
    return list(query.finish(plan, partial, cancelled))
