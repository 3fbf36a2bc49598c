"""`dsdb demo` and the way to the daemon: plans, failures, signals, and a whole cluster."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsdb_cli.demo_plan import NodePlan, config_text, daemon_environment, missing_servers, plan_ports, welcome_lines
from dsdb_cli.errors import UsageError
from dsdb_cli.results import Response, Result, Series
from dsdbd.config import Flags, load_config

DEADLINE_S = 60.0


def ports(taken: set[int], count: int = 3, base: int | None = None) -> list[tuple[int, int]]:
    numbers = iter(range(50_000, 50_100))
    return plan_ports(count, base, lambda port: port not in taken, lambda: next(numbers))


def test_ports() -> None:
    assert ports(set()) == [(8088, 8091), (8188, 8191), (8288, 8291)]
    assert ports({8091, 8288}) == [(50_000, 50_001), (8188, 8191), (50_002, 50_003)]
    assert ports({8088}, count=2, base=9000) == [(9000, 9003), (9100, 9103)]
    with pytest.raises(UsageError, match="port 9103 is in use"):
        ports({9103}, base=9000)
    for base in (0, 65_400):
        with pytest.raises(UsageError, match="leaves no room"):
            ports(set(), base=base)


def test_configuration_file(tmp_path: Path) -> None:
    plan = NodePlan(2, 8188, 8191, tmp_path / 'a "strange" \\ name')
    config = tomllib.loads(config_text(plan))
    assert config["bind-address"] == config["meta"]["bind-address"] == config["http"]["bind-address"]
    assert config["http"] == {"bind-address": "127.0.0.1:8188", "alias-bind-address": ""}
    assert config["meta"]["http-bind-address"] == "127.0.0.1:8191"
    places = [config["meta"]["dir"], config["data"]["dir"], config["data"]["wal-dir"], config["hinted-handoff"]["dir"]]
    assert len(set(places)) == 4
    assert {Path(place).parent for place in places} == {plan.directory}


def test_the_daemon_reads_the_configuration_file(tmp_path: Path) -> None:
    plan = NodePlan(2, 8188, 8191, tmp_path)
    plan.config_path.write_text(config_text(plan))
    config = load_config(plan.config_path, {}, Flags(join="127.0.0.1:8091", hostname=""))
    assert config.http.bind_address == config.meta.bind_address == "127.0.0.1:8188"
    assert config.meta.http_bind_address == "127.0.0.1:8191"
    assert config.http.alias_bind_address == ""
    assert not config.admin.enabled
    assert Path(config.data.wal_dir) == tmp_path / "wal"


def test_the_environment_cannot_override_every_node() -> None:
    environ = {"DSDB_DATA_DIR": "x", "INFLUXDB_DATA_DIR": "x", "DSDB_LOG_LEVEL": "debug", "PATH": "/bin"}
    assert daemon_environment(environ) == {"DSDB_LOG_LEVEL": "debug", "PATH": "/bin"}


def test_when_the_cluster_is_complete() -> None:
    def servers(data: int, meta: int) -> Response:
        return Response(
            [
                Result(
                    [
                        Series("data_nodes", {}, ["id"], [[n] for n in range(data)]),
                        Series("meta_nodes", {}, ["id"], [[n] for n in range(meta)]),
                    ]
                )
            ]
        )

    assert missing_servers(servers(3, 3), 3) is None
    assert missing_servers(servers(2, 3), 3) == "SHOW SERVERS lists 2 data nodes and 3 meta nodes of 3"
    assert missing_servers(Response([Result()]), 1) is not None
    assert missing_servers(Response(error="no leader"), 1) == "no leader"


def test_the_welcome_names_addresses_processes_and_logs(tmp_path: Path) -> None:
    plans = [NodePlan(1, 8088, 8091, tmp_path / "node1"), NodePlan(2, 8188, 8191, tmp_path / "node2")]
    text = "\n".join(welcome_lines(plans, [11, 22], keep=False))
    for part in (
        "127.0.0.1:8188",
        "127.0.0.1:8191",
        str(tmp_path / "node2/dsdbd.log"),
        "kill -9 22",
        "removes its data",
    ):
        assert part in text
    alone = welcome_lines(plans[:1], [11], keep=True)
    assert not any("kill" in line for line in alone)
    assert "keeps its data" in alone[-1]


Install = Callable[[str | None], list[str]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Put `dsdb` into a directory of its own, and beside it a `dsdbd` that is the shell script given."""

    def write(daemon: str | None) -> list[str]:
        bin_dir = tmp_path / "bin"
        bin_dir.mkdir()
        program = bin_dir / "dsdb"
        program.write_text("import sys\nfrom dsdb_cli.main import main\nmain()\n")
        if daemon is not None:
            (bin_dir / "dsdbd").write_text(f"#!/bin/sh\n{daemon}\n")
            (bin_dir / "dsdbd").chmod(0o755)
        return [sys.executable, str(program)]

    return write


