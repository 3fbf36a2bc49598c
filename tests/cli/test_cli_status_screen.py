"""The screen of `dsdb status`."""

from __future__ import annotations

from typing import Any

from dsdb_cli.status import status_lines


def node(host: str, number: int, **changes: Any) -> dict[str, Any]:
    return {
        "host": host,
        "roles": ["meta", "data"],
        "meta_id": number,
        "data_id": number + 1,
        "http_addr": f"{host}:8088",
        "meta_http_addr": f"{host}:8091",
        "tcp_addr": f"{host}:8088",
        "state": "up",
        "is_leader": False,
        "applied_index": 17,
        "lag": 0,
        "version": "0.1.0",
        "last_contact_s": 0.1,
        "message": "",
        **changes,
    }


DOCUMENT = {
    "cluster_id": "4f1c",
    "version": "0.1.0",
    "status": "warn",
    "problems": ["influx2 does not answer since 12 s"],
    "leader": {"meta_id": 1, "tcp_addr": "influx1:8088"},
    "term": 3,
    "commit_index": 17,
    "nodes": [
        node("influx1", 1, is_leader=True),
        node("influx2", 3, state="down", roles=["data"], meta_id=None, applied_index=None, lag=None, message="refused"),
    ],
    "shards": {"groups": 3, "total": 9, "unavailable": 1},
}

HEADER = "NODE     ROLES      ID              HTTP          META HTTP     TCP           "
SCREEN = [
    "cluster  4f1c, version 0.1.0",
    "status   warn",
    "leader   meta node 1 at influx1:8088, term 3, commit index 17",
    "shards   9 in 3 groups, 1 unavailable",
    "",
    HEADER + "STATE  LEADER  APPLIED  LAG  CONTACT  VERSION",
    (
        "influx1  meta,data  meta 1, data 2  influx1:8088  influx1:8091  influx1:8088  "
        "up     leader  17       0    0.1 s    0.1.0"
    ),
    (
        "influx2  data       data 4          influx2:8088  influx2:8091  influx2:8088  "
        "down           -        -    0.1 s    0.1.0"
    ),
    "",
    "problems",
    "  influx2 does not answer since 12 s",
    "  influx2:8088: refused",
]


def test_the_screen() -> None:
    assert status_lines(DOCUMENT, colours=False) == SCREEN


def test_colours_change_nothing_but_colours() -> None:
    coloured = "\n".join(status_lines(DOCUMENT, colours=True))
    assert "\x1b[33mwarn\x1b[0m" in coloured
    assert "\x1b[31mdown\x1b[0m" in coloured
    for code in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured.split("\n") == SCREEN


def test_a_cluster_without_a_leader_and_a_document_with_gaps() -> None:
    lines = status_lines({**DOCUMENT, "leader": None, "nodes": [{"host": "x"}], "problems": None}, colours=False)
    assert lines[2] == "leader   none: metadata cannot change, term 3, commit index 17"
    assert lines[-1].split() == ["x", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]
    assert status_lines({"status": "fail"}, colours=False)[0] == "cluster  -, version -"
