"""Reads the files of good/ and bad/: their first comment lines say with what they are loaded and what must come out.

``# env: NAME=value``, ``# join: …``, ``# hostname: …`` are inputs; ``# expect: …`` and ``# warning: …`` are outputs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from dsdbd.config import Config, Flags, load_config

HERE = Path(__file__).parent
GOOD = sorted((HERE / "good").glob("*.conf"))
BAD = sorted((HERE / "bad").glob("*.conf"))


@dataclass
class Case:
    path: Path
    environ: dict[str, str] = field(default_factory=lambda: {"HOME": "/home/u"})
    join: str = ""
    hostname: str = ""
    expect: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def load(self) -> Config:
        return load_config(self.path, self.environ, Flags(self.join, self.hostname))


def read_case(path: Path) -> Case:
    case = Case(path)
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        match = re.match(r"# (env|join|hostname|expect|warning): (.*)", line)
        if match is None:
            continue
        word, text = match.groups()
        if word == "env":
            name, _, value = text.partition("=")
            case.environ[name] = value
        elif word == "expect":
            case.expect.append(text)
        elif word == "warning":
            case.warnings.append(text)
        else:
            setattr(case, word, text)
    return case
