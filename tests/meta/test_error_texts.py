"""The sentences of refusals: pinned here, and compared with those of InfluxDB 1.x where it is installed."""

import pytest

from dsdbd.meta import commands as c
from dsdbd.meta import rows
from dsdbd.meta.state import Privilege, SubscriptionMode
from tests.meta.dialogue import Machine
from tests.reference.influxd import influxd

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
DAY = 24 * HOUR
ANY, ALL = SubscriptionMode.ANY, SubscriptionMode.ALL
LONG = "n" * 300
CQ = "CREATE CONTINUOUS QUERY c ON db BEGIN SELECT mean(v) INTO m2 FROM m GROUP BY time(1h) END"
CQ2 = CQ.replace("mean", "max")

# Statement of InfluxQL, the command it becomes, the sentence (None: it succeeds). Run in this order on both sides.
STEPS = [
    ("CREATE DATABASE db", c.CreateDatabase("db"), None),
    ("CREATE DATABASE db", c.CreateDatabase("db"), None),
    ('CREATE DATABASE ""', c.CreateDatabase(""), "invalid name"),
    ('CREATE DATABASE ".."', c.CreateDatabase(".."), "invalid name"),
    ('CREATE DATABASE "a/b"', c.CreateDatabase("a/b"), "invalid name"),
    ('CREATE DATABASE "a\tb"', c.CreateDatabase("a\tb"), "invalid name"),
    (f'CREATE DATABASE "{LONG}"', c.CreateDatabase(LONG), "name too long"),
    ('CREATE DATABASE d WITH NAME "a/b"', c.CreateDatabase("d", c.PolicySpec("a/b")), "invalid name"),
    (
        "CREATE DATABASE d WITH DURATION 5m",
        c.CreateDatabase("d", c.PolicySpec(duration_ns=5 * MINUTE)),
        "retention policy duration must be at least 1h0m0s",
    ),
    (
        "CREATE DATABASE d WITH DURATION 1h SHARD DURATION 2h",
        c.CreateDatabase("d", c.PolicySpec(duration_ns=HOUR, shard_group_duration_ns=2 * HOUR)),
        "retention policy duration must be greater than the shard duration",
    ),
    (
        "CREATE DATABASE db WITH DURATION 3d NAME autogen",
        c.CreateDatabase("db", c.PolicySpec("autogen", 3 * DAY)),
        "retention policy conflicts with an existing policy",
    ),
    ("CREATE DATABASE db WITH DURATION INF", c.CreateDatabase("db", c.PolicySpec(duration_ns=0)), None),
    (
        "CREATE DATABASE d3 WITH DURATION 3d REPLICATION 2 SHARD DURATION 2h NAME foo",
        c.CreateDatabase("d3", c.PolicySpec("foo", 3 * DAY, 2, 2 * HOUR)),
        None,
    ),
    (
        "CREATE DATABASE d3 WITH DURATION 3d REPLICATION 2 SHARD DURATION 2h NAME foo",
        c.CreateDatabase("d3", c.PolicySpec("foo", 3 * DAY, 2, 2 * HOUR)),
        None,
    ),
    (
        "CREATE DATABASE d3 WITH NAME foo",
        c.CreateDatabase("d3", c.PolicySpec("foo")),
        "retention policy conflicts with an existing policy",
    ),
    ("CREATE DATABASE d3", c.CreateDatabase("d3"), None),
    (
        "CREATE DATABASE d3 WITH NAME other",
        c.CreateDatabase("d3", c.PolicySpec("other")),
        "retention policy conflicts with an existing policy",
    ),
    ("DROP DATABASE nodb", c.DropDatabase("nodb"), None),
    (
        "CREATE RETENTION POLICY r1 ON db DURATION 1d REPLICATION 1",
        c.CreateRetentionPolicy("db", "r1", DAY, 1),
        None,
    ),
    (
        "CREATE RETENTION POLICY r1 ON db DURATION 1d REPLICATION 1",
        c.CreateRetentionPolicy("db", "r1", DAY, 1),
        None,
    ),
    (
        "CREATE RETENTION POLICY r1 ON db DURATION 1d REPLICATION 1 DEFAULT",
        c.CreateRetentionPolicy("db", "r1", DAY, 1, default=True),
        "retention policy conflicts with an existing policy",
    ),
    (
        "CREATE RETENTION POLICY r1 ON db DURATION 2d REPLICATION 1",
        c.CreateRetentionPolicy("db", "r1", 2 * DAY, 1),
        "retention policy already exists",
    ),
    (
        "CREATE RETENTION POLICY r2 ON nodb DURATION 2d REPLICATION 1",
        c.CreateRetentionPolicy("nodb", "r2", 2 * DAY, 1),
        "database not found: nodb",
    ),
    (
        'CREATE RETENTION POLICY "" ON db DURATION 2d REPLICATION 1',
        c.CreateRetentionPolicy("db", "", 2 * DAY, 1),
        "invalid name",
    ),
    (
        "CREATE RETENTION POLICY r2 ON db DURATION 30m REPLICATION 1",
        c.CreateRetentionPolicy("db", "r2", 30 * MINUTE, 1),
        "retention policy duration must be at least 1h0m0s",
    ),
    (
        "CREATE RETENTION POLICY r2 ON db DURATION 1h REPLICATION 1 SHARD DURATION 90m",
        c.CreateRetentionPolicy("db", "r2", HOUR, 1, 90 * MINUTE),
        "retention policy duration must be greater than the shard duration",
    ),
    (
        "CREATE RETENTION POLICY r3 ON db DURATION INF REPLICATION 7 SHARD DURATION 5m",
        c.CreateRetentionPolicy("db", "r3", 0, 7, 5 * MINUTE),
        None,
    ),
    (
        "CREATE RETENTION POLICY r6 ON db DURATION 48h REPLICATION 1",
        c.CreateRetentionPolicy("db", "r6", 2 * DAY, 1),
        None,
    ),
    (
        "ALTER RETENTION POLICY r1 ON db DURATION 10m",
        c.UpdateRetentionPolicy("db", "r1", 10 * MINUTE),
        "retention policy duration must be at least 1h0m0s",
    ),
    ("ALTER RETENTION POLICY r1 ON db DURATION 10d", c.UpdateRetentionPolicy("db", "r1", 10 * DAY), None),
    (
        "ALTER RETENTION POLICY r1 ON db SHARD DURATION 20d",
        c.UpdateRetentionPolicy("db", "r1", shard_group_duration_ns=20 * DAY),
        "retention policy duration must be greater than the shard duration",
    ),
    (
        "ALTER RETENTION POLICY r1 ON db SHARD DURATION 10m",
        c.UpdateRetentionPolicy("db", "r1", shard_group_duration_ns=10 * MINUTE),
        None,
    ),
    (
        "ALTER RETENTION POLICY r6 ON db DURATION 5h",
        c.UpdateRetentionPolicy("db", "r6", 5 * HOUR),
        "retention policy duration must be greater than the shard duration",
    ),
    (
        "ALTER RETENTION POLICY r6 ON db DURATION INF REPLICATION 3 DEFAULT",
        c.UpdateRetentionPolicy("db", "r6", 0, 3, default=True),
        None,
    ),
    (
        "ALTER RETENTION POLICY rx ON db REPLICATION 3",
        c.UpdateRetentionPolicy("db", "rx", replica_n=3),
        "retention policy not found: rx",
    ),
    (
        "ALTER RETENTION POLICY rx ON nodb REPLICATION 3",
        c.UpdateRetentionPolicy("nodb", "rx", replica_n=3),
        "database not found: nodb",
    ),
    ("DROP RETENTION POLICY r3 ON db", c.DropRetentionPolicy("db", "r3"), None),
    ("DROP RETENTION POLICY rx ON db", c.DropRetentionPolicy("db", "rx"), None),
    ("DROP RETENTION POLICY rx ON nodb", c.DropRetentionPolicy("nodb", "rx"), None),
    ("CREATE USER u WITH PASSWORD 'p'", c.CreateUser("u", "p"), None),
    ("CREATE USER u WITH PASSWORD 'p'", c.CreateUser("u", "p"), None),
    ("CREATE USER u WITH PASSWORD 'q'", c.CreateUser("u", "q"), "user already exists"),
    ("CREATE USER u WITH PASSWORD 'p' WITH ALL PRIVILEGES", c.CreateUser("u", "p", True), "user already exists"),
    ("CREATE USER \"\" WITH PASSWORD 'p'", c.CreateUser("", "p"), "username required"),
    ("SET PASSWORD FOR nobody = 'x'", c.UpdateUser("nobody", "x"), "user not found"),
    ("DROP USER nobody", c.DropUser("nobody"), "user not found"),
    ("GRANT READ ON nodb TO u", c.SetPrivilege("u", "nodb", Privilege.READ), "database not found: nodb"),
    ("GRANT READ ON db TO nobody", c.SetPrivilege("nobody", "db", Privilege.READ), "user not found"),
    ("GRANT ALL ON db TO u", c.SetPrivilege("u", "db", Privilege.ALL), None),
    ("REVOKE READ ON db FROM u", c.RevokePrivilege("u", "db", Privilege.READ), None),
    ("REVOKE WRITE ON nodb FROM u", c.RevokePrivilege("u", "nodb", Privilege.WRITE), "database not found: nodb"),
    ("GRANT ALL PRIVILEGES TO nobody", c.SetAdminPrivilege("nobody", True), "user not found"),
    (CQ, c.CreateContinuousQuery("db", "c", CQ), None),
    (CQ, c.CreateContinuousQuery("db", "c", CQ), None),
    (CQ2, c.CreateContinuousQuery("db", "c", CQ2), "continuous query already exists"),
    (CQ.replace("ON db", "ON nodb"), c.CreateContinuousQuery("nodb", "c", CQ), "database not found: nodb"),
    ("DROP CONTINUOUS QUERY cx ON nodb", c.DropContinuousQuery("nodb", "cx"), None),
    ("DROP CONTINUOUS QUERY c ON db", c.DropContinuousQuery("db", "c"), None),
    (
        "CREATE SUBSCRIPTION s ON db.autogen DESTINATIONS ALL 'http://127.0.0.1:9'",
        c.CreateSubscription("db", "autogen", "s", ALL, ("http://127.0.0.1:9",)),
        None,
    ),
    (
        "CREATE SUBSCRIPTION s ON db.autogen DESTINATIONS ALL 'http://127.0.0.1:9'",
        c.CreateSubscription("db", "autogen", "s", ALL, ("http://127.0.0.1:9",)),
        "subscription already exists",
    ),
    *(
        (
            f"CREATE SUBSCRIPTION s2 ON db.autogen DESTINATIONS ANY '{url}'",
            c.CreateSubscription("db", "autogen", "s2", ANY, (url,)),
            f"invalid subscription URL: {url}",
        )
        for url in ("foo", "tcp://127.0.0.1:9", "udp://127.0.0.1", "http://h:port")
    ),
    (
        "CREATE SUBSCRIPTION s2 ON db.nope DESTINATIONS ANY 'udp://127.0.0.1:9'",
        c.CreateSubscription("db", "nope", "s2", ANY, ("udp://127.0.0.1:9",)),
        "retention policy not found: nope",
    ),
    (
        "CREATE SUBSCRIPTION s2 ON nodb.nope DESTINATIONS ANY 'udp://127.0.0.1:9'",
        c.CreateSubscription("nodb", "nope", "s2", ANY, ("udp://127.0.0.1:9",)),
        "database not found: nodb",
    ),
    ("DROP SUBSCRIPTION sx ON db.autogen", c.DropSubscription("db", "autogen", "sx"), "subscription not found"),
    ("DROP SUBSCRIPTION sx ON db.nope", c.DropSubscription("db", "nope", "sx"), "retention policy not found: nope"),
    ("DROP SUBSCRIPTION sx ON nodb.x", c.DropSubscription("nodb", "x", "sx"), "database not found: nodb"),
]


