"""The nodes of a campaign and what is asked of all of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from tests.fault.clock import Clock, build
from tests.fault.digests import differing
from tests.fault.disk import Disk
from tests.fault.files import Content, read_content
from tests.fault.history import OK, History
from tests.fault.members import data_ids, moves
from tests.fault.netns import Network
from tests.fault.node import READY_TIMEOUT_S, FaultNode

_COUNTERS = {
    "write": ("req", "pointReq", "pointReqLocal", "pointReqRemote", "writeOk", "writeError", "writeTimeout"),
    "handoff": ("kept", "delivered", "refused", "dropped", "expired"),
    "storage": ("writes", "flushes", "merges"),
    "queryExecutor": ("queriesExecuted", "queriesFinished"),
    "raft": ("appliedIndex", "commitIndex", "term"),
}


class FaultCluster:
    """Nodes 1 to n in one network. ``broken`` names a broken build that all of them run."""

    def __init__(self, work: Path, disk_bytes: int, broken: str = "") -> None:
        self.work = work
        self.network = Network()
        self.nodes: list[FaultNode] = []
        self._disk_bytes = disk_bytes
        self._broken = broken
        self._library = build(work)
        self._secret = work / "cluster.secret"
        self._secret.write_text("a secret for tests of faults only\n")
        self._secret.chmod(0o600)

    @property
    def clocks_can_be_set(self) -> bool:
        """Whether there was a compiler for the clock library."""
        return self._library is not None

    def grow(self, count: int) -> None:
        """Start ``count`` more nodes and wait until they are members."""
        if not self.nodes:
            self.network.open()
        fresh = [self._add() for _ in range(count)]
        for node in fresh:
            node.start(join=[one.host for one in self.nodes if one.number < node.number and one.alive][:3])
            if not node.wait_ready(READY_TIMEOUT_S):
                raise RuntimeError(f"node {node.number} does not start:\n{node.log_tail(4000)}")
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not all(self._knows(node) for node in self.nodes if node.alive and not node.paused):
            if time.monotonic() > deadline_s:
                raise RuntimeError("the nodes do not all see each other")
            time.sleep(0.1)

    def _knows(self, node: FaultNode) -> bool:
        try:
            return len(data_ids(self.nodes, node)) == len(self.nodes)
        except (OSError, KeyError, ValueError):
            return False

    def _add(self) -> FaultNode:
        number = self.network.add()
        root = self.work / f"node{number}"
        root.mkdir()
        disk = Disk(root / "disk", self.work / "images", self._disk_bytes)
        disk.make()
        clock = Clock(root / "clock", self._library)
        node = FaultNode(number, root, self.network, disk, clock, self._secret, broken=self._broken)
        self.nodes.append(node)
        return node

    def any(self) -> FaultNode:
        """A node that runs."""
        return next(node for node in self.nodes if node.alive and not node.paused)

    def execute(self, statement: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Carry out a statement that may need some attempts."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                self.any().query(statement, consistency="linearizable")
                return
            except OSError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    def owners(self, database: str) -> dict[int, list[int]]:
        """Shards of a database to numbers of the nodes that own them."""
        node = self.any()
        ids = {number: name for name, number in data_ids(self.nodes, node).items()}
        found = {}
        for series in node.query("SHOW SHARDS")[0]["series"]:
            for row in series.get("values", []):
                values = dict(zip(series["columns"], row, strict=True))
                if values["database"] == database:
                    found[values["id"]] = [ids[int(one)] for one in values["owners"].split(",") if int(one) in ids]
        return found

    def databases(self) -> dict[int, list[str]]:
        """Names that each node shows."""
        found = {}
        for node in self.nodes:
            series = node.query("SHOW DATABASES", consistency="linearizable")[0]["series"][0]
            found[node.number] = [row[0] for row in series["values"]]
        return found

    def settle(self, database: str, until_s: float) -> str:
        """Wait until owners have equal digests and every node is well; what was wrong when there was no time left."""
        while True:
            why = self._unsettled(database)
            if not why or time.monotonic() > until_s:
                return why
            time.sleep(0.2)

    def _unsettled(self, database: str) -> str:
        try:
            shards = differing(self.nodes, self._secret, self.owners(database))
            under_way = moves(self.nodes[0])
        except (OSError, KeyError, ValueError) as error:
            return f"a node does not give its digests: {error}"
        if shards:
            return f"the owners of shards {shards} have different digests"
        if under_way:
            return f"{len(under_way)} copies of shards are still being taken"
        ill = [f"node {node.number}: {node.health()}" for node in self.nodes if node.health()[0] != "pass"]
        return "; ".join(ill)

    def last_operations(self, history: History, database: str, base_ns: int) -> int:
        """The operations that have to succeed on every node at the end, once; returns how many each does."""
        steps = ("write", "read", "create", "show", "delete")
        for node in self.nodes:
            for step in steps:
                why = ""
                try:
                    self._one_last(node, step, database, base_ns)
                except OSError as error:
                    why = str(error)
                history.add("last", node=node.number, op=step, outcome="unknown" if why else OK, why=why)
        return len(steps)

    @staticmethod
    def _one_last(node: FaultNode, step: str, database: str, base_ns: int) -> None:
        match step:
            case "write":
                line = f"last,node=n{node.number} value=1i {base_ns}".encode()
                status, body = node.request("POST", "/write", line, db=database, consistency="all")
                if status != 204:
                    raise OSError(f"{status}: {body[:300]!r}")
            case "read":
                node.query("SELECT count(value) FROM last", db=database)
            case "create":
                node.query(f"CREATE DATABASE {database}l{node.number}")
            case "show":
                node.query("SHOW DATABASES", consistency="linearizable")
            case "delete":
                node.query(f"DELETE FROM last WHERE node = 'n{node.number}'", db=database)

    def contents(self, database: str) -> dict[int, Content]:
        """What is on the disks of the nodes, which are stopped."""
        return {node.number: read_content(node.disk.mount_point / "data", database) for node in self.nodes}

    def stop(self, history: History) -> None:
        """Stop all nodes in order, so that everything is in files."""
        stopping = [threading.Thread(target=self._stop_one, args=(node, history)) for node in self.nodes]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    @staticmethod
    def _stop_one(node: FaultNode, history: History) -> None:
        code = node.stop()
        if code != 0:
            history.add("exit", node=node.number, code=code, log=node.log_tail())

    def start(self, numbers: Iterable[int] | None = None) -> None:
        """Start stopped nodes and wait until they are ready."""
        chosen = [node for node in self.nodes if numbers is None or node.number in numbers]
        for node in chosen:
            node.start()
        for node in chosen:
            if not node.wait_ready(READY_TIMEOUT_S):
                raise RuntimeError(f"node {node.number} does not start:\n{node.log_tail(4000)}")


class Sampler:
    """Looks at memory, open files and counters of every process once a second."""

    def __init__(self, cluster: FaultCluster, history: History) -> None:
        self._cluster = cluster
        self._history = history
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(1.0):
            for node in tuple(self._cluster.nodes):
                pid = node.pid
                memory, files = node.usage()
                counters: dict[str, float] = {}
                if node.alive and not node.paused:
                    try:
                        _, body = node.request("GET", "/debug/vars", timeout_s=1.0)
                        found = json.loads(body)
                        counters = {
                            f"{group}.{name}": found[group]["values"][name]
                            for group, names in _COUNTERS.items()
                            if group in found
                            for name in names
                            if name in found[group]["values"]
                        }
                    except (OSError, ValueError):
                        counters = {}
                if pid == node.pid:
                    self._history.add(
                        "sample", node=node.number, pid=pid, memory=memory, files=files, counters=counters
                    )
