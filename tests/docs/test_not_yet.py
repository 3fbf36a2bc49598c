"""What README.md lists as not there is refused by a running daemon; what begins to work has to leave the list."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Daemon
from tests.docs.readme import REPOSITORY, section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# One whole statement for each that the page lists by its first words, or by a word for it.
EXAMPLES = {
    "continuous queries": "CREATE CONTINUOUS QUERY c ON d BEGIN SELECT mean(v) INTO n FROM m GROUP BY time(1h) END",
    "subscriptions": "CREATE SUBSCRIPTION s ON d.autogen DESTINATIONS ALL 'udp://127.0.0.1:9'",
}


def listed() -> list[str]:
    """The entries of the line about statements."""
    chapter = section((REPOSITORY / "README.md").read_text(encoding="utf-8"), "Not yet")
    (text,) = re.findall(r"^- \*\*Statements\*\*: (.*?)\. \[", chapter, re.MULTILINE | re.DOTALL)
    return [" ".join(entry.split()).strip("`") for entry in text.split(",")]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "node").start()
    yield made
    made.kill()


@pytest.mark.slow
def test_what_the_page_lists_is_refused_as_not_supported(daemon: Daemon) -> None:
    daemon.query("CREATE DATABASE d")
    assert daemon.write("m v=1 1", db="d").status == 204
    for entry in listed():
        answer = daemon.query(EXAMPLES[entry], db="d")
        error = answer.get("error") or answer["results"][0].get("error", "")
        assert "not supported" in error, f"{entry}: {answer}"
    assert daemon.rows("SELECT v FROM m", db="d") == [["1970-01-01T00:00:00.000000001Z", 1]]
