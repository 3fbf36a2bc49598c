"""What ``[cluster] max-select-buckets``, ``max-select-series`` and ``max-select-point`` let one SELECT do.

The rules and texts are those of InfluxDB 1.6.7, but that it looks at the points of a query every ten seconds only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from dsdbd.errors import RequestError
from dsdbd.model.scan import Piece, ScanRequest
from dsdbd.model.times import MIN_TIME_NS
from dsdbd.query.plan_types import SelectPlan, predicate_from_wire
from dsdbd.query.schema import BoundedShard, ShardReader


def limit_buckets(plan: SelectPlan, most: int) -> SelectPlan:
    """The plan when it may have ``most`` buckets of GROUP BY time; 0 allows any number.

    A statement without a lower bound reads its last ``most`` buckets. Raises RequestError for one with a lower bound
    and more buckets.
    """
    if not most or not plan.interval_ns or not plan.calls or plan.max_ns < plan.min_ns:
        return plan
    last = plan.window_start(plan.max_ns)
    if not plan.bounded_below:
        return replace(plan, read_from_ns=max(last - (most - 1) * plan.interval_ns, MIN_TIME_NS))
    buckets = (last - plan.window_start(plan.min_ns)) // plan.interval_ns + 1
    if buckets > most:
        raise RequestError(f"max-select-buckets limit exceeded: ({buckets}/{most})")
    return plan


def check_series(plan: SelectPlan, source: tuple[str, str], readers: Iterable[ShardReader], most: int) -> None:
    """Raise RequestError when a measurement of a plan has more than ``most`` chosen series in one of these shards."""
    for reader in readers:
        for place in plan.sources:
            for measurement in place.measurements if (place.database, place.policy) == source else ():
                if len(reader.series(measurement.name, predicate_from_wire(measurement.predicate))) > most:
                    raise RequestError(f"max-select-series limit exceeded: ({most + 1}/{most})")


@dataclass(slots=True)
class PointBudget:
    """How many values the scans of one query have read on this node."""

    used: int = 0

    def take(self, points: int, most: int) -> None:
        """Count points; RequestError when there are as many as ``most`` together."""
        self.used += points
        if self.used >= most:
            raise RequestError(f"max-select-point limit exceeed: ({self.used}/{most})")


@dataclass(frozen=True, slots=True)
class CountedShard(BoundedShard):
    """A shard whose scans are counted."""

    budget: PointBudget
    most: int

    @staticmethod
    def of(reader: ShardReader, budget: PointBudget, most: int) -> CountedShard:
        """A shard as it is, but for the count; ``most`` is for all scans of one budget."""
        return CountedShard(reader, reader.start_ns, reader.end_ns, budget, most)

    def scan(self, request: ScanRequest) -> Iterator[Piece]:
        """As the shard's; raises RequestError instead of the piece with which there are too many values."""
        for piece in self.shard.scan(request):
            self.budget.take(len(piece) * max(len(piece.fields), 1), self.most)
            yield piece
