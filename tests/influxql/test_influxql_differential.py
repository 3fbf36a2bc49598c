"""The error texts and normal forms of our parser beside those of the InfluxDB 1.x that Debian ships."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
BAD = [json.loads(line) for line in (DATA / "bad.jsonl").read_text().splitlines()]
GOOD = [json.loads(line) for line in (DATA / "good.jsonl").read_text().splitlines()]
OWN_WORDS = (
    ("SERIES, SERVERS, ", "SERIES, "),
    ("DATA, DATABASE", "DATABASE"),
    ("META, ", ""),
    ("SERIES, SERVER, ", "SERIES, "),
)
# What the guide asks for and 1.x refuses: our statements, `!= /regex/`, a quoted key, attributes in any order.
OWN_STATEMENTS = ("SERVER", "!= /b/", "KEY = 'host'", "WITH NAME p DURATION", "$", "PASSWORD", "/* x */")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.debian,
    pytest.mark.skipif(shutil.which("influxd") is None, reason="influxd is not installed"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("influxd")
    http, rpc = free_port(), free_port()
    (directory / "influxdb.conf").write_text(
        f"""reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
[http]
bind-address = "127.0.0.1:{http}"
log-enabled = false
[monitor]
store-enabled = false
"""
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["influxd", "-config", str(directory / "influxdb.conf")], stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{http}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(address, "CREATE DATABASE d")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def ask(address: str, query: str) -> dict[str, object]:
    url = f"{address}/query?db=d&q={urllib.parse.quote(query)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            return dict(json.load(error))


def test_errors_are_the_same(server: str) -> None:
    differences = []
    for case in BAD:
        # The server trims the text before it parses, which moves positions.
        if case.get("differs") or case["query"] != case["query"].strip():
            continue
        ours = case["error"]
        for own, theirs in OWN_WORDS:
            ours = ours.replace(own, theirs) if "expected CONTINUOUS" in ours else ours
        answer = ask(server, case["query"]).get("error")
        if answer != ours:
            differences.append((case["query"], answer, ours))
    assert differences == []


def test_what_we_read_the_server_reads_and_so_our_normal_form(server: str) -> None:
    """Neither the statement nor what we print of it is a parse error there."""
    refused = []
    for case in GOOD:
        if any(own in case["text"] + case["query"] for own in OWN_STATEMENTS):
            continue
        for text in (case["query"], case["text"]):
            answer = ask(server, text)
            if "error" in answer:
                refused.append((text, answer["error"]))
    assert refused == []
