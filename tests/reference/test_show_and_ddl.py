"""SHOW forms and changes of the metadata, answered side by side by our daemon and InfluxDB, byte for byte."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cluster.daemons import Answer, Daemon, request
from tests.reference.influxd import influxd, needs_influxd

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = Path(__file__).parent / "show_and_ddl"
POINTS = {
    "autogen": (
        "cpu,host=a,region=west usage=1,idle=2i 1000000000",
        "cpu,host=b,region=east usage=2.5,idle=3i 2000000000",
        "cpu,host=c usage=3 3000000000",
        "cpu,host=d,region=d usage=3 3000000000",
        "cpu,region=west usage=4 90000000000000000",
        'mem,host=a free=10i,name="x" 1000000000',
        "mem,host=b free=11i,ok=true 95000000000000000",
        "disk,path=/,host=a used=1 1000000000",
        "disk,path=/var,host=a used=1 1000000000",
        "notags v=1 1000000000",
        r"a\ b,t\ ag=v\ al f\ i=1 1000000000",
    ),
    "rp2": ("net,if=eth0,host=a rx=1i 1000000000", "cpu,host=zz usage=7 1000000000"),
}
OWN_CODE = re.compile(rb',"code":"[a-z_]+"')
"""What our errors say in addition."""

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd]


class Row(NamedTuple):
    """A line of a table: ``!`` before a statement whose answers are meant to differ, ``@nodb`` for a request without
    a database, ``@csv`` for one that wants CSV."""

    statement: str
    differs: bool
    database: str
    accept: str


def rows_of(name: str) -> list[Row]:
    found = []
    for line in (TABLES / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            differs = line.startswith("! ")
            statement = line.removeprefix("! ")
            database = "" if statement.startswith("@nodb ") else "db"
            accept = "application/csv" if statement.startswith("@csv ") else "application/json"
            found.append(Row(re.sub("^@[a-z]+ ", "", statement), differs, database, accept))
    return found


class Servers(NamedTuple):
    """Addresses of both."""

    ours: str
    theirs: str

    def ask(self, row: Row) -> tuple[Answer, Answer]:
        """Both answers, ours first and without what only ours says."""
        parameters = urllib.parse.urlencode({"db": row.database} if row.database else {})
        body = urllib.parse.urlencode({"q": row.statement}).encode()
        ours, theirs = (
            request("POST", f"http://{address}/query?{parameters}", body, {"Accept": row.accept}) for address in self
        )
        return Answer(ours.status, ours.headers, OWN_CODE.sub(b"", ours.body)), theirs

    def both(self, path: str, body: str) -> None:
        for address in self:
            answer = request("POST", f"http://{address}{path}", body.encode())
            assert answer.status in (200, 204), answer.body


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    ours = Daemon(
        tmp_path_factory.mktemp("ours") / "node", settings={"continuous_queries": ["enabled = false"]}
    ).start()
    try:
        with influxd(tmp_path_factory.mktemp("theirs")) as theirs:
            found = Servers(ours.address, theirs.address)
            create = (
                "CREATE DATABASE db; CREATE DATABASE e; CREATE RETENTION POLICY rp2 ON db DURATION INF REPLICATION 1"
            )
            found.both("/query?" + urllib.parse.urlencode({"q": create}), "")
            for policy, lines in POINTS.items():
                found.both(f"/write?db=db&rp={policy}", "\n".join(lines))
            yield found
    finally:
        ours.kill()


@pytest.mark.parametrize("table", ["lists", "cardinalities", "metadata"])
def test_both_answer_the_same(servers: Servers, table: str) -> None:
    wrong = []
    for row in rows_of(table):
        ours, theirs = servers.ask(row)
        same = (ours.status, ours.body) == (theirs.status, theirs.body)
        if same == row.differs:
            what = (
                "is answered the same"
                if same
                else f"\n    ours   {ours.body[:600]!r}\n    theirs {theirs.body[:600]!r}"
            )
            wrong.append(f"{row.statement} {what}")
    assert not wrong, f"{len(wrong)} statements:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE CONTINUOUS QUERY by_get ON e BEGIN SELECT mean(v) INTO n FROM m GROUP BY time(1h) END",
        "DROP CONTINUOUS QUERY by_get ON e",
        "CREATE SUBSCRIPTION by_get ON e.autogen DESTINATIONS ALL 'http://127.0.0.1:9'",
        "DROP SUBSCRIPTION by_get ON e.autogen",
        "SHOW CONTINUOUS QUERIES",
    ],
)
def test_both_say_of_the_same_changes_that_they_belong_into_a_post(servers: Servers, statement: str) -> None:
    query = urllib.parse.urlencode({"q": statement, "db": "e"})
    ours, theirs = (request("GET", f"http://{address}/query?{query}") for address in servers)
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
