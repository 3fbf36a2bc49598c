"""The tour of README.md as data: its console blocks are commands with the output they are said to have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ANYTHING = "…"
LONG_RUNNING = ("make run", ".venv/bin/dsdb demo")
"""Commands that occupy a terminal until Ctrl-C; the next of them ends the one before."""


@dataclass(frozen=True)
class Step:
    """One command of the tour and its output as the page shows it."""

    command: str
    output: str

    @property
    def runs_on(self) -> bool:
        return self.command in LONG_RUNNING


def section(text: str, title: str) -> str:
    """The part of a Markdown text under ``## title``."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title!r}"
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def steps(text: str) -> list[Step]:
    """The commands of all console blocks, in order; a command goes on while a quote is open."""
    found: list[Step] = []
    for block in blocks(text, "console"):
        command, output, is_open = "", "", False
        for line in block.splitlines():
            if is_open or line.startswith("$ "):
                if not is_open and command:
                    found.append(Step(command, output))
                command = f"{command}\n{line}" if is_open else line.removeprefix("$ ")
                output, is_open = "", quote_is_open(command)
            else:
                assert command, f"output before the first command: {line}"
                output += line + "\n"
        found.append(Step(command, output))
    return found


def quote_is_open(command: str) -> bool:
    """Whether a single-quoted text of the command has no end yet; quotes inside double quotes do not count."""
    outside = re.sub(r'"(?:\\.|[^"\\])*"', "", command)
    return outside.count("'") % 2 == 1


def normalised(text: str) -> str:
    """Text whose runs of blanks are one blank and which has no empty lines: columns may be aligned in several ways."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def matches(shown: str, printed: str) -> bool:
    """Whether what was printed is what the page shows; ``…`` stands for any text."""
    pattern = re.escape(normalised(shown)).replace(ANYTHING, ".*")
    return re.fullmatch(pattern, normalised(printed), re.DOTALL) is not None
