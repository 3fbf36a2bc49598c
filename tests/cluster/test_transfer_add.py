"""A cluster that gets another node, gives one up, and moves shards meanwhile: nothing is lost, refusals name shards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.cluster.daemons import Cluster, Daemon, wait_until
from tests.cluster.test_points_failures import create, data_id, owned

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.slow]
WEEK_NS = 7 * 86_400 * 10**9
SETTLE_S = 60.0


def node_command(through: Daemon, *words: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """``dsdb node`` asked of one daemon."""
    command = [sys.executable, "-m", "dsdb_cli.main", "node", *words, "-host", through.host]
    command += ["-port", str(through.http_port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)


def done(through: Daemon, *words: str) -> str:
    """Output of a command that must succeed."""
    finished = node_command(through, *words)
    assert finished.returncode == 0, (words, finished.stdout, finished.stderr)
    return finished.stdout


def holdings(through: Daemon) -> dict[str, dict[str, Any]]:
    """GET /cluster/nodes by data id."""
    return {str(node["data_id"]): node for node in through.get("/cluster/nodes").json["nodes"]}


def moves(through: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = through.get("/cluster/moves").json["moves"]
    return found


class Client:
    """A thread that asks any of some nodes, one request after another, from the begin of the block to its end."""

    def __init__(self, nodes: Sequence[Daemon]) -> None:
        self.failed: list[str] = []
        self._nodes = list(nodes)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def leave_out(self, node: Daemon) -> None:
        """Do not ask this node any more."""
        self._nodes = [other for other in self._nodes if other is not node]

    def _run(self) -> None:
        raise NotImplementedError


class Writer(Client):
    """Writes points of any of ``weeks`` through any node until it is stopped; ``acknowledged`` are their values.

    A request that is refused or unanswered is repeated at the next node, as clients do; ``failed`` are those that no
    repetition helped.
    """

    def __init__(self, nodes: Sequence[Daemon], *, weeks: int, consistency: str, retry_s: float = 20.0) -> None:
        super().__init__(nodes)
        self.acknowledged: set[int] = set()
        self._weeks = weeks
        self._consistency = consistency
        self._retry_s = retry_s

    def _run(self) -> None:
        first = 1_000_000
        while not self._stop.is_set():
            numbers = range(first, first + 50)
            first += 50
            lines = "\n".join(
                f"cpu,host=h{number % 40} value={number}i {(number % self._weeks) * WEEK_NS + number}"
                for number in numbers
            )
            if self._write(lines):
                self.acknowledged.update(numbers)
            time.sleep(0.01)

    def _write(self, lines: str) -> bool:
        deadline_s, turn, answer = time.monotonic() + self._retry_s, 0, ""
        while time.monotonic() < deadline_s:
            nodes = self._nodes
            turn += 1
            try:
                found = nodes[turn % len(nodes)].write(lines, db="d", consistency=self._consistency, timeout_s=10)
            except OSError as error:
                answer = str(error)
            else:
                if found.status == 204:
                    return True
                answer = f"{found.status} {found.body.decode()}"
                if found.status < 500:
                    break
            time.sleep(0.1)
        self.failed.append(answer)
        return False


def write_everywhere(node: Daemon, lines: str) -> None:
    """Write points with times of their own until every owner has them; on a busy machine one may seem to be away."""
    wait_until(
        lambda: node.write(lines, db="d", consistency="all").status == 204, "every owner has the points", SETTLE_S
    )


def fill(node: Daemon, *, weeks: int, per_week: int) -> set[int]:
    """Points over the weeks, at every owner; their values."""
    for week in range(weeks):
        lines = "\n".join(
            f"cpu,host=h{number % 40} value={week * per_week + number}i {week * WEEK_NS + number}"
            for number in range(per_week)
        )
        write_everywhere(node, lines)
    return set(range(weeks * per_week))


def values(node: Daemon) -> set[int]:
    """What the node answers, from whichever owners; none is left out silently."""
    return {row[1] for row in node.rows("SELECT value FROM cpu", db="d", epoch="ns")}


def all_is_at_its_place(nodes: Sequence[Daemon]) -> bool:
    """Whether nothing is on the way any more and no former owner holds anything."""
    held = holdings(nodes[0]).values()
    return not moves(nodes[0]) and all(node["former"] == 0 for node in held if node["state"] != "down")


def test_a_fourth_node_takes_its_share_and_another_leaves_while_points_are_written(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", "REPLICATION 2")
    expected = fill(nodes[0], weeks=5, per_week=2_000)
    fourth = cluster.add(join=[nodes[0].meta_address]).start()
    cluster.wait_servers(4)
    new = data_id(fourth)

    before = nodes[1].query("SHOW SHARDS"), moves(nodes[1])
    plan = json.loads(done(nodes[1], "add", new, "-dry-run", "-format", "json"))
    assert plan["moves"]
    assert {move["to"] for move in plan["moves"]} == {int(new)}
    assert plan["bytes"] == sum(move["bytes"] for move in plan["moves"]) > 0
    assert before == (nodes[1].query("SHOW SHARDS"), []), "a dry run changes nothing"

    with Writer([*nodes, fourth], weeks=5, consistency="quorum") as writer:
        wait_until(lambda: len(writer.acknowledged) > 100, "points are written", SETTLE_S)
        output = done(nodes[0], "add", new)
        assert f"node {new} has its share" in output
        taken = [shard for shard, owners in owned(nodes[0], "d").items() if new in owners]
        assert len(taken) == len(plan["moves"])
        # 2 copies of each shard still, and as much at each node, give or take a shard.
        counts = [node["shards"] for node in holdings(nodes[0]).values()]
        assert max(counts) - min(counts) <= 1, counts
        assert all(len(owners) == 2 for owners in owned(nodes[0], "d").values())

        leaving = next(node for node in nodes if not node.is_leader())
        number = data_id(leaving)
        staying = [node for node in (*nodes, fourth) if node is not leaving]
        writer.leave_out(leaving)
        assert f"node {number} owns no shards any more" in done(staying[0], "drain", number)
        assert holdings(staying[0])[number]["state"] == "draining"
        assert all(number not in owners for owners in owned(staying[0], "d").values())
        assert f"node {number} was removed" in done(staying[0], "remove", number)
        assert leaving.wait_exit(SETTLE_S) == 13
    assert writer.failed == []
    wait_until(lambda: all_is_at_its_place(staying), "former owners have given up their files", SETTLE_S)
    expected |= writer.acknowledged
    for node in staying:
        assert values(node) == expected
    cluster.wait_servers(3)
    # The copies alone, without the writers' queues: one node after another is away.
    staying[0].kill()
    for node in staying[1:]:
        wait_until(lambda node=node: values(node) == expected, "two of three nodes hold every point", SETTLE_S)
    assert all("Traceback" not in node.log for node in cluster.daemons)


def test_an_addition_is_cancelled_and_what_was_on_the_way_stays_where_it_is(cluster: Cluster) -> None:
    first = cluster.add().start()
    create([first], "d", "REPLICATION 1")
    expected = fill(first, weeks=4, per_week=5_000)
    slow = {"transfer": ['max-throughput = "20"', "max-shards = 1"]}
    second = cluster.add(join=[first.meta_address], settings=slow).start()
    cluster.wait_servers(2)
    new = data_id(second)
    assert "begun: dsdb node list shows how far it is" in done(first, "add", new, "-detach")
    assert moves(first)
    with subprocess.Popen(
        [sys.executable, "-m", "dsdb_cli.main", "node", "add", new, "-host", first.host, "-port", str(first.http_port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has what it runs in the background ignore the key, and so do all that it starts.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as waiting:
        try:
            assert waiting.stdout is not None
            while "copies made" not in waiting.stdout.readline():
                assert waiting.poll() is None
            waiting.send_signal(signal.SIGINT)
            _, told = waiting.communicate(timeout=SETTLE_S)
        finally:
            waiting.kill()
    assert (waiting.returncode, "what was ordered goes on" in told) == (130, True), told
    assert moves(first)
    assert f"node {new} keeps the shards that it has" in done(second, "cancel", new)
    assert moves(first) == []
    holding = holdings(first)[new]
    assert (holding["state"], holding["incoming"]) == ("up", 0)
    wait_until(
        lambda: "cancelled" in {row[7] for row in first.rows("SHOW REPAIRS")}, "the receiver has ended it", SETTLE_S
    )
    assert values(second) == expected


def test_what_would_lose_points_or_the_metadata_is_refused_by_name(cluster: Cluster) -> None:
    nodes = cluster.grow(3)
    create(nodes, "d", "REPLICATION 1")
    fill(nodes[0], weeks=2, per_week=50)
    asked, lost = nodes[0], nodes[2]
    number = data_id(lost)
    shards = sorted(int(shard) for shard, owners in owned(asked, "d").items() if owners == {number})
    lost.kill()
    wait_until(lambda: holdings(asked)[number]["state"] == "down", "it is known to be down", SETTLE_S)
    before = asked.query("SHOW SHARDS")
    for words in (("drain", number), ("remove", number), ("replace", number, data_id(nodes[1]))):
        refused = node_command(asked, *words)
        assert refused.returncode == 1, refused.stdout
        assert "refused:" in refused.stdout
        assert f"every owner of shards {', '.join(map(str, shards))} is down" in refused.stdout
    # With one of three meta nodes away, another one's vote cannot be spared.
    refused = node_command(asked, "remove", data_id(nodes[1]), "-dry-run")
    assert refused.returncode == 1
    assert "the metadata could not change" in refused.stdout
    assert before == asked.query("SHOW SHARDS")
    assert holdings(asked)[number]["state"] == "down", "not draining"
    answer = asked.get("/cluster/plan")
    assert answer.status == 405
    missing = node_command(asked, "add", "99")
    assert (missing.returncode, "node 99 not found" in missing.stderr) == (1, True), missing
