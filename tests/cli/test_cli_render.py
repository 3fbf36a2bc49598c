"""The formats column, csv and json: golden texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dsdb_cli.jsontext import decode_documents
from dsdb_cli.render import cell_text, render
from dsdb_cli.results import Response, merge_documents


def respond(*results: dict[str, Any]) -> Response:
    return merge_documents(decode_documents(json.dumps({"results": list(results)})))


def shown(response: Response, output_format: str = "column", *, pretty: bool = False) -> str:
    return "".join(line + "\n" for line in render(response, output_format, pretty=pretty))


SERVERS = {
    "series": [
        {
            "name": "data_nodes",
            "columns": ["id", "http_addr", "tcp_addr"],
            "values": [
                [2, "influx1:8088", "influx1:8088"],
                [5, "influx3:8088", "influx3:8088"],
                [6, "influx2:8088", "influx2:8088"],
            ],
        },
        {
            "name": "meta_nodes",
            "columns": ["id", "http_addr", "tcp_addr"],
            "values": [
                [1, "influx1:8091", "influx1:8088"],
                [3, "influx3:8091", "influx3:8088"],
                [4, "influx2:8091", "influx2:8088"],
            ],
        },
    ]
}


def test_show_servers_as_the_guide_prints_it() -> None:
    assert shown(respond(SERVERS)) == (
        "name: data_nodes\n"
        "----------------\n"
        "id\thttp_addr\ttcp_addr\n"
        "2\tinflux1:8088\tinflux1:8088\n"
        "5\tinflux3:8088\tinflux3:8088\n"
        "6\tinflux2:8088\tinflux2:8088\n"
        "\n"
        "name: meta_nodes\n"
        "----------------\n"
        "id\thttp_addr\ttcp_addr\n"
        "1\tinflux1:8091\tinflux1:8088\n"
        "3\tinflux3:8091\tinflux3:8088\n"
        "4\tinflux2:8091\tinflux2:8088\n"
        "\n"
    )


def test_a_tagged_series_has_its_dashes_under_the_header() -> None:
    series = {
        "name": "h2o_feet",
        "tags": {"location": "coyote_creek"},
        "columns": ["time", "mean"],
        "values": [["2015-08-18T00:00:00Z", 7.8245]],
    }
    assert shown(respond({"series": [series]})) == (
        "name: h2o_feet\ntags: location=coyote_creek\ntime\t\t\tmean\n----\t\t\t----\n2015-08-18T00:00:00Z\t7.8245\n\n"
    )


def test_an_untagged_series_has_its_dashes_under_the_name() -> None:
    series = {
        "name": "cpu",
        "columns": ["time", "host", "region", "value"],
        "values": [[1445455687580664347, "serverA", "us_west", 0.64]],
    }
    assert shown(respond({"series": [series]})) == (
        "name: cpu\n---------\ntime\t\t\thost\tregion\tvalue\n1445455687580664347\tserverA\tus_west\t0.64\n\n"
    )


def test_a_series_without_a_name_begins_with_its_header() -> None:
    users = {"columns": ["user", "admin"], "values": [["todd", False], ["paul", True]]}
    assert shown(respond({"series": [users]})) == "user\tadmin\ntodd\tfalse\npaul\ttrue\n\n"
    policies = {
        "columns": ["name", "duration", "replicaN", "default"],
        "values": [["default", "0", 3, True], ["two_days_only", "48h0m0s", 1, False]],
    }
    assert shown(respond({"series": [policies]})) == (
        "name\t\tduration\treplicaN\tdefault\ndefault\t\t0\t\t3\t\ttrue\ntwo_days_only\t48h0m0s\t\t1\t\tfalse\n\n"
    )


TIMES = ("start_time", "end_time", "expiry_time")


def test_shards_table_of_the_guide() -> None:
    series = {
        "name": "db",
        "columns": ["id", "database", "retention_policy", "shard_group", *TIMES, "owners"],
        "values": [[4, "db", "default", 2, "2015-12-28T00:00:00Z", *["2016-01-04T00:00:00Z"] * 2, "5"]],
    }
    assert shown(respond({"series": [series]})).splitlines()[2:4] == [
        "id\tdatabase\tretention_policy\tshard_group\tstart_time\t\tend_time\t\texpiry_time\t\towners",
        "4\tdb\t\tdefault\t\t\t2\t\t2015-12-28T00:00:00Z\t2016-01-04T00:00:00Z\t2016-01-04T00:00:00Z\t5",
    ]


def test_an_empty_result_prints_nothing() -> None:
    assert shown(respond({}, {})) == ""
    assert shown(respond({}), "csv") == ""
    assert shown(respond({}), "json") == '{"results":[{}]}\n'


def test_messages_of_the_server_are_shown() -> None:
    assert shown(respond({"messages": [{"level": "warning", "text": "use POST"}]})) == "warning: use POST\n"


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, ""), (True, "true"), (["a", "b", None], "[a b <nil>]"), ("x", "x"), ({"a": "b"}, '{"a":"b"}')],
)
def test_cells(cell: object, text: str) -> None:
    assert cell_text(cell) == text


def test_numbers_are_printed_as_received() -> None:
    text = '{"results":[{"series":[{"name":"n","columns":["v"],"values":[[9007199254740993],[1e+06],[2.70],[-0]]}]}]}'
    response = merge_documents(decode_documents(text))
    assert shown(response).splitlines()[3:7] == ["9007199254740993", "1e+06", "2.70", "-0"]
    assert shown(response, "csv").splitlines()[1:] == ["n,9007199254740993", "n,1e+06", "n,2.70", "n,-0"]
    assert shown(response, "json") == text + "\n"


def test_control_characters_cannot_break_the_table_or_command_the_terminal() -> None:
    series = {"name": "n", "columns": ["a", "b"], "values": [["x\ty\nz\x1b[2J\x9b", "é\u00a0"]]}
    assert shown(respond({"series": [series]})).splitlines()[3] == "x\\ty\\nz\\x1b[2J\\x9b\té\u00a0"


def test_csv_quotes_what_needs_it() -> None:
    series = {
        "name": "m",
        "tags": {"b": "2", "a": "1"},
        "columns": ["v"],
        "values": [["plain"], ["a,b"], ['say "x"'], [" led"], ["two\nlines"], [None], ["\\."]],
    }
    assert shown(respond({"series": [series]}), "csv") == (
        'name,tags,v\nm,"a=1,b=2",plain\nm,"a=1,b=2","a,b"\nm,"a=1,b=2","say ""x"""\nm,"a=1,b=2"," led"\n'
        'm,"a=1,b=2","two\nlines"\nm,"a=1,b=2",\nm,"a=1,b=2","\\."\n'
    )


def test_csv_sample_of_the_guide() -> None:
    series = {"name": "databases", "columns": ["name"], "values": [["NOAA_water_database"]]}
    assert shown(respond({"series": [series]}), "csv") == "name,name\ndatabases,NOAA_water_database\n"


def test_pretty_json_is_indented_by_four() -> None:
    series = {"name": "m", "columns": ["v"], "values": [[1]]}
    assert shown(respond({"series": [series]}, {}), "json", pretty=True) == (
        '{\n    "results": [\n        {\n            "series": [\n                {\n'
        '                    "name": "m",\n                    "columns": [\n                        "v"\n'
        '                    ],\n                    "values": [\n                        [\n'
        "                            1\n                        ]\n                    ]\n                }\n"
        "            ]\n        },\n        {}\n    ]\n}\n"
    )
