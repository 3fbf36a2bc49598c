"""How the points of a write are divided among shards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.routing import route
from dsdbd.meta.placement import HOUR_NS
from dsdbd.meta.state import Shard, ShardGroup
from dsdbd.model.columns import Points
from dsdbd.model.line_protocol import parse_lines

ROWS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3 * HOUR_NS - 1)), min_size=1, max_size=30)


def groups(shards: int) -> list[ShardGroup]:
    """Three hours, each with so many shards."""
    return [
        ShardGroup(hour, hour * HOUR_NS, (hour + 1) * HOUR_NS, tuple(Shard(10 * hour + n, (1,)) for n in range(shards)))
        for hour in range(3)
    ]


def rows_of(points: Points) -> list[tuple[bytes, int, object]]:
    values = points.fields["v"].to_arrow().to_pylist()
    keys = [points.series[place] for place in points.series_index.tolist()]
    return list(zip(keys, points.time_ns.tolist(), values, strict=True))


@given(ROWS, st.integers(1, 3))
def test_each_shard_gets_its_points_and_hears_of_no_other_series(rows: list[tuple[str, int]], shards: int) -> None:
    body = "\n".join(f"m,host={host} v={number} {time_ns}" for number, (host, time_ns) in enumerate(rows))
    parsed = parse_lines(body.encode(), precision="ns", default_time_ns=0)
    found = []
    places: dict[bytes, set[int]] = {}
    for shard, parts in route(parsed.points, groups(shards)):
        for part in parts:
            assert set(part.series_index.tolist()) == set(range(len(part.series)))
            assert all(time_ns // HOUR_NS == shard.id // 10 for time_ns in part.time_ns.tolist())
            for key in part.series:
                places.setdefault(key, set()).add(shard.id % 10)
            found += rows_of(part)
    assert sorted(found) == sorted(row for part in parsed.points for row in rows_of(part))
    assert all(len(shard) == 1 for shard in places.values()), "a series is in one shard of every group"
