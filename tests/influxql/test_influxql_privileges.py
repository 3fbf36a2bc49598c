from __future__ import annotations

import pytest

from dsdbd.influxql import parse
from dsdbd.influxql.ast import Privilege
from dsdbd.influxql.privileges import ADMIN, RequiredPrivilege, required_privileges


def read(database: str | None = None) -> RequiredPrivilege:
    return RequiredPrivilege(Privilege.READ, database)


def write(database: str | None = None) -> RequiredPrivilege:
    return RequiredPrivilege(Privilege.WRITE, database)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT a FROM m", (read(),)),
        ("SELECT a FROM d.r.m, e..m, m", (read("d"), read("e"), read())),
        ("SELECT a INTO t FROM m", (read(), write())),
        ("SELECT a INTO e.r.t FROM d..m", (read("d"), write("e"))),
        ("SELECT a FROM (SELECT b FROM d..m)", (read("d"),)),
        ("EXPLAIN SELECT a FROM d..m", (read("d"),)),
        ("DELETE FROM m", (write(),)),
        ("DROP SERIES FROM m", (write(),)),
        ("DROP MEASUREMENT m", (ADMIN,)),
        ("DROP RETENTION POLICY p ON d", (write("d"),)),
        ("DROP CONTINUOUS QUERY c ON d", (write("d"),)),
        ("CREATE CONTINUOUS QUERY c ON d BEGIN SELECT a INTO t FROM m END", (read("d"), write("d"))),
        ("CREATE CONTINUOUS QUERY c ON d BEGIN SELECT a INTO e.r.t FROM m END", (read("d"), write("e"))),
        ("CREATE CONTINUOUS QUERY c ON d BEGIN SELECT a INTO t FROM e.r.m END", (read("d"), read("e"), write("d"))),
        ("SHOW DATABASES", ()),
        ("SHOW QUERIES", (read(),)),
        ("SHOW REPAIRS", (ADMIN,)),
        ("SHOW CONTINUOUS QUERIES", (read(),)),
        ("SHOW RETENTION POLICIES ON d", (read("d"),)),
        ("SHOW MEASUREMENTS", (read(),)),
        ("SHOW SERIES ON d", (read("d"),)),
        ("SHOW TAG KEYS FROM e.r.m", (read(), read("e"))),
        ("SHOW TAG VALUES ON d WITH KEY = k", (read("d"),)),
        ("SHOW TAG KEY EXACT CARDINALITY", (read(),)),
        *(
            (text, (ADMIN,))
            for text in (
                "CREATE DATABASE d",
                "DROP DATABASE d",
                "CREATE RETENTION POLICY p ON d DURATION 1h REPLICATION 1",
                "ALTER RETENTION POLICY p ON d DEFAULT",
                "CREATE USER u WITH PASSWORD 'p'",
                "DROP USER u",
                "SET PASSWORD FOR u = 'p'",
                "GRANT READ ON d TO u",
                "GRANT ALL TO u",
                "REVOKE READ ON d FROM u",
                "REVOKE ALL FROM u",
                "CREATE SUBSCRIPTION s ON d.r DESTINATIONS ALL 'x'",
                "DROP SUBSCRIPTION s ON d.r",
                "DROP SHARD 1",
                "DROP SERVER 1",
                "DROP META SERVER 1",
                "KILL QUERY 1",
                "SHOW USERS",
                "SHOW GRANTS FOR u",
                "SHOW SERVERS",
                "SHOW SHARDS",
                "SHOW SHARD GROUPS",
                "SHOW STATS",
                "SHOW DIAGNOSTICS",
                "SHOW SUBSCRIPTIONS",
            )
        ),
    ],
)
def test_required_privileges(text: str, expected: tuple[RequiredPrivilege, ...]) -> None:
    (statement,) = parse(text)
    assert required_privileges(statement) == expected
