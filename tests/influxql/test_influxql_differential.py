"""The error texts and normal forms of our parser beside those of the InfluxDB 1.x that Debian ships."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reference.influxd import Influxd, influxd, needs_influxd

DATA = Path(__file__).parent / "data"
BAD = [json.loads(line) for line in (DATA / "bad.jsonl").read_text().splitlines()]
GOOD = [json.loads(line) for line in (DATA / "good.jsonl").read_text().splitlines()]
OWN_WORDS = (
    ("SERIES, SERVERS, ", "SERIES, "),
    ("DATA, DATABASE", "DATABASE"),
    ("META, ", ""),
    ("REPAIRS, ", ""),
    ("SERIES, SERVER, ", "SERIES, "),
)
# What the guide asks for and 1.x refuses: our statements, `!= /regex/`, a quoted key, attributes in any order.
OWN_STATEMENTS = (
    "SERVER",
    "SHOW REPAIRS",
    "!= /b/",
    "KEY = 'host'",
    "WITH NAME p DURATION",
    "$",
    "PASSWORD",
    "/* x */",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.debian,
    needs_influxd,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with influxd(tmp_path_factory.mktemp("influxd")) as running:
        running.query("CREATE DATABASE d")
        yield running


def test_errors_are_the_same(server: Influxd) -> None:
    differences = []
    for case in BAD:
        # The server trims the text before it parses, which moves positions.
        if case.get("differs") or case["query"] != case["query"].strip():
            continue
        ours = case["error"]
        for own, theirs in OWN_WORDS:
            ours = ours.replace(own, theirs) if "expected CONTINUOUS" in ours else ours
        answer = server.query(case["query"], db="d").json.get("error")
        if answer != ours:
            differences.append((case["query"], answer, ours))
    assert differences == []


def test_what_we_read_the_server_reads_and_so_our_normal_form(server: Influxd) -> None:
    """Neither the statement nor what we print of it is a parse error there."""
    refused = []
    for case in GOOD:
        if any(own in case["text"] + case["query"] for own in OWN_STATEMENTS):
            continue
        for text in (case["query"], case["text"]):
            answer = server.query(text, db="d").json
            if "error" in answer:
                refused.append((text, answer["error"]))
    assert refused == []
