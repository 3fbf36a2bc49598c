"""A tag that a series lacks, in the WHERE of statements about tags: listings take it for the empty text, counts not."""

import json

import pytest

from tests.query.query_engine import MemoryShard, Row, json_answer

SHARD = MemoryShard(
    [
        Row("door", (("floor", "1"), ("side", "left")), 1, (("open", True),)),
        Row("door", (("floor", "2"),), 1, (("open", True),)),
        Row("lift", (("floor", "3"),), 1, (("open", True),)),
    ]
)


def answer(text):
    (result,) = json.loads(json_answer(text, [[SHARD]], 0))["results"]
    return {series["name"]: series["values"] for series in result.get("series", ())}


@pytest.mark.parametrize(
    ("where", "counted", "listed"),
    [
        ("side != 'right'", {"door": 1}, {"door": ["1", "2"], "lift": ["3"]}),
        ("side !~ /gh/", {"door": 1}, {"door": ["1", "2"], "lift": ["3"]}),
        ("side = ''", {}, {"door": ["2"], "lift": ["3"]}),
        ("side !~ /gh/ OR floor = '3'", {"door": 1, "lift": 1}, {"door": ["1", "2"], "lift": ["3"]}),
        ("(side =~ /.*/)", {"door": 1}, {"door": ["1", "2"], "lift": ["3"]}),
    ],
)
def test_values_of_series_without_the_tag(where, counted, listed):
    found = answer(f"SHOW TAG VALUES CARDINALITY WITH KEY = floor WHERE {where}")
    assert found == {name: [[count]] for name, count in counted.items()}
    found = answer(f"SHOW TAG VALUES WITH KEY = floor WHERE {where}")
    assert found == {name: [["floor", value] for value in values] for name, values in listed.items()}
