"""The Python libraries for InfluxDB 1.x and 2.x, as their users use them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest

with warnings.catch_warnings():
    # They use what newer versions of Python and their own dependencies call deprecated.
    warnings.simplefilter("ignore")
    from influxdb import InfluxDBClient
    from influxdb.exceptions import InfluxDBClientError
    from influxdb_client import InfluxDBClient as InfluxDBClient2
    from influxdb_client import Point, WritePrecision
    from influxdb_client.client.write_api import SYNCHRONOUS
    from influxdb_client.rest import ApiException

from tests.clients.conftest import PASSWORD, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.daemons import Daemon

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("clients"), pytest.mark.filterwarnings("ignore")]


def client_of(daemon: Daemon, **options: Any) -> InfluxDBClient:
    return InfluxDBClient(daemon.host, daemon.http_port, timeout=30, **options)


@pytest.fixture(params=["json", "msgpack"])
def client(request: pytest.FixtureRequest, server: Daemon) -> Iterator[InfluxDBClient]:
    """The library asks for MessagePack unless it is told otherwise."""
    headers = {"Accept": "application/json"} if request.param == "json" else None
    client = client_of(server, headers=headers)
    client.create_database("py")
    client.switch_database("py")
    yield client
    client.drop_database("py")
    client.close()


def points(count: int) -> list[dict[str, Any]]:
    return [
        {
            "measurement": "cpu",
            "tags": {"host": f"h{n % 3}", "text": "a b,c=d"},
            "fields": {"load": n * 0.5, "count": n, "up": n % 2 == 0, "note": f'n{n} ü "x"'},
            "time": 1_500_000_000_000_000_000 + n,
        }
        for n in range(count)
    ]


def test_ping_and_databases(client: InfluxDBClient) -> None:
    assert client.ping()
    assert {"name": "py"} in client.get_list_database()


def test_points_come_back(client: InfluxDBClient) -> None:
    assert client.write_points(points(30), batch_size=7)
    found = list(client.query("SELECT * FROM cpu", epoch="ns").get_points())
    assert [(row["time"], row["load"], row["count"], row["up"], row["note"]) for row in found] == [
        (point["time"], *(point["fields"][name] for name in ("load", "count", "up", "note"))) for point in points(30)
    ]
    assert {row["text"] for row in found} == {"a b,c=d"}
    assert list(client.query("SELECT count(load) FROM cpu GROUP BY host").get_points(tags={"host": "h1"})) == [
        {"time": "1970-01-01T00:00:00Z", "count": 10}
    ]


def test_times_as_text(client: InfluxDBClient) -> None:
    client.write_points(points(1))
    (row,) = client.query("SELECT load FROM cpu").get_points()
    assert row["time"] in ("2017-07-14T02:40:00Z", "2017-07-14T02:40:00.000000Z")


def test_chunks_and_bound_parameters(client: InfluxDBClient) -> None:
    client.write_points(points(30))
    if client._headers["Accept"] == "application/json":
        chunks = client.query("SELECT load FROM cpu", chunked=True, chunk_size=4)
        assert sum(len(list(chunk.get_points())) for chunk in chunks) == 30
    bound = client.query(
        "SELECT load FROM cpu WHERE host = $host AND load > $least", bind_params={"host": "h1", "least": 9.5}
    )
    assert [row["load"] for row in bound.get_points()] == [11.0, 12.5, 14.0]


def test_several_statements(client: InfluxDBClient) -> None:
    client.write_points(points(3))
    first, second = client.query("SELECT count(load) FROM cpu; SHOW MEASUREMENTS")
    assert [row["count"] for row in first.get_points()] == [3]
    assert list(second.get_points()) == [{"name": "cpu"}]


def test_policies_and_what_is_there(client: InfluxDBClient) -> None:
    client.create_retention_policy("week", "7d", "1", default=True)
    client.alter_retention_policy("week", duration="14d")
    assert {row["name"]: row["duration"] for row in client.get_list_retention_policies()} == {
        "autogen": "0s",
        "week": "336h0m0s",
    }
    client.alter_retention_policy("autogen", default=True)
    client.drop_retention_policy("week")
    client.write_points(points(3), retention_policy="autogen")
    assert client.get_list_measurements() == [{"name": "cpu"}]
    client.query("SHOW SERIES")
    client.delete_series(measurement="cpu", tags={"host": "h1"})
    assert len(list(client.query("SELECT load FROM autogen.cpu").get_points())) == 2
    client.drop_measurement("cpu")
    assert client.get_list_measurements() == []


def test_errors_are_told(client: InfluxDBClient) -> None:
    with pytest.raises(InfluxDBClientError, match="error parsing query"):
        client.query("SELECT FROM")
    with pytest.raises(InfluxDBClientError, match="database not found"):
        client.query("SELECT v FROM cpu", database="nosuch")
    client.write_points(points(1))
    with pytest.raises(InfluxDBClientError, match="field type conflict"):
        client.write_points([{"measurement": "cpu", "fields": {"load": "text"}}])


def test_users(guarded: Daemon) -> None:
    root = client_of(guarded, username=ROOT, password=PASSWORD, database="owned")
    root.create_database("owned")
    root.create_user("ann", "her password")
    root.grant_privilege("read", "owned", "ann")
    assert {"user": "ann", "admin": False} in root.get_list_users()
    assert root.get_list_privileges("ann") == [{"database": "owned", "privilege": "READ"}]
    root.write_points(points(3))
    ann = client_of(guarded, username="ann", password="her password", database="owned")
    assert len(list(ann.query("SELECT load FROM cpu").get_points())) == 3
    with pytest.raises(InfluxDBClientError, match="user is not authorized to write"):
        ann.write_points(points(1))
    root.set_user_password("ann", "another")
    with pytest.raises(InfluxDBClientError, match="authorization failed"):
        ann.query("SELECT load FROM cpu")
    root.revoke_privilege("read", "owned", "ann")
    root.drop_user("ann")
    root.drop_database("owned")
    for client in (root, ann):
        client.close()


def test_the_library_for_2_x_writes(guarded: Daemon) -> None:
    guarded.query("CREATE DATABASE two", u=ROOT, p=PASSWORD)
    with InfluxDBClient2(guarded.url(""), token=f"{ROOT}:{PASSWORD}", org="-", timeout=30_000) as client:
        assert client.ping()
        assert client.health().status == "pass"
        with client.write_api(write_options=SYNCHRONOUS) as writer:
            writer.write("two/autogen", record=Point("m").tag("host", "a").field("v", 1.5).time(1, WritePrecision.S))
            writer.write("two", record=["m,host=a v=2.5 2", "m,host=b v=3.5 3"], write_precision=WritePrecision.S)
            with pytest.raises(ApiException, match="retention policy not found"):
                writer.write("two/nosuch", record="m v=1")
            with pytest.raises(ApiException, match="field type conflict"):
                writer.write("two", record='m v="text"')
        with pytest.raises(ApiException, match="Flux query service disabled"):
            client.query_api().query('from(bucket:"two")')
    with (
        InfluxDBClient2(guarded.url(""), token=f"{ROOT}:wrong", org="-") as stranger,
        stranger.write_api(write_options=SYNCHRONOUS) as writer,
        pytest.raises(ApiException, match="401"),
    ):
        writer.write("two", record="m v=1")
    rows = guarded.rows("SELECT host, v FROM m", db="two", epoch="s", u=ROOT, p=PASSWORD)
    assert rows == [[1, "a", 1.5], [2, "a", 2.5], [3, "b", 3.5]]


def test_the_library_for_2_x_writes_batches(server: Daemon) -> None:
    server.query("CREATE DATABASE batches")
    with (
        InfluxDBClient2(server.url(""), token="any:thing", org="-", enable_gzip=True) as client,
        client.write_api() as writer,
    ):
        for n in range(2_500):
            writer.write("batches", record=f"m,n={n % 7} v={n} {n}")
    assert server.rows("SELECT count(v) FROM m", db="batches", epoch="ns") == [[0, 2_500]]
