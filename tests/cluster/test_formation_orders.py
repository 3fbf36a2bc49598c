"""Three nodes in every order, with every kind of join list: one cluster, one table of servers, ids from one counter."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cluster.daemons import Cluster, Daemon

pytestmark = pytest.mark.slow
ORDERS = list(itertools.permutations(range(3)))


def no_traceback(daemons: Sequence[Daemon]) -> None:
    for daemon in daemons:
        assert "Traceback" not in daemon.log, daemon.log
        assert "never retrieved" not in daemon.log, daemon.log


def one_cluster(cluster: Cluster, count: int = 3) -> dict[str, list[list[object]]]:
    """The servers that every node lists, after checking that all belong to one cluster with one counter of ids."""
    for daemon in cluster.daemons:
        daemon.wait_ready()
    cluster.wait_servers(count)
    assert len({daemon.status()["cluster_id"] for daemon in cluster.daemons}) == 1
    servers = cluster.daemons[0].servers()
    numbers = [row[0] for rows in servers.values() for row in rows]
    assert sorted(numbers) == list(range(1, 2 * count + 1))
    no_traceback(cluster.daemons)
    return servers


def start_in_order(daemons: Sequence[Daemon], order: Sequence[int], gap_s: float) -> None:
    for position, number in enumerate(order):
        if position:
            # The gap is what is tested, not a wait for something.
            time.sleep(gap_s)
        daemons[number].start(wait=False)


def lists(kind: str, daemons: Sequence[Daemon]) -> None:
    """Give every daemon its join list."""
    addresses = [daemon.meta_address for daemon in daemons]
    for number, daemon in enumerate(daemons):
        match kind:
            case "guide":
                daemon.join = [] if number == 0 else addresses[:1]
            case "identical":
                daemon.join = addresses
            case "mutual":
                daemon.join = [address for address in addresses if address != daemon.meta_address]
            case "aliases":
                daemon.join = [address.replace("127.0.0.1", "localhost") for address in addresses]
            case "chain":
                daemon.join = [addresses[(number + 1) % len(addresses)]]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(str(n + 1) for n in order))
@pytest.mark.parametrize(("kind", "gap_s"), [("guide", 0.5), ("identical", 0.0)])
def test_any_order_gives_one_cluster(cluster: Cluster, kind: str, order: tuple[int, ...], gap_s: float) -> None:
    daemons = [cluster.add() for _ in range(3)]
    lists(kind, daemons)
    start_in_order(daemons, order, gap_s)
    one_cluster(cluster)


@pytest.mark.parametrize(
    ("kind", "order", "gap_s"),
    [
        ("mutual", (0, 1, 2), 0.0),
        ("mutual", (1, 2, 0), 2.0),
        ("aliases", (2, 0, 1), 0.5),
        ("chain", (2, 1, 0), 0.5),
        ("identical", (1, 0, 2), 5.0),
        ("guide", (1, 2, 0), 5.0),
    ],
)
def test_other_lists_and_longer_gaps(cluster: Cluster, kind: str, order: tuple[int, ...], gap_s: float) -> None:
    daemons = [cluster.add() for _ in range(3)]
    lists(kind, daemons)
    start_in_order(daemons, order, gap_s)
    one_cluster(cluster)


def test_the_lowest_address_founds_when_lists_are_identical(cluster: Cluster) -> None:
    daemons = [cluster.add() for _ in range(3)]
    lists("identical", daemons)
    start_in_order(daemons, (2, 1, 0), 0.0)
    servers = one_cluster(cluster)
    assert servers["meta_nodes"][0][:2] == [1, min(daemon.meta_address for daemon in daemons)]


def test_a_dead_address_before_a_real_one(cluster: Cluster) -> None:
    first = cluster.add().start()
    dead = f"127.0.0.1:{free_port()}"
    second = cluster.add(join=[dead, first.meta_address]).start()
    third = cluster.add(join=["no-such-host.invalid:8091", dead, second.meta_address]).start()
    one_cluster(cluster)
    assert third.exit_code is None


def test_the_node_port_may_be_named_instead_of_the_meta_port(cluster: Cluster) -> None:
    first = cluster.add().start()
    cluster.add(join=[first.address]).start()
    cluster.wait_servers(2)


def test_killed_while_forming(cluster: Cluster) -> None:
    """kill -9 at a moment of the formation, different in every round, and the same command again."""
    for moment_s in (0.1, 0.3, 0.6, 1.2):
        daemons = [cluster.add() for _ in range(3)]
        lists("identical", daemons)
        start_in_order(daemons, (0, 1, 2), 0.0)
        time.sleep(moment_s)
        for daemon in daemons[:2]:
            daemon.kill()
        for daemon in daemons[:2]:
            daemon.start(wait=False)
        for daemon in daemons:
            daemon.wait_ready()
        cluster.wait_servers(3)
        no_traceback(daemons)
        for daemon in daemons:
            daemon.kill()
        cluster.daemons.clear()
        cluster.root = cluster.root / "next"


def test_while_waiting_it_answers_and_says_for_whom(cluster: Cluster) -> None:
    dead = f"127.0.0.1:{free_port()}"
    daemon = cluster.add(join=[dead])
    daemon.start(wait=False)

    def waiting() -> bool:
        try:
            return dead in daemon.get("/health").json["message"]
        except OSError:
            return False

    wait_until(waiting, "the node says for whom it waits")
    assert daemon.get("/ping").status == 204
    health = daemon.get("/health")
    assert (health.status, health.json["status"]) == (503, "fail")
    assert daemon.get("/metrics").status == 200
    assert daemon.get("/ready").status == 503
    assert daemon.get("/ready", **{"for": "query"}).status == 503
    assert dead in daemon.get("/ready").json["message"]
    assert daemon.get("/ping", wait_for_leader="100ms").status == 503
    answer = daemon.write("cpu value=1", db="d")
    assert answer.status == 503, answer
    assert answer.json["error"]
    # Several rounds of asking have passed; the reason is in the log once.
    time.sleep(3)
    assert daemon.log.count(f"waiting for {dead}") == 1, daemon.log
    no_traceback([daemon])