def run(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["run", "-config", "a b"], ["-join", "x:8091"], ["config"], ["version"]])
def test_the_daemons_commands_become_the_daemon(install: Install, shell_environment: Any, words: list[str]) -> None:
    command = install('for word in "$@"; do echo "<$word>"; done; echo $$; exit 12')
    process = subprocess.Popen([*command, *words], env=shell_environment, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert output.splitlines() == [*(f"<{word}>" for word in words), str(process.pid)]
    assert process.returncode == 12


@pytest.mark.slow
def test_without_a_daemon_there_is_a_sentence(install: Install, shell_environment: Any) -> None:
    if Path(sys.executable).with_name("dsdbd").exists():
        pytest.skip("this interpreter's directory has the daemon")
    command = install(None)
    for words in (["run"], ["demo"]):
        done = run([*command, *words], {**shell_environment, "PATH": "/nowhere"})
        assert done.returncode == 1
        assert done.stderr.startswith("The daemon's program dsdbd is neither beside dsdb nor in PATH: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_demo_that_cannot_start_shows_why_and_leaves_nothing(
    install: Install, shell_environment: Any, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = install("echo starting; echo 'the disk is made of cheese' >&2; exit 10")
    done = run([*command, "demo", "-nodes", "2"], {**shell_environment, "TMPDIR": str(temporary)})
    assert done.returncode == 1
    assert "Node 1 ended with exit status 10.\nThe end of its log, " in done.stderr
    assert done.stderr.endswith("  starting\n  the disk is made of cheese\n")
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_nodes_and_removes_the_data(
    install: Install, shell_environment: Any, tmp_path: Path, number: signal.Signals
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process_id = tmp_path / "pid"
    command = install(f'echo $$ > "{process_id}.new"; mv "{process_id}.new" "{process_id}"; exec sleep 600')
    demo = subprocess.Popen(
        [*command, "demo"],
        env={**shell_environment, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    poll(process_id.exists)
    assert len(list(temporary.iterdir())) == 1
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=DEADLINE_S)
    assert "Ending the cluster" in output
    assert "Traceback" not in output
    assert demo.returncode == 0
    assert list(temporary.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(process_id.read_text()), 0)


@pytest.mark.slow
def test_keep_keeps_the_data(install: Install, shell_environment: Any, tmp_path: Path) -> None:
    command = install("exit 1")
    done = run([*command, "demo", "-keep"], {**shell_environment, "TMPDIR": str(tmp_path)})
    kept = re.search(r"The data stays in (.*)\.\n", done.stdout)
    assert kept is not None
    assert (Path(kept.group(1)) / "node1" / "dsdb.conf").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["-nodes", "0"], "a demo has 1 to 9 nodes"),
        (["-nodes", "x"], "whole number"),
        (["three"], "unknown arguments: three"),
    ],
)
def test_wrong_words(install: Install, shell_environment: Any, words: list[str], part: str) -> None:
    done = run([*install("exit 1"), "demo", *words], shell_environment)
    assert part in done.stderr
    assert done.returncode == 2


@pytest.mark.slow
def test_a_taken_base_port_is_named(install: Install, shell_environment: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run([*install("exit 1"), "demo", "-nodes", "1", "-base-port", str(port)], shell_environment)
    assert f"port {port} is in use" in done.stderr
    assert done.returncode == 2


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("dsdbd.main") is None, reason="there is no daemon to start")
def test_a_cluster_of_three(install: Install, shell_environment: Any, tmp_path: Path, dsdb: Any) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = install(f'exec "{sys.executable}" -c "from dsdbd.main import main; main()" "$@"')
    log = tmp_path / "demo.log"
    with log.open("wb") as out:
        demo = subprocess.Popen(
            [*command, "demo"],
            env={**shell_environment, "TMPDIR": str(temporary)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        poll(lambda: "Ctrl-C ends the cluster" in log.read_text() or demo.poll() is not None)
        assert demo.poll() is None, log.read_text()
        http_ports = re.findall(r"^\d\s+127\.0\.0\.1:(\d+)", log.read_text(), re.MULTILINE)
        assert len(http_ports) == 3
        done = dsdb("-port", http_ports[2], "-format", "csv", "-execute", "SHOW SERVERS")
        assert done.stdout.count("\ndata_nodes,") + done.stdout.startswith("data_nodes,") == 3
        assert done.stdout.count("\nmeta_nodes,") == 3
    finally:
        demo.terminate()
        demo.wait(DEADLINE_S)
    assert demo.returncode == 0, log.read_text()
    assert list(temporary.iterdir()) == []


def poll(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
