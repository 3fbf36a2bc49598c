"""The init script, driven in a tree of its own with a stand-in daemon."""

from __future__ import annotations

import getpass
import grp
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "packaging" / "init.d" / "dsdb"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.debian,
    pytest.mark.skipif(shutil.which("start-stop-daemon") is None, reason="start-stop-daemon of dpkg is missing"),
]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@dataclass
class Node:
    """One instance of the service inside the tree."""

    tree: Path
    name: str

    @property
    def pid_file(self) -> Path:
        return self.tree / "run" / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.tree / "log" / f"{self.name}.log"

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def write_defaults(self, **settings: str) -> None:
        values = {
            "DAEMON": str(self.tree / "dsdbd"),
            "CONFIG": str(self.tree / "dsdb.conf"),
            "PIDFILE": str(self.pid_file),
            "STDERR": str(self.log),
            "USER": getpass.getuser(),
            "GROUP": grp.getgrgid(os.getgid()).gr_name,
            "NOFILE": "1024",
            **settings,
        }
        lines = [f"{key}='{value}'\n" for key, value in values.items()]
        (self.tree / "etc" / "default" / self.name).write_text("".join(lines))

    def __call__(self, verb: str) -> subprocess.CompletedProcess[str]:
        script = self.tree / "etc" / "init.d" / self.name
        return subprocess.run([script, verb], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[[str], Node]]:
    for directory in ("etc/default", "etc/init.d"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "dsdb.conf").write_text("")
    daemon = tmp_path / "dsdbd"
    source = Path(__file__).with_name("standin.py")
    daemon.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{source}" "$@"\n')
    daemon.chmod(0o755)
    nodes: list[Node] = []

    def make(name: str = "dsdb") -> Node:
        (tmp_path / "etc" / "init.d" / name).symlink_to(SCRIPT)
        node = Node(tmp_path, name)
        node.write_defaults()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.write_defaults(STOP_TIMEOUT="1")
        node("stop")


@pytest.fixture
def node(make_node: Callable[[str], Node]) -> Node:
    return make_node("dsdb")


def test_a_whole_life(node: Node) -> None:
    assert node("status").returncode == 3
    started = node("start")
    assert started.returncode == 0, started.stderr
    first = node.pid
    assert f"started, process id {first}" in started.stdout
    status = node("status")
    assert (status.returncode, status.stdout) == (0, f"dsdb: running with process id {first}\n")
    again = node("start")
    assert (again.returncode, node.pid) == (0, first)
    assert "already running" in again.stdout
    assert node("restart").returncode == 0
    second = node.pid
    assert second != first
    assert not is_alive(first)
    assert node("force-reload").returncode == 0
    assert node.pid != second
    stopped = node("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "dsdb: stopped\n")
    assert not node.pid_file.exists()
    assert node("status").returncode == 3
    assert node("stop").returncode == 0


def test_try_restart_leaves_a_stopped_service_stopped(node: Node) -> None:
    assert node("try-restart").returncode == 3
    node("start")
    first = node.pid
    assert node("try-restart").returncode == 0
    assert node.pid != first


def test_options_are_joined_split_into_words_and_not_expanded(node: Node) -> None:
    node.write_defaults(INFLUXD_OPTS="-join dsdb1:8091", DSDB_OPTS="-say /*", DSDBD_OPTS="-hostname x", NOFILE="1000")
    with (node.tree / "etc" / "default" / "dsdb").open("a") as file:
        file.write("DSDB_TEST_SETTING=seen\n")
    assert node("start").returncode == 0
    facts = json.loads(node.pid_file.with_suffix(".json").read_text())
    expected = ["-pidfile", str(node.pid_file), "-config", str(node.tree / "dsdb.conf")]
    assert facts["argv"] == [*expected, "-join", "dsdb1:8091", "-say", "/*", "-hostname", "x"]
    assert facts["setting"] == "seen"
    limits = Path(f"/proc/{node.pid}/limits").read_text()
    assert "Max open files            1000" in limits


def test_a_machine_that_allows_fewer_files_is_told_and_served(node: Node) -> None:
    node.write_defaults(NOFILE="99999999999")
    result = node("start")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert result.returncode == 0
    assert f"only {hard} open files instead of 99999999999" in result.stderr
    assert re.search(rf"^Max open files\s+{hard}\s", Path(f"/proc/{node.pid}/limits").read_text(), re.MULTILINE)


def test_a_stale_pid_file_whose_number_is_reused_harms_nobody(node: Node) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            node.pid_file.parent.mkdir()
            node.pid_file.write_text(f"{stranger.pid}\n")
            assert node("status").returncode == 1
            assert node("stop").returncode == 0
            assert stranger.poll() is None
            node.pid_file.write_text(f"{stranger.pid}\n")
            assert node("start").returncode == 0
            assert node.pid != stranger.pid
            assert node("stop").returncode == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("content", ["", "not a number\n", "-1\n", "99999999999\n"])
def test_a_damaged_pid_file_is_replaced(node: Node, content: str) -> None:
    node.pid_file.parent.mkdir()
    node.pid_file.write_text(content)
    assert node("status").returncode == 1
    assert node("start").returncode == 0
    assert is_alive(node.pid)


def test_status_is_dead_after_a_kill_and_start_recovers(node: Node) -> None:
    node("start")
    killed = node.pid
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_alive(killed))
    status = node("status")
    assert status.returncode == 1
    assert "ended abnormally" in status.stdout
    assert node("start").returncode == 0
    assert node("status").returncode == 0


