"""The parser against a real InfluxDB 1.x: the same answer and the same points for the same body."""

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

from dsdbd.model.line_protocol import parse_lines

pytestmark = [
    pytest.mark.debian,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("influxd") is None, reason="influxd (Debian package influxdb) is not installed"),
]

SAME = r"""
a
m,a v=1
m,a= v=1
m,=b v=1
m,a=b
,a=b v=1
m v
m =1
m v=
m v=,w=1
m v=1,
m v=1,=2
m v=1,w
m a b=1
m v=1, w=2
m,,a=b v=1
m,a=b, v=1
m,a=1,a=2 v=1
m,b=1,a=2,b=3 v=1
m,a=b=c v=1
m,a==c v=1
m,a="x y" v=1
m,a=b\ v=1
m,a=b\
m\ v=1
\ v=1
= v=1
"m" v=1
m "v"=1
m\,n,a\=b=c\ d\,e v\ w\,x\=y=1
m,a=b\\ v=1
m,a=\, v=1
m v=1 x
m v=1 1 x
m v=1 1x
m v=1 1.5
m v=1 -
m v=1 -1
m v=1 --1
m v=1 +1
m v=1 99999999999999999999
m v=1 9223372036854775807
m v=1 9223372036854775806
m v=1 -9223372036854775806
m v=1 -9223372036854775807
m v=1 0000000000000000000000000012
m v=1i2
m v=1i
m v=-1i
m v=9223372036854775807i
m v=9223372036854775808i
m v=-9223372036854775808i
m v=-9223372036854775809i
m v=0000000000000000000000000000000012i
m v=1ii
m v=1.5i
m v=1e5i
m v=1u
m v=1e400
m v=-1e400
m v=1e308
m v=1e-400
m v=1e5
m v=1E+5
m v=1.5e-3
m v=1e
m v=1e+
m v=e1
m v=1e1e1
m v=1.0.0
m v=1..0
m v=.
m v=1.
m v=.5
m v=-.5
m v=-
m v=-.
m v=--1
m v=1-1
m v=+1
m v=00001
m v=0x1
m v=1_0
m v=i
m v=-i
m v=NaN
m v=nan
m v=N
m v=inf
m v=-inf
m v=t,w=T,x=True,y=TRUE,z=true
m v=f,w=F,x=False,y=FALSE,z=false
m v=tRUE
m v=tru
m v=truee
m v=fals
m v=yes
m v=""
m v="a
m v="
m v="\
m v="a\"b"
m v="a\\"
m v="a\nb\x"
m v="a,b=c d"
m v="x",w="y" 5
m v=1\ 1
m v='a'
m q=1,q=2
m time=1
m,time=1 v=1
m time=1,z=2
m,été=ß grüße="日本" 1
# comment
   # comment
m,a
m,
m v=1,w=,x=2
m v=1,,w=2
m v==1
m v=1=2
m a\=b=1
m a,=1
m v=1i,w=2i,x="3i",y=t -1
"""
"""One body a line: the answers have to be equal, and where points are stored, the points as well."""

BLANKS = [b"m  v=1  1  ", b"m\tn v=1", b"m v=1\t", b"m v=1 \t1", b" \tm v=1", b"m  ", b"m,a=b  ", b"m\0 v=1"]

