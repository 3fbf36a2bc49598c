"""Every command of README.md's tour is run, on ports and in a directory of its own, and prints what the page shows."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dsdbd.config import Flags, load_config
from tests.docs.readme import REPOSITORY, Step, blocks, matches, quote_is_open, section, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TOUR = steps(section(README, "Five minutes"))
NODE_PORTS = (8088, 8188, 8288)
META_PORT_OFFSET = 3
READY_TIMEOUT_S = 60.0
STEP_TIMEOUT_S = 60.0


def free_base_port() -> int:
    """A port P such that P, P + 100, P + 200 and the meta ports three above each are free."""
    for _ in range(200):
        with contextlib.ExitStack() as held:
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            base = int(first.getsockname()[1])
            try:
                for index in range(len(NODE_PORTS)):
                    for port in (base + 100 * index, base + 100 * index + META_PORT_OFFSET):
                        if port != base:
                            held.enter_context(socket.socket()).bind(("", port))
            except (OSError, OverflowError):
                continue
        return base
    raise AssertionError("no six free ports in a row of hundreds")


def recipe_of_run() -> str:
    """What `make run` would execute, as make prints it, without the preparation of .venv."""
    lines = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "run"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    start = lines.find("DSDB_META_DIR=")
    assert start >= 0, lines
    return lines[start:]


@dataclass
class Tour:
    """Runs the steps; ports and directories of the page become those of this test."""

    directory: Path
    base: int = field(default_factory=free_base_port)
    terminal: subprocess.Popen[bytes] | None = None

    def own_ports(self, text: str) -> str:
        for index, port in enumerate(NODE_PORTS):
            text = text.replace(str(port + META_PORT_OFFSET), str(self.base + 100 * index + META_PORT_OFFSET))
            text = text.replace(str(port), str(self.base + 100 * index))
        return text

    def own(self, command: str) -> str:
        """The command with this test's ports; where it relies on the default port, that is made explicit."""
        command = command.replace(".venv/bin/dsdb demo", f".venv/bin/dsdb demo -base-port {self.base}")
        command = re.sub(r"\.venv/bin/dsdb (?=-(?!port))", f".venv/bin/dsdb -port {self.base} ", command)
        return self.own_ports(command)

    def start(self, step: Step) -> None:
        """Start what occupies a terminal, and wait until its last node is ready."""
        self.end()
        is_demo = "demo" in step.command
        script = self.own(step.command if is_demo else recipe_of_run())
        script = script.replace(f"{REPOSITORY}/var", str(self.directory))
        with (self.directory / "terminal.log").open("ab") as log:
            self.terminal = subprocess.Popen(
                ["bash", "-c", script],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "DSDB_HTTP_ALIAS_BIND_ADDRESS": "", "TMPDIR": str(self.directory)},
                start_new_session=True,
            )
        self.wait_ready(self.base + (200 if is_demo else 0))
        if is_demo:
            self.wait_text("Ctrl-C ends the cluster")

    def wait_ready(self, port: int) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2):
                return
            assert time.monotonic() < deadline_s, self.log()
            time.sleep(0.05)

    def wait_text(self, text: str) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while text not in self.log():
            assert time.monotonic() < deadline_s, self.log()
            time.sleep(0.05)

    def log(self) -> str:
        return (self.directory / "terminal.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def run(self, step: Step) -> str:
        done = subprocess.run(
            ["bash", "-c", self.own(step.command)],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=STEP_TIMEOUT_S,
            env={**os.environ, "HOME": str(self.directory)},
        )
        return done.stdout.decode()

    def end(self) -> None:
        """Ctrl-C in the terminal: the signal goes to all processes that were started there."""
        if self.terminal is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.terminal.pid, signal.SIGINT)
        try:
            self.terminal.wait(STEP_TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.terminal.pid, signal.SIGKILL)
            self.terminal = None


@pytest.fixture
def tour(tmp_path: Path) -> Iterator[Tour]:
    made = Tour(tmp_path)
    yield made
    made.end()


@pytest.mark.slow
@pytest.mark.skipif(not (REPOSITORY / ".venv/bin/dsdb").exists(), reason="the tour uses .venv, made by `make setup`")
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour uses curl")
def test_the_tour_prints_what_the_page_shows(tour: Tour) -> None:
    assert len([step for step in TOUR if step.runs_on]) == 3
    for step in TOUR:
        if step.runs_on:
            tour.start(step)
            continue
        printed, shown = tour.run(step), tour.own_ports(step.output)
        assert matches(shown, printed), f"{step.command}\n--- shown\n{shown}\n--- printed\n{printed}\n{tour.log()}"
    assert list(tour.directory.glob("dsdb-demo-*"))
    tour.end()
    assert list(tour.directory.glob("dsdb-demo-*")) == [], "the demo removes its data"


def test_the_two_commands_of_the_page_are_targets_of_make() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"^make (\w+)", "\n".join(blocks(section(README, "Start"), "sh")), re.MULTILINE)
    assert named == ["run", "test"]
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_settings_of_the_three_machines_are_accepted(tmp_path: Path) -> None:
    chapter = section(README, "Three machines")
    (settings,) = blocks(chapter, "toml")
    path = tmp_path / "dsdb.conf"
    path.write_text(settings)
    (options,) = re.findall(r'^INFLUXD_OPTS="-join (\S+)"$', chapter, re.MULTILINE)
    config = load_config(path, {"HOME": str(tmp_path)}, Flags(join=options))
    assert config.bind_address == config.http.bind_address == "influx1:8088"
    assert config.meta.http_bind_address == "influx1:8091"
    assert list(config.join) == ["influx1:8091"]
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\tb\n1\t2\n", "a   b\n\n1   2", True),
        ("down: …\n", "down: refused, twice\n", True),
        ("a\n", "a\nb\n", False),
        ("", "anything", False),
    ],
)
def test_the_comparison_tells_equal_from_different(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


def test_a_command_goes_on_until_its_quote_ends() -> None:
    assert quote_is_open("curl --data-binary 'one")
    assert not quote_is_open("curl --data-binary 'one\ntwo'")
    assert not quote_is_open("""dsdb -execute "WHERE city = 'Rome'" """)