def test_a_daemon_that_dies_is_reported_with_its_own_last_words(node: Node) -> None:
    node.write_defaults(DSDB_OPTS="-say earlier")
    node("start")
    node("stop")
    node.write_defaults(DSDB_OPTS="-mode die -say now")
    begun = time.monotonic()
    result = node("start")
    assert time.monotonic() - begun < 20
    assert result.returncode == 1
    assert "the daemon ended while starting" in result.stderr
    assert "  now\n  the configuration has a problem\n" in result.stderr
    assert "earlier" not in result.stderr
    assert node("status").returncode == 3


def test_a_daemon_that_does_not_answer_is_left_to_go_on(node: Node) -> None:
    node.write_defaults(DSDB_OPTS="-mode silent", START_TIMEOUT="1")
    result = node("start")
    assert result.returncode == 0
    assert "not answering after 1 s" in result.stdout
    assert node("status").returncode == 0


def test_a_daemon_that_ignores_sigterm_is_killed(node: Node) -> None:
    node.write_defaults(DSDB_OPTS="-mode stubborn", STOP_TIMEOUT="1")
    node("start")
    pid = node.pid
    result = node("stop")
    assert result.returncode == 0
    assert f"killing process {pid}" in result.stderr
    assert not is_alive(pid)
    assert not node.pid_file.exists()


def test_stopped_means_the_process_is_gone(node: Node) -> None:
    node.write_defaults(DSDB_OPTS="-mode lingers")
    node("start")
    pid = node.pid
    assert node("stop").returncode == 0
    assert not is_alive(pid)


def test_two_nodes_live_side_by_side(make_node: Callable[[str], Node]) -> None:
    one, two = make_node("dsdb"), make_node("dsdb-two")
    assert one("start").returncode == two("start").returncode == 0
    assert one.pid != two.pid
    assert two.log.exists()
    assert one("stop").returncode == 0
    assert two("status").returncode == 0


def test_the_name_in_a_runlevel_directory_is_the_same_service(node: Node) -> None:
    node("start")
    runlevel = node.tree / "etc" / "rc0.d"
    runlevel.mkdir()
    link = runlevel / "K01dsdb"
    link.symlink_to("../init.d/dsdb")
    assert subprocess.run([link, "stop"], capture_output=True, timeout=60).returncode == 0
    assert node("status").returncode == 3


def test_what_cannot_start_says_why(node: Node) -> None:
    node.write_defaults(DAEMON="/nonexistent/dsdbd")
    result = node("start")
    assert (result.returncode, "/nonexistent/dsdbd is missing" in result.stderr) == (5, True)
    node.write_defaults(CONFIG="/nonexistent/dsdb.conf")
    result = node("start")
    assert (result.returncode, "/nonexistent/dsdb.conf cannot be read" in result.stderr) == (4, True)
    node.write_defaults(PIDFILE="/proc/no/dsdb.pid")
    assert node("start").returncode == 5
    if os.getuid() == 0:
        node.write_defaults(USER="nobody-of-that-name")
        result = node("start")
        assert (result.returncode, "nobody-of-that-name does not exist" in result.stderr) == (5, True)
    (node.tree / "etc" / "default" / "dsdb").write_text("DSDB_OPTS='unfinished\n")
    assert node("status").returncode == 6


def test_verbs(node: Node) -> None:
    version = node("version")
    assert (version.returncode, version.stdout) == (0, "DSDB v0\n")
    wrong = node("begin")
    assert wrong.returncode == 2
    assert "start|stop|status|restart" in wrong.stderr
