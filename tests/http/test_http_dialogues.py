"""The dialogues in dialogues/: our daemon gives the recorded answers, and so does influxd, byte for byte.

Where a step says ``differs`` the recorded answer is ours, and influxd must really give another one.
"""

from __future__ import annotations

import pytest

from tests.cluster.daemons import Daemon
from tests.http.dialogue import DIRECTORY, ask, read_dialogue

OPEN = sorted(path.stem for path in DIRECTORY.glob("*.txt") if path.stem != "auth")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("http")]


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


@pytest.mark.parametrize("name", OPEN)
def test_daemon_answers_as_recorded(name: str, open_daemon: Daemon) -> None:
    check_ours(name, open_daemon)


def test_daemon_with_users_answers_as_recorded(auth_daemon: Daemon) -> None:
    check_ours("auth", auth_daemon)


@pytest.mark.debian
@pytest.mark.parametrize("name", OPEN)
def test_influxd_answers_as_recorded(name: str, open_influxd: str) -> None:
    check_influxd(name, open_influxd)


@pytest.mark.debian
def test_influxd_with_users_answers_as_recorded(auth_influxd: str) -> None:
    check_influxd("auth", auth_influxd)


def test_dialogues_cover_both_sides() -> None:
    steps = [step for path in DIRECTORY.glob("*.txt") for step in read_dialogue(path)]
    assert all(step.expected for step in steps)
    assert sum(not step.differs for step in steps) > 200
