"""What a node answers of its own shards: their schema, their part of an answer, or a refusal.

Nothing that may lack rows leaves this place: it is refused, and whoever asked goes to another owner of the shard.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import re2
import structlog

from dsdbd import query
from dsdbd.cluster.owners import not_owner
from dsdbd.errors import RequestError, ShardUnavailable
from dsdbd.influxql import parse
from dsdbd.meta import views
from dsdbd.query.select_limits import CountedShard, check_series

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dsdbd.cluster.asking import ReadRequest
    from dsdbd.cluster.cancellation import Cancellation
    from dsdbd.cluster.node import Node
    from dsdbd.influxql import ast_show
    from dsdbd.meta.views import ShardPlace
    from dsdbd.query import MeasurementSchema, Partial, SelectPlan

log = structlog.get_logger("query")


class LocalReads:
    """Reads the shards of one node for queries of any coordinator. What is not a coroutine runs in a worker thread."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def hold_all(self, places: Sequence[ShardPlace]) -> None:
        """Wait until this node holds what others confirmed: before it was an owner, or for a coordinator that is gone.

        Raises ShardUnavailable.
        """
        node = self._node
        if node.repair is not None:
            await node.repair.gone.over(places)
        if node.transfer is not None:
            await node.transfer.switching.over(places, node.config.cluster.shard_mapper_timeout_s / 2)

    def schema(self, request: ReadRequest, places: Sequence[ShardPlace]) -> dict[str, MeasurementSchema]:
        """Fields and tags of the measurements that a request names. Raises NotOwner, ShardUnavailable."""
        with self._reading(places):
            return query.shard_schema(self._readers(places), _names_of(request))

    def run(
        self,
        request: ReadRequest,
        places: tuple[ShardPlace, ...],
        cancelled: Cancellation,
        plan: SelectPlan | None = None,
    ) -> bytes | Partial:
        """The answer to a request for shards of this node, encoded but for that of a select or its groups.

        ``plan``: that of a select or its groups, where it need not be decoded. An empty answer: a select has more rows
        than the request allows. Raises NotOwner, ShardUnavailable, RequestError, QueryCancelled.
        """
        with self._reading(places):
            return self._read(request, self._readers(places), cancelled, plan)

    def _read(
        self,
        request: ReadRequest,
        readers: list[query.ShardReader],
        cancelled: Cancellation,
        plan: SelectPlan | None,
    ) -> bytes | Partial:
        if request.kind == "schema":
            return query.encode_schema(query.shard_schema(readers, _names_of(request)))
        if request.kind in ("select", "groups"):
            plan = query.decode_plan(request.argument) if plan is None else plan
            source = (request.database, request.policy)
            readers = self._limited(plan, source, readers, cancelled)
            if request.kind == "groups":
                return query.run_groups(plan, source, readers, cancelled)
            try:
                return query.run_partial(plan, source, readers, cancelled, request.most_rows)
            except query.TooManyRows:
                return b""
        if request.kind == "show":
            statement = cast("ast_show.SchemaStatement", parse(request.argument.decode())[0])
            return query.show_partial(statement, readers, request.now_ns, cancelled)
        raise RequestError(f"unknown kind of read request {request.kind!r}; run equal versions on all nodes")

    def _limited(
        self, plan: SelectPlan, source: tuple[str, str], readers: list[query.ShardReader], cancelled: Cancellation
    ) -> list[query.ShardReader]:
        """The shards as the settings let a SELECT read them. Raises RequestError for too many series."""
        settings = self._node.config.cluster
        if settings.max_select_series:
            check_series(plan, source, readers, settings.max_select_series)
        if not settings.max_select_point:
            return readers
        return [CountedShard.of(reader, cancelled.points, settings.max_select_point) for reader in readers]

    def _readers(self, places: Iterable[ShardPlace]) -> list[query.ShardReader]:
        """The shards of this node that hold anything; raises ShardUnavailable while the storage opens."""
        store = self._node.store
        if store is None:
            raise ShardUnavailable("the storage of this node is still opening")
        readers: list[query.ShardReader] = []
        for place in places:
            shard = store.shard(place.shard.id)
            if shard is not None:
                readers.append(query.BoundedShard(shard, place.group.start_ns, place.group.end_ns))
        return readers

    @contextlib.contextmanager
    def _reading(self, places: Sequence[ShardPlace]) -> Iterator[None]:
        """Refuse what was read inside where it may lack rows that another owner has: that one is asked then.

        Raises NotOwner where a shard was moved away, whose files may have been gone already, and ShardUnavailable where
        files cannot be read or were found damaged. A shard without other owners goes on without its damaged files;
        shards that were dropped meanwhile may lack anything.
        """
        node, before = self._node, self._damages(places)
        try:
            yield
        except OSError as error:
            log.warning("this node cannot read its files", reason=str(error))
            raise ShardUnavailable(f"data node {node.data_id} cannot read its files: {error}") from error
        # Files go only after the metadata says so, hence it is looked at when all is read.
        for place in views.newest(node.metadata.state, places):
            if node.data_id not in place.shard.owners:
                raise not_owner(node, place.shard.id)
        for shard_id, count in self._damages(places).items():
            if count > before.get(shard_id, 0):
                raise ShardUnavailable(
                    f"data node {node.data_id} found a file of shard {shard_id} damaged while it was read"
                )

    def _damages(self, places: Iterable[ShardPlace]) -> dict[int, int]:
        """How often files of the shards with other owners were found damaged, by the shard's id."""
        store = self._node.store
        shared = [place.shard.id for place in places if len(place.shard.owners) > 1]
        found = () if store is None else map(store.shard, shared)
        return {shard.shard_id: shard.damages for shard in found if shard is not None}


def _names_of(request: ReadRequest) -> list[Any]:
    return [*request.names, *(re2.compile(pattern) for pattern in request.patterns)]
