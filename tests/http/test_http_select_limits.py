"""A node whose settings limit what one SELECT may do: InfluxDB's texts, and answers up to the limit."""

import pytest

from tests.cluster.daemons import Daemon

SETTINGS = {"cluster": ["max-select-series = 3", "max-select-buckets = 4", "max-select-point = 20"]}
HOUR_S = 3600

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    daemon = Daemon(tmp_path_factory.mktemp("limits"), settings=SETTINGS)
    daemon.start()
    try:
        assert "results" in daemon.query("CREATE DATABASE d")
        lines = [f"tank level={hour} {hour * HOUR_S}" for hour in (1, 2, 6)]
        lines += [f"pump,at=p{number} runs=1,rate=2 {second}" for number in range(4) for second in range(4)]
        assert daemon.write("\n".join(lines), db="d", precision="s").status == 204
        yield daemon
    finally:
        daemon.stop()


def one(node, statement):
    (result,) = node.get("/query", q=statement, db="d", epoch="h").json["results"]
    return result.get("error") or [row for series in result.get("series", ()) for row in series["values"]]


# A statement that is asked again and again may be answered in another way than the first time.
@pytest.mark.parametrize("repeated", range(4))
@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("SELECT max(level) FROM tank WHERE time < 7h GROUP BY time(1h)", [[6, 6]]),
        ("SELECT max(level) FROM tank WHERE time < 6h GROUP BY time(1h)", [[2, 2], [3, None], [4, None], [5, None]]),
        ("SELECT max(level) FROM tank WHERE time >= 1h AND time < 5h GROUP BY time(2h)", [[0, 1], [2, 2], [4, None]]),
        (
            "SELECT max(level) FROM tank WHERE time >= 1h AND time < 6h GROUP BY time(1h)",
            "max-select-buckets limit exceeded: (5/4)",
        ),
        (
            "SELECT count(runs) FROM pump WHERE time >= '1970-01-01' AND time < '1970-01-02' GROUP BY time(6h)",
            "max-select-series limit exceeded: (4/3)",
        ),
        ("SELECT count(runs) FROM pump", "max-select-series limit exceeded: (4/3)"),
        ("SELECT count(runs) FROM (SELECT runs FROM pump)", "max-select-series limit exceeded: (4/3)"),
        ("SELECT count(runs) FROM pump WHERE at != 'p0'", [[0, 12]]),
        ("SELECT count(runs), count(rate) FROM pump WHERE at != 'p0'", "max-select-point limit exceeed: (24/20)"),
    ],
)
def test_a_select_at_its_limits(node, statement, answer, repeated):
    assert one(node, statement) == answer, repeated
