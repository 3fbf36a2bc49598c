"""A private influxd of Debian, and the comparison of its JSON answers with ours."""

from __future__ import annotations

import http.client
import json
import math
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.query.query_engine import Row, Value

CONFIG = """reporting-disabled = true
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Reference:
    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def query(self, text: str, accept: str = "application/json", **parameters: str) -> str:
        options = urllib.parse.urlencode({"db": "d", "q": text, **parameters})
        request = urllib.request.Request(f"{self.address}/query?{options}", headers={"Accept": accept})
        if text.lower().startswith("create"):
            request.method = "POST"
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()

    def write(self, rows: Sequence[Row]) -> None:
        body = "\n".join(line_of(row) for row in rows).encode()
        request = urllib.request.Request(f"{self.address}/write?db=d", data=body)
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 204


def escape(text: str) -> str:
    return text.replace(",", r"\,").replace(" ", r"\ ").replace("=", r"\=")


def field_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return repr(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def line_of(row: Row) -> str:
    tags = "".join(f",{escape(key)}={escape(value)}" for key, value in row.tags)
    fields = ",".join(f"{escape(key)}={field_text(value)}" for key, value in row.fields)
    return f"{row.measurement}{tags} {fields} {row.time_ns}"


@contextmanager
def influxd(directory: Path) -> Iterator[Reference]:
    port = free_port()
    config = directory / "influxdb.conf"
    config.write_text(CONFIG.format(directory=directory, http=port, rpc=free_port()))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["influxd", "-config", str(config)], stdout=log, stderr=subprocess.STDOUT)
    try:
        reference = Reference(port)
        deadline = time.monotonic() + 60
        while True:
            try:
                reference.query("create database d")
                break
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError):
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield reference
    finally:
        process.kill()
        process.wait()


def same(ours: object, theirs: object) -> bool:
    """Equal but for the last digits of floats: the two add numbers in another order."""
    if isinstance(ours, float) or isinstance(theirs, float):
        if not isinstance(ours, int | float) or not isinstance(theirs, int | float):
            return False
        return math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-12)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    return type(ours) is type(theirs) and ours == theirs


def same_json(ours: str, theirs: str) -> bool:
    return ours == theirs or same(json.loads(ours), json.loads(theirs))
