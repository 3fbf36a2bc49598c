"""A hundred seeds of the simulation, the control that must fail, and how long elections take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def simulate(*arguments: str) -> dict:
    command = [sys.executable, "-m", "tests.sim.run", "--json", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert run.stdout, run.stderr[-2000:]
    return json.loads(run.stdout)


@pytest.mark.parametrize("start", range(0, 100, 20))
def test_no_seed_breaks_a_promise(start):
    report = simulate("--seeds", "20", "--start", str(start), "--seconds", "40")
    assert report["bad"] == {}
    assert report["exceptions"] == {}
    assert report["acked"] > 2000
    assert report["barriers"] > 500
    assert report["elections"] > 60
    assert report["snapshots"] > 20


def test_members_come_and_go():
    report = simulate("--seeds", "12", "--start", "5000", "--seconds", "60", "--faults", "member,member,crash,power")
    assert report["bad"] == {}
    assert report["joins"] > 15


def test_without_the_barrier_the_simulation_finds_lost_promises():
    report = simulate("--seeds", "10", "--start", "7000", "--seconds", "40", "--no-barrier")
    assert len(report["bad"]) >= 3


def test_a_seed_is_repeatable():
    arguments = ("--seeds", "2", "--start", "42", "--seconds", "30")
    first, second = simulate(*arguments), simulate(*arguments)
    first.pop("cpu_s"), second.pop("cpu_s")
    assert first == second


def test_a_lost_leader_is_replaced_within_two_seconds():
    command = [sys.executable, "-m", "tests.sim.elections", "40"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    report = json.loads(run.stdout)
    assert len(report["killed"]) == len(report["silent"]) == 40
    # The ends of a killed process's connections are told; those of a machine without power are not.
    assert max(report["killed"]) < 1.0
    assert sorted(report["silent"])[35] < 2.0
    assert max(report["silent"]) < 3.5
