"""The questions of the benchmark and the comparison of their answers; no server is needed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.tsbs.compare import difference, difference_of_answers, difference_of_points, influx_points
from benchmarks.tsbs.generator import CPU_FIELDS, Workload
from benchmarks.tsbs.plot import plot
from benchmarks.tsbs.queries import KINDS, queries
from benchmarks.tsbs.report import Line, comparison, lines, markdown, table
from dsdbd.influxql.parser import parse

DAY = Workload(hosts=100, ticks=8_640)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 7])
def test_questions_are_influxql_and_differ_by_seed_only(kind: str, seed: int) -> None:
    for query in queries(kind, DAY, 3, seed):
        assert len(parse(query.influxql)) == 1
    assert queries(kind, DAY, 3, seed) == queries(kind, DAY, 3, seed)
    if kind != "lastpoint":
        assert len(set(queries(kind, DAY, 20, seed))) > 5


@settings(max_examples=30)
@given(ticks=st.integers(360, 8_640).map(lambda ticks: ticks // 360 * 360), hosts=st.integers(1, 20))
def test_windows_lie_within_the_data(ticks: int, hosts: int) -> None:
    workload = Workload(hosts, ticks)
    for kind in KINDS:
        for query in queries(kind, workload, 3):
            asked = query.promql
            assert asked.end_ms < workload.end_ns // 10**6
            assert asked.step_s is None or workload.start_ns // 10**6 <= asked.start_ms + asked.shift_ms < asked.end_ms


def test_the_number_of_fields_and_hosts_is_that_of_the_name() -> None:
    query = queries("single-groupby-5-8-1", DAY, 1)[0]
    assert query.influxql.count("max(") == len(query.fields) == 5
    assert query.influxql.count("hostname = ") == 8
    assert query.promql.end_ms - query.promql.start_ms == 59 * 60_000


def influx(*series: dict[str, Any]) -> bytes:
    return json.dumps({"results": [{"statement_id": 0, "series": list(series)}]}).encode()


def prometheus(*result: dict[str, Any]) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": list(result)}}).encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda one: st.lists(one) | st.dictionaries(st.text(), one),
    )
)
def test_a_value_is_equal_to_itself(value: Any) -> None:
    assert difference(value, json.loads(json.dumps(value))) is None


@pytest.mark.parametrize(
    ("left", "right", "place"),
    [
        ({"a": [1, 2.0]}, {"a": [1, 2.1]}, ".a[1]"),
        ({"a": 1}, {"b": 1}, "keys"),
        ([1], [1, 2], "1 and 2 items"),
        ([None], [0], "[0]"),
        ([True], [1], "[0]"),
        (["1"], [1], "[0]"),
        ([1.0], [1.0 + 1e-11], "[0]"),
    ],
)
def test_a_difference_is_placed(left: Any, right: Any, place: str) -> None:
    assert place in (difference(left, right) or "")


def test_the_last_digits_of_a_sum_are_not_a_difference() -> None:
    assert difference([0.1 + 0.2], [0.3]) is None


def test_partial_of_a_whole_series_is_no_difference_and_a_row_less_is() -> None:
    rows = [["2016-01-01T00:00:00Z", 1]]
    left = influx({"name": "cpu", "columns": ["time", "max"], "partial": True, "values": rows})
    assert difference_of_answers(left, influx({"name": "cpu", "columns": ["time", "max"], "values": rows})) is None
    assert difference_of_answers(left, influx({"name": "cpu", "columns": ["time", "max"], "values": []})) is not None


def test_points_of_both_languages_meet() -> None:
    query = queries("double-groupby-1", DAY, 1)[0]
    time_s = (query.promql.start_ms + query.promql.shift_ms) // 1000
    text = "2016-01-01T00:00:00Z"
    left = influx(
        {
            "name": "cpu",
            "tags": {"hostname": "host_1"},
            "columns": ["time", "mean"],
            "values": [[text, 1.5], [text, None]],
        }
    )
    times = {time_ms for _, _, time_ms in influx_points(query, left)}
    assert times == {1_451_606_400_000}
    shifted_s = (1_451_606_400_000 - query.promql.shift_ms) / 1000
    metric = {"__name__": "cpu_usage_user", "hostname": "host_1"}
    assert difference_of_points(query, left, prometheus({"metric": metric, "values": [[shifted_s, "1.5"]]})) is None
    for values in ([[shifted_s, "1.6"]], [[time_s, "1.5"]], [[shifted_s, "1.5"], [shifted_s + 3600, "1"]]):
        assert difference_of_points(query, left, prometheus({"metric": metric, "values": values})) is not None


def test_rows_of_all_columns_are_points_of_their_fields() -> None:
    query = queries("high-cpu-all", DAY, 1)[0]
    columns = ["time", "arch", "hostname", "rack", "usage_idle", "usage_user"]
    rows = [["2016-01-01T00:00:10.5Z", "x86", "host_7", "13", 4.0, 95.0]]
    found = influx_points(query, influx({"name": "cpu", "columns": columns, "values": rows}))
    assert found == {
        ("usage_idle", "host_7", 1_451_606_410_500): 4.0,
        ("usage_user", "host_7", 1_451_606_410_500): 95.0,
    }


FIGURES = {
    "dsdb": {
        "ingest": {"rows_per_s": 500_000.0},
        "queries": {"lastpoint": {"hot": {"p50_ms": 2.0}}},
        "disk": {"int": 1.0},
    },
    "influxdb": {"ingest": {"rows_per_s": 100_000.0}, "queries": {"lastpoint": {"hot": {"p50_ms": 8.0}}}},
}


def test_ratios_are_ours_divided_by_the_others() -> None:
    rows = table(["dsdb", "influxdb"], lines(FIGURES))
    assert rows == [
        ["figure", "dsdb", "influxdb", "dsdb / influxdb"],
        ["ingest: rows/s", "500,000", "100,000", "5"],
        ["lastpoint: p50 ms", "2", "8", "0.25"],
        ["bytes per value, int", "1", "", ""],
    ]
    assert markdown(rows).splitlines()[2].split() == [
        "|",
        "ingest:",
        "rows/s",
        "|",
        "500,000",
        "|",
        "100,000",
        "|",
        "5",
        "|",
    ]


def test_a_table_without_ours_has_no_ratios() -> None:
    assert table(["influxdb"], [Line("x", {"influxdb": 1.0})]) == [["figure", "influxdb"], ["x", "1"]]


def test_differences_and_failures_are_named() -> None:
    text = comparison({"lastpoint": {"influxdb and dsdb": ".a: 1 and 2"}}, ["dsdb: it fell over"])
    assert "DIFFER" in text
    assert ".a: 1 and 2" in text
    assert "FAILED dsdb: it fell over" in text
    assert "DIFFER" not in comparison({"lastpoint": {"influxdb and dsdb": "equal"}}, [])


@pytest.mark.slow
def test_a_picture_is_drawn(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert plot(FIGURES, "a title", tmp_path / "one.png") is None
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"


def test_every_field_has_a_column() -> None:
    assert queries("cpu-max-all-1", DAY, 1)[0].fields == CPU_FIELDS
