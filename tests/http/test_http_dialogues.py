"""The dialogues in dialogues/: our daemon gives the recorded answers, and so does influxd, byte for byte.

Where a step says ``differs`` the recorded answer is ours, and influxd must really give another one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.daemons import Daemon
from tests.http.dialogue import DIRECTORY, ask, read_dialogue
from tests.http.servers import dsdbd_settings
from tests.reference.influxd import influxd, needs_influxd

NAMES = sorted(path.stem for path in DIRECTORY.glob("*.txt"))
pytestmark = pytest.mark.slow


def check_ours(name: str, daemon: Daemon) -> None:
    wrong = []
    for step in read_dialogue(DIRECTORY / f"{name}.txt"):
        reply = ask(step, daemon.address)
        if list(reply.lines) != step.expected or reply.code != step.code:
            wrong.append((step.title, step.expected, step.code, reply))
    assert not wrong
    assert "Traceback" not in daemon.log


def check_influxd(name: str, address: str) -> None:
    wrong = []
    for step in read_dialogue(DIRECTORY / f"{name}.txt"):
        if "ours" in step.flags:
            continue
        reply = ask(step, address)
        if (list(reply.lines) == step.expected) is bool(step.differs):
            wrong.append((step.title, step.differs, step.expected, reply))
    assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_daemon_answers_as_recorded(name: str, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "dsdb", settings=dsdbd_settings(auth=name == "auth")).start()
    try:
        check_ours(name, daemon)
    finally:
        daemon.kill()


@pytest.mark.debian
@needs_influxd
@pytest.mark.parametrize("name", NAMES)
def test_influxd_answers_as_recorded(name: str, tmp_path: Path) -> None:
    with influxd(tmp_path, auth=name == "auth") as server:
        check_influxd(name, server.address)


def test_dialogues_cover_both_sides() -> None:
    steps = [step for path in DIRECTORY.glob("*.txt") for step in read_dialogue(path)]
    assert all(step.expected for step in steps)
    assert sum(not step.differs for step in steps) > 200