DIFFERENT = {
    b"m v=1\r\n": "a carriage return before the newline belongs to the line end",
    b'm v="a"b': "text behind a closing quote would become part of the string; it is refused",
    rb'm k\\\\="x"': "the all-escapes example of the guide is accepted",
    b"m\xff v=1": "names that are not UTF-8 cannot be shown to anybody; they are refused",
    b"m\rn v=1": "a carriage return in a name is refused",
    b'# a="b\nm x=1': "a quote in a comment does not swallow the lines after it",
    b"m v=1,v=2i": "a field given twice with two types: the same text as for any other conflict",
}


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("influxd")
    host = "127.0.0.57"
    http, rpc = free_port(host), free_port(host)
    config = home / "influxdb.conf"
    config.write_text(
        f'reporting-disabled = true\nbind-address = "{host}:{rpc}"\n[meta]\ndir = "{home}/meta"\n'
        f'[data]\ndir = "{home}/data"\nwal-dir = "{home}/wal"\n[monitor]\nstore-enabled = false\n'
        f'[http]\nbind-address = "{host}:{http}"\nlog-enabled = false\n'
    )
    with Path(home / "log").open("wb") as log:
        process = subprocess.Popen(["influxd", "run", "-config", str(config)], stdout=log, stderr=log)
    url = f"http://{host}:{http}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(url + "/ping", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "influxd does not start"
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def ask(url: str, text: str, **more: str) -> dict:
    query = urllib.parse.urlencode({"q": text, "epoch": "ns", **more})
    with urllib.request.urlopen(f"{url}/query?{query}", data=b"", timeout=20) as answer:
        return json.load(answer)["results"][0]


def write(url: str, database: str, body: bytes) -> str:
    """The error text of a write; empty when everything was stored."""
    try:
        urllib.request.urlopen(f"{url}/write?db={database}", data=body, timeout=20).close()
        return ""
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)["error"]


def our_answer(body: bytes, now_ns: int) -> tuple[str, list]:
    """What the write would be answered, and the stored cells as influxd lists them."""
    parsed = parse_lines(body, precision="ns", default_time_ns=now_ns)
    text = "\n".join(error.message for error in parsed.errors)
    if parsed.conflicts:
        text = f"partial write: {parsed.conflicts[0].reason} dropped={parsed.conflict_count}"
    cells = []
    for points in parsed.points:
        for key, column in points.fields.items():
            for row, value in enumerate(column.to_arrow().to_pylist()):
                time_ns = int(points.time_ns[row])
                if value is not None:
                    tags = dict(points.series[points.series_index[row]].tags)
                    cells.append((points.measurement, tags, None if time_ns == now_ns else time_ns, key, value))
    return text, cells


def stored_cells(url: str, database: str, before_ns: int) -> list:
    answer = ask(url, "SELECT * FROM /.*/ WHERE time >= -9223372036854775806 GROUP BY *", db=database)
    cells = []
    for series in answer.get("series", []):
        tags = {key: value for key, value in series.get("tags", {}).items() if value}
        for row in series["values"]:
            time_ns = None if before_ns <= row[0] <= time.time_ns() else row[0]
            for key, value in zip(series["columns"][1:], row[1:], strict=True):
                if value is not None:
                    cells.append((series["name"], tags, time_ns, key, value))
    return cells


def both(url: str, database: str, body: bytes) -> tuple[tuple[str, list], tuple[str, list]]:
    ask(url, f'CREATE DATABASE "{database}"')
    before_ns = time.time_ns()
    theirs = write(url, database, body), stored_cells(url, database, before_ns)
    return our_answer(body, 4_000_000_000_000_000_000), theirs


def test_same_answer_and_same_points(influxd: str) -> None:
    bodies = [line.encode() for line in SAME.split("\n") if line]
    bodies += BLANKS
    bodies += [b'm s="a\nb" 1', b"m v=1 1\n\n#c\nm v=2 2", b'm v="a\\\nb" 1']
    assert len(bodies) >= 120
    wrong = []
    for number, body in enumerate(bodies):
        ours, theirs = both(influxd, f"same{number}", body)
        if ours[0] != theirs[0] or sorted(ours[1], key=repr) != sorted(theirs[1], key=repr):
            wrong.append(f"{body!r}:\n  ours   {ours}\n  theirs {theirs}")
    assert not wrong, "\n".join(wrong)


def test_every_intended_difference_still_is_one(influxd: str) -> None:
    for number, (body, reason) in enumerate(DIFFERENT.items()):
        ours, theirs = both(influxd, f"different{number}", body)
        assert ours != theirs, f"{body!r}: {reason}"
