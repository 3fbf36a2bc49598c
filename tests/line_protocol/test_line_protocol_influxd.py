"""The parser against a real InfluxDB 1.x: the same answer and the same points for the same body."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dsdbd.model.line_protocol import parse_lines
from dsdbd.model.series import parse_key
from tests.reference.influxd import Influxd, influxd, needs_influxd

pytestmark = [
    pytest.mark.debian,
    pytest.mark.slow,
    needs_influxd,
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with influxd(tmp_path_factory.mktemp("influxd")) as running:
        yield running


def write(server: Influxd, database: str, body: bytes) -> str:
    """The error text of a write; empty when everything was stored."""
    answer = server.try_write(database, body)
    return "" if answer.status == 204 else str(answer.json["error"])


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
                    tags = dict(parse_key(points.series[points.series_index[row]]).tags)
                    cells.append((points.measurement, tags, None if time_ns == now_ns else time_ns, key, value))
    return text, cells


def stored_cells(server: Influxd, database: str, before_ns: int) -> list:
    select = "SELECT * FROM /.*/ WHERE time >= -9223372036854775806 GROUP BY *"
    answer = server.result(select, db=database, epoch="ns")
    cells = []
    for series in answer.get("series", []):
        tags = {key: value for key, value in series.get("tags", {}).items() if value}
        for row in series["values"]:
            time_ns = None if before_ns <= row[0] <= time.time_ns() else row[0]
            for key, value in zip(series["columns"][1:], row[1:], strict=True):
                if value is not None:
                    cells.append((series["name"], tags, time_ns, key, value))
    return cells


def both(server: Influxd, database: str, body: bytes) -> tuple[tuple[str, list], tuple[str, list]]:
    server.query(f'CREATE DATABASE "{database}"')
    before_ns = time.time_ns()
    theirs = write(server, database, body), stored_cells(server, database, before_ns)
    return our_answer(body, 4_000_000_000_000_000_000), theirs


def test_same_answer_and_same_points(server: Influxd) -> None:
    bodies = [line.encode() for line in SAME.split("\n") if line]
    bodies += BLANKS
    bodies += [b'm s="a\nb" 1', b"m v=1 1\n\n#c\nm v=2 2", b'm v="a\\\nb" 1']
    assert len(bodies) >= 120
    wrong = []
    for number, body in enumerate(bodies):
        ours, theirs = both(server, f"same{number}", body)
        if ours[0] != theirs[0] or sorted(ours[1], key=repr) != sorted(theirs[1], key=repr):
            wrong.append(f"{body!r}:\n  ours   {ours}\n  theirs {theirs}")
    assert not wrong, "\n".join(wrong)


def test_every_intended_difference_still_is_one(server: Influxd) -> None:
    for number, (body, reason) in enumerate(DIFFERENT.items()):
        ours, theirs = both(server, f"different{number}", body)
        assert ours != theirs, f"{body!r}: {reason}"
