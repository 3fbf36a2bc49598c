"""`dsdb demo`: a cluster of daemons on this machine, which ends with this process."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from dsdb_cli.client import Client, Endpoint
from dsdb_cli.demo_plan import (
    HOST,
    MAX_NODES,
    NodePlan,
    config_text,
    daemon_environment,
    missing_servers,
    plan_ports,
    welcome_lines,
)
from dsdb_cli.dispatch import find_daemon
from dsdb_cli.errors import ShellError, UsageError
from dsdb_cli.flags import Kind, parse_flags

USAGE = """\
Usage of dsdb demo:
  dsdb demo [-nodes 3] [-base-port P] [-keep]

Starts a cluster of dsdbd processes on 127.0.0.1 with data in a temporary directory. Ctrl-C ends them and removes
the data; -keep keeps it. Ports are 8088 and 8091, 8188 and 8191 … where these are free.
"""
FLAGS: Mapping[str, Kind] = {
    "nodes": Kind.INTEGER,
    "base-port": Kind.INTEGER,
    "keep": Kind.SWITCH,
    "h": Kind.SWITCH,
    "help": Kind.SWITCH,
}
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.1
LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 64 << 10


def run_demo(words: Sequence[str]) -> int:
    """Run a cluster until it is interrupted; exit status 0, or 1 when it did not start or every node ended."""
    parsed = parse_flags(FLAGS, words)
    if parsed.rest:
        raise UsageError(f"unknown arguments: {' '.join(parsed.rest)}")
    if parsed.switch("h") or parsed.switch("help"):
        print(USAGE, end="")
        return 0
    count = parsed.integer("nodes", 3)
    if not 1 <= count <= MAX_NODES:
        raise UsageError(f"-nodes {count}: a demo has 1 to {MAX_NODES} nodes")
    base_port = parsed.integer("base-port") if "base-port" in parsed.values else None
    daemon = find_daemon()
    ports = plan_ports(count, base_port, _is_free, _free_port)
    keep = parsed.switch("keep")
    with _counted_signals() as signals:
        directory = Path(tempfile.mkdtemp(prefix="dsdb-demo-"))
        plans = [
            NodePlan(number, port, meta_port, directory / f"node{number}")
            for number, (port, meta_port) in enumerate(ports, 1)
        ]
        cluster = Cluster(daemon, plans, signals)
        # The interpreter may end another way than through the block below; the daemons must not outlive it.
        atexit.register(cluster.kill)
        try:
            return _run(cluster, signals, keep=keep)
        finally:
            cluster.stop()
            atexit.unregister(cluster.kill)
            if keep:
                print(f"The data stays in {directory}.")
            else:
                shutil.rmtree(directory, ignore_errors=True)


def _run(cluster: Cluster, signals: Signals, *, keep: bool) -> int:
    print(f"Starting {len(cluster.plans)} nodes …", flush=True)
    cluster.start()
    if not signals.count:
        print("\n".join(welcome_lines(cluster.plans, cluster.process_ids, keep)), flush=True)
    while not signals.count:
        for sentence in cluster.ended():
            print(sentence, flush=True)
        if not cluster.running:
            print("Every node has ended.", flush=True)
            return 1
        time.sleep(POLL_S)
    print("\nEnding the cluster …", flush=True)
    return 0


@dataclass(slots=True)
class Signals:
    """How often the user asked for the end; counted rather than raised, so that no step is cut in half."""

    count: int = 0


@dataclass(slots=True)
class _Node:
    plan: NodePlan
    process: subprocess.Popen[bytes]
    reported: bool = False


class Cluster:
    """The processes of a demo. Each has a session of its own, so that Ctrl-C reaches this process only."""

    def __init__(self, daemon: Path, plans: Sequence[NodePlan], signals: Signals) -> None:
        self.plans = plans
        self._signals = signals
        self._daemon = daemon
        self._nodes: list[_Node] = []

    @property
    def process_ids(self) -> list[int]:
        """Process id of each node."""
        return [node.process.pid for node in self._nodes]

    @property
    def running(self) -> bool:
        """Whether any node still runs."""
        return any(node.process.poll() is None for node in self._nodes)

    def start(self) -> None:
        """Start the nodes one after the other and wait until each knows all, or the user asks for the end.

        Raises ShellError with the tail of the log of a node that ended or was not ready in time.
        """
        deadline_s = time.monotonic() + START_TIMEOUT_S
        for index, plan in enumerate(self.plans):
            if self._signals.count:
                return
            self._launch(plan)
            # The first node makes the cluster the others join, and each joins one that is complete.
            self._wait_for(self._nodes[-1], index + 1, deadline_s)
        for node in self._nodes:
            self._wait_for(node, len(self.plans), deadline_s)

    def _launch(self, plan: NodePlan) -> None:
        plan.directory.mkdir(mode=0o750)
        plan.config_path.write_text(config_text(plan), encoding="utf-8")
        words = [str(self._daemon), "run", "-config", str(plan.config_path)]
        if plan.number > 1:
            words += ["-join", self.plans[0].meta_address]
        with plan.log_path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - the daemon's own program, without a shell
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=daemon_environment(os.environ),
                start_new_session=True,
            )
        self._nodes.append(_Node(plan, process))

    def _wait_for(self, node: _Node, count: int, deadline_s: float) -> None:
        client = Client(Endpoint(HOST, node.plan.port))
        lacking: str | None = "it did not answer"
        try:
            while lacking is not None and not self._signals.count:
                status = node.process.poll()
                if status is not None:
                    raise ShellError(
                        f"Node {node.plan.number} ended with {_exit_text(status)}.\n{_log_tail(node.plan)}"
                    )
                if time.monotonic() > deadline_s:
                    raise ShellError(
                        f"Node {node.plan.number} was not ready within {START_TIMEOUT_S:.0f} s: {lacking}\n"
                        f"{_log_tail(node.plan)}"
                    )
                time.sleep(POLL_S)
                try:
                    lacking = missing_servers(client.query("SHOW SERVERS", timeout_s=5.0), count)
                except ShellError as error:
                    lacking = error.message.partition("\n")[0]
        finally:
            client.close()

    def ended(self) -> list[str]:
        """A sentence for each node that ended since the last call."""
        sentences = []
        for node in self._nodes:
            status = node.process.poll()
            if status is not None and not node.reported:
                node.reported = True
                sentences.append(f"Node {node.plan.number} ended with {_exit_text(status)}; log: {node.plan.log_path}")
        return sentences

    def stop(self) -> None:
        """Ask every node to end, then make it; no process is left on return."""
        for node in reversed(self._nodes):
            if node.process.poll() is None:
                node.process.terminate()
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        asked_before = self._signals.count
        # Another Ctrl-C while they end means now.
        while self.running and time.monotonic() < deadline_s and self._signals.count == asked_before:
            time.sleep(POLL_S)
        self.kill()

    def kill(self) -> None:
        """End every node at once."""
        for node in self._nodes:
            if node.process.poll() is None:
                node.process.kill()
                node.process.wait()


@contextlib.contextmanager
def _counted_signals() -> Iterator[Signals]:
    """Count Ctrl-C, SIGTERM and SIGHUP, a closed terminal, alike."""
    signals = Signals()

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        signals.count += 1

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield signals
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _exit_text(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status} ({signal.Signals(-status).name})"


def _log_tail(plan: NodePlan) -> str:
    try:
        with plan.log_path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    except OSError:
        lines = []
    if not lines:
        return "Its log is empty."
    return "\n".join([f"The end of its log, {plan.log_path}:", *(f"  {line}" for line in lines)])


def _is_free(port: int) -> bool:
    # Bound for all addresses: a server that listens on any of them would be in the way of clients.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
