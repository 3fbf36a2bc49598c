"""What Grafana's data source for InfluxQL sends, as it sends it."""

from __future__ import annotations

import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.daemons import request

if TYPE_CHECKING:
    from tests.cluster.daemons import Daemon

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("clients")]
NOW_S = int(time.time()) // 10 * 10
HEADERS = {"Accept": "application/json, text/plain, */*", "Accept-Encoding": "gzip", "X-Grafana-Org-Id": "1"}


@pytest.fixture(scope="module")
def dashboard(server: Daemon) -> Daemon:
    server.query("CREATE DATABASE grafana")
    lines = [
        f"cpu,host={host},region=eu\\ west value={n},idle={100 - n}i {(NOW_S - 600 + n * 10) * 10**9}"
        for host in ("a", "b", "a1")
        for n in range(60)
    ]
    assert server.write("\n".join(lines), db="grafana").status == 204
    return server


def ask(daemon: Daemon, text: str, *, method: str = "GET", **parameters: str) -> Any:
    form = urllib.parse.urlencode({"db": "grafana", "epoch": "ms", "q": text, **parameters})
    headers = dict(HEADERS)
    del headers["Accept-Encoding"]
    if method == "GET":
        answer = request("GET", daemon.url("/query") + "?" + form, headers=headers)
    else:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        answer = request("POST", daemon.url("/query") + "?db=grafana&epoch=ms", form.encode(), headers)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    (result,) = answer.json["results"]
    assert "error" not in result
    return result.get("series", [])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_data_source_is_tried_out(dashboard: Daemon, method: str) -> None:
    assert ask(dashboard, 'SHOW RETENTION POLICIES on "grafana"', method=method)[0]["values"][0][0] == "autogen"
    assert ask(dashboard, "SHOW MEASUREMENTS LIMIT 1", method=method)[0]["values"] == [["cpu"]]
    assert ask(dashboard, 'SHOW TAG KEYS FROM "nosuch"', method=method) == []


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("SHOW MEASUREMENTS WITH MEASUREMENT =~ /(?i)CPU/ LIMIT 100", [["cpu"]]),
        ('SHOW FIELD KEYS FROM "cpu"', [["idle", "integer"], ["value", "float"]]),
        ('SHOW FIELD KEYS FROM "autogen"."cpu"', [["idle", "integer"], ["value", "float"]]),
        ('SHOW TAG KEYS FROM "cpu"', [["host"], ["region"]]),
        ('SHOW TAG VALUES FROM "cpu" WITH KEY = "host"', [["host", "a"], ["host", "a1"], ["host", "b"]]),
        (
            'SHOW TAG VALUES FROM "cpu" WITH KEY = "host" WHERE "region" = \'eu west\' LIMIT 2',
            [["host", "a"], ["host", "a1"]],
        ),
        ('SHOW TAG VALUES WITH KEY = "region"', [["region", "eu west"]]),
        ('SHOW TAG VALUES FROM "cpu" WITH KEY = "host" WHERE "host" =~ /^a$/', [["host", "a"]]),
    ],
)
def test_variables_and_the_editor(dashboard: Daemon, text: str, values: list[list[str]]) -> None:
    assert ask(dashboard, text)[0]["values"] == values


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("fill", ["null", "none", "0", "previous", "linear"])
def test_a_panel(dashboard: Daemon, method: str, fill: str) -> None:
    text = (
        'SELECT mean("value") FROM "cpu" WHERE ("host" =~ /^a$/) AND time >= now() - 1h and time <= now() '
        f"GROUP BY time(10s) fill({fill})"
    )
    (series,) = ask(dashboard, text, method=method)
    known = {stamp: value for stamp, value in series["values"] if (NOW_S - 600) * 1000 <= stamp < NOW_S * 1000}
    assert known == {(NOW_S - 600 + n * 10) * 1000: n for n in range(60)}
    assert series["columns"] == ["time", "mean"]


def test_a_panel_by_tags(dashboard: Daemon) -> None:
    start, end = (NOW_S - 600) * 1000, NOW_S * 1000
    text = (
        'SELECT max("value") AS "top", mean("idle") / 2 FROM "autogen"."cpu" '
        f"WHERE (\"host\" = 'a' OR \"host\" = 'b') AND time >= {start}ms and time <= {end}ms "
        'GROUP BY time(1m), "host", "region"::tag fill(none)'
    )
    found = ask(dashboard, text)
    assert [series["tags"] for series in found] == [{"host": host, "region": "eu west"} for host in "ab"]
    assert {tuple(series["columns"]) for series in found} == {("time", "top", "mean")}
    assert sum(len(series["values"]) for series in found) >= 20


def test_logs_and_annotations(dashboard: Daemon) -> None:
    span = f"time >= {NOW_S - 600}s and time <= {NOW_S}s"
    text = f'SELECT "value", "host" FROM "cpu" WHERE {span} ORDER BY time DESC LIMIT 3'
    (series,) = ask(dashboard, text)
    assert [row[0] for row in series["values"]] == [(NOW_S - 10) * 1000] * 3
