"""What is remembered, where, and what never is."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dsdb_cli.history import MAX_ENTRIES, MAX_ENTRY_CHARS, HistoryFile, as_entry


@pytest.mark.parametrize(
    "line",
    [
        "CREATE USER todd WITH PASSWORD '123'",
        "create user todd with\npassword 'x'",
        "SET PASSWORD FOR todd = 'x'",
        "auth todd 123",
        "  AUTH",
        "",
        "   ",
        "x" * (MAX_ENTRY_CHARS + 1),
    ],
)
def test_lines_that_are_never_kept(line: str, tmp_path: Path) -> None:
    history = HistoryFile(tmp_path / "h")
    assert history.add(line) is None
    assert history.entries == []
    assert not (tmp_path / "h").exists()


def test_entries_survive_in_order_and_are_private(tmp_path: Path) -> None:
    path = tmp_path / "h"
    history = HistoryFile(path)
    for line in ("SHOW DATABASES", "SELECT *\nFROM cpu", "é", "é"):
        history.add(line)
    assert HistoryFile(path).entries == ["SHOW DATABASES", "SELECT * FROM cpu", "é"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "h"
    history = HistoryFile(path)
    for number in range(3 * MAX_ENTRIES):
        history.add(f"line {number}")
    assert len(history.entries) == MAX_ENTRIES
    assert len(path.read_text().splitlines()) <= 2 * MAX_ENTRIES
    assert HistoryFile(path).entries == [f"line {number}" for number in range(2 * MAX_ENTRIES, 3 * MAX_ENTRIES)]
    assert len(path.read_text().splitlines()) == MAX_ENTRIES


def test_a_file_of_others_is_made_private_and_cleared_of_secrets(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_text("SHOW DATABASES\nSET PASSWORD FOR x = 'secret'\n")
    path.chmod(0o644)
    assert HistoryFile(path).entries == ["SHOW DATABASES"]
    assert path.read_text() == "SHOW DATABASES\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_file_there_is_a_history_of_this_session(tmp_path: Path) -> None:
    for path in (None, tmp_path / "missing" / "h", tmp_path):
        history = HistoryFile(path)
        history.add("SHOW DATABASES")
        assert history.entries == ["SHOW DATABASES"]


def test_words_that_only_look_like_secrets_are_kept() -> None:
    assert as_entry("SELECT passwords FROM logins") == "SELECT passwords FROM logins"
    assert as_entry("SELECT * FROM auth") == "SELECT * FROM auth"
