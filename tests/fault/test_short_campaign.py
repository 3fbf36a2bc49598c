"""A short campaign against the product as it is, and broken builds that the checkers must catch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault import sandbox
from tests.fault.marks import IN_SANDBOX
from tests.fault.report import acknowledged, caught, faults, load_report, problems, render
from tests.fault.schedule import ALONE, KINDS, ORDERED

pytestmark = [*IN_SANDBOX, pytest.mark.timeout(900)]
_TIMEOUT_S = 840.0


def run(work: Path, *arguments: str) -> dict[str, object]:
    sandbox.run("tests.fault.campaign", ["--work", str(work), *arguments], work, _TIMEOUT_S)
    return load_report(work)


def test_nothing_is_lost_by_any_kind_of_fault(tmp_path: Path) -> None:
    kinds = sorted(set(KINDS) - ALONE - ORDERED | {"power_cut_all"})
    options = ["--seed", "5", "--once", "--most", "15", "--least-points", "55000", "--points-s", "2000"]
    # Bounds for a machine that does other things, too.
    options += [
        "--minutes",
        "8",
        "--round-s",
        "480",
        "--settle-s",
        "120",
        "--unavailable-s",
        "60",
        "--seen-s",
        "60",
        "--cleared-s",
        "60",
    ]
    report = run(tmp_path, *options, "--clock-round", "1", "--kinds", ",".join(kinds))
    page = render(report, tmp_path, 0.0)
    assert not problems(report), page
    assert faults(report) >= 12, page
    assert acknowledged(report) >= 50_000, page


def test_data_that_is_not_synced_is_missed(tmp_path: Path) -> None:
    report = run(tmp_path, "--scenario", "power", "--broken", "no-fsync")
    assert "lost" in caught(report), render(report, tmp_path, 0.0)


def test_handoff_in_memory_is_noticed(tmp_path: Path) -> None:
    report = run(tmp_path, "--scenario", "away", "--broken", "handoff-in-memory,no-repair", "--settle-s", "5")
    assert {"lost", "diverged"} <= caught(report), render(report, tmp_path, 0.0)


def test_wrong_versions_values_reads_metadata_counters_and_quorums_are_each_noticed(tmp_path: Path) -> None:
    broken = "no-repair,first-wins,merge-by-arrival,invent,no-delete,stale-reads,lost-metadata,counters,wait-for-all"
    report = run(tmp_path, "--scenario", "leaders", "--broken", broken, "--unavailable-s", "2", "--settle-s", "5")
    expected = {"diverged", "invented", "resurrected", "not linearizable", "counters went down", "unavailable"}
    expected |= {"superseded", "metadata lost"}
    assert expected <= caught(report), render(report, tmp_path, 0.0)


def test_a_node_that_ends_grows_or_is_shunned_and_a_fault_that_nobody_tells_of_are_each_noticed(tmp_path: Path) -> None:
    report = run(tmp_path, "--scenario", "pause", "--broken", "grudge,leak,blind,watchdog", "--settle-s", "2")
    page = render(report, tmp_path, 0.0)
    assert {"last operations failed", "not bounded", "health", "ended or not ready"} <= caught(report), page
    said = "\n".join(problems(report))
    assert "on /health: seen " in said, page
    assert "of memory" in said, page
    assert "files open" in said, page