def run_steps(machine):
    return [
        (statement, result.error.message if (result := machine.give(command)).error else None)
        for statement, command, _ in STEPS
    ]


def test_every_step_gives_its_sentence():
    assert run_steps(Machine()) == [(statement, sentence) for statement, _, sentence in STEPS]


def test_replication_must_be_positive():
    machine = Machine()
    machine.give(c.CreateDatabase("db"))
    for command in (
        c.CreateRetentionPolicy("db", "r", 0, 0),
        c.UpdateRetentionPolicy("db", "autogen", replica_n=0),
        c.CreateDatabase("d", c.PolicySpec(replica_n=0)),
    ):
        assert machine.give(command).error == c.Failure(
            "replication_too_low", "replication factor must be greater than 0"
        )


def test_a_port_no_address_can_have_is_refused_where_influxdb_accepts_it():
    machine = Machine()
    machine.give(c.CreateDatabase("db"))
    refused = machine.give(c.CreateSubscription("db", "autogen", "s", ANY, ("http://h:70000",)))
    assert refused.error == c.Failure("subscription_url_invalid", "invalid subscription URL: http://h:70000")


@pytest.fixture
def server(tmp_path):
    with influxd(tmp_path) as running:
        yield running


@pytest.mark.slow
@pytest.mark.debian
def test_influxdb_says_the_same(server):
    machine = Machine()
    machine.give(c.CreateDataNode("n", "h:1", "h:2"))
    said = [(statement, server.result(statement).get("error")) for statement, _, _ in STEPS]
    assert run_steps(machine) == said


@pytest.mark.slow
@pytest.mark.debian
def test_influxdb_shows_the_same_policies_users_and_grants(server):
    machine = Machine()
    machine.give(c.CreateDataNode("n", "h:1", "h:2"))
    run_steps(machine)
    for statement, _, _ in STEPS:
        server.result(statement)
    for statement, table in (
        ("SHOW DATABASES", rows.show_databases(machine.state)),
        ("SHOW RETENTION POLICIES ON db", rows.show_retention_policies(machine.state, "db")),
        ("SHOW RETENTION POLICIES ON d3", rows.show_retention_policies(machine.state, "d3")),
        ("SHOW USERS", rows.show_users(machine.state)),
        ("SHOW GRANTS FOR u", rows.show_grants(machine.state, "u")),
        ("SHOW SUBSCRIPTIONS", rows.show_subscriptions(machine.state)[0]),
    ):
        series = server.result(statement)["series"][0]
        assert series.get("name", "") == table.name
        assert series["columns"] == list(table.columns)
        assert series["values"] == [list(row) for row in table.rows], statement
