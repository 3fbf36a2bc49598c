"""Every script in tests/meta/scripts gives the answers written in it."""

from pathlib import Path

import pytest

from tests.meta.dialogue import run

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_gives_the_written_answers(path):
    assert run(path.read_text()) == path.read_text()


def test_scripts_exist():
    assert len(SCRIPTS) == 7
