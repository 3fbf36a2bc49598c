"""How many buckets, series and values one SELECT may have, when the settings say so."""

import pytest

from dsdbd.errors import RequestError
from dsdbd.model.predicate import AllOf
from dsdbd.model.scan import ScanRequest
from dsdbd.query import decode_plan, encode_plan, merge_schemas, normalise, plan_select, shard_schema
from dsdbd.query.select_limits import CountedShard, PointBudget, check_series, limit_buckets
from tests.query.query_engine import MemoryShard, Row, parse_one

MINUTE = 60 * 10**9
SOURCE = ("d", "autogen")
ROWS = [
    Row("load", (("host", host),), minute * MINUTE, (("one", 1.0), ("five", 5.0)))
    for host in ("a", "b", "c")
    for minute in (0, 1, 7)
]


@pytest.fixture
def shard():
    return MemoryShard(ROWS)


def planned(text, shard):
    select = normalise(parse_one(text), "d", lambda _: "autogen")
    schemas = {SOURCE: merge_schemas([shard_schema([shard])])}
    return plan_select(select, schemas, now_ns=100 * MINUTE)


@pytest.mark.parametrize("order", ["", " order by time desc"])
def test_without_a_lower_bound_the_last_buckets_are_read(shard, order):
    plan = planned(f"select mean(one) from load where time < 8m group by time(1m){order}", shard)
    limited = decode_plan(encode_plan(limit_buckets(plan, 3)))
    assert [limited.call_range(call) for call in limited.calls] == [(5 * MINUTE, 8 * MINUTE - 1)]
    assert not limited.bounded_below, "the answer begins with its first row, not with empty buckets"


@pytest.mark.parametrize(
    ("text", "buckets"),
    [
        ("select mean(one) from load where time >= 0 and time < 8m group by time(1m)", 8),
        ("select mean(one) from load where time >= 59s and time < 481s group by time(1m)", 9),
        ("select mean(one) from load where time >= 59s and time < 481s group by time(1m, 30s), host", 8),
        ("select max(five) from load where time >= 59m group by time(1m)", 42),
    ],
)
def test_a_lower_bound_with_more_buckets_is_refused(shard, text, buckets):
    plan = planned(text, shard)
    assert limit_buckets(plan, buckets) is plan
    with pytest.raises(RequestError) as caught:
        limit_buckets(plan, buckets - 1)
    assert caught.value.message == f"max-select-buckets limit exceeded: ({buckets}/{buckets - 1})"


@pytest.mark.parametrize(
    "text",
    [
        "select one from load",
        "select mean(one) from load where time >= 0",
        "select mean(one) from load where time >= 0 and time < -1m group by time(1m)",
    ],
)
def test_statements_without_buckets_are_not_limited(shard, text):
    plan = planned(text, shard)
    assert limit_buckets(plan, 1) is plan


def test_series_are_counted_as_a_statement_chooses_them(shard):
    check_series(planned("select one from load", shard), SOURCE, [shard], 3)
    check_series(planned("select one from load where host =~ /[ab]/", shard), SOURCE, [shard], 2)
    check_series(planned("select one from load", shard), ("d", "other"), [shard], 1)
    with pytest.raises(RequestError) as caught:
        check_series(planned("select count(five) from load", shard), SOURCE, [shard], 1)
    assert caught.value.message == "max-select-series limit exceeded: (2/1)"


def test_values_of_all_scans_of_a_query_are_counted_together(shard):
    plan = planned("select one, five from load", shard)
    (measurement,) = plan.sources[0].measurements
    budget = PointBudget()
    counted = CountedShard.of(shard, budget, 37)
    wanted = ScanRequest(
        measurement=measurement.name, predicate=AllOf(()), min_ns=0, max_ns=2**62, fields=["five", "one"]
    )
    assert sum(map(len, counted.scan(wanted))) == len(ROWS)
    assert budget.used == 18
    assert sum(map(len, counted.scan(wanted))) == len(ROWS)
    with pytest.raises(RequestError) as caught:
        list(counted.scan(wanted))
    assert caught.value.message == "max-select-point limit exceeed: (54/37)"
