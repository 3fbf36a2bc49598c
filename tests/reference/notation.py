r"""The notation of the tables in ``rules/*.txt``: statements rule by rule, one per line.

``# text`` names a rule and begins its block. ``: name=value ...`` are request parameters of the block. ``@name = text``
gives a text a name for the rest of the file, ``@name`` stands for it. ``{a|b|c}`` gives a statement for each
alternative, an empty one included, also nested; several in a line give every combination. Braces without ``|`` are
ordinary characters, and so is ``|`` outside of braces; within braces ``\|`` is one. The tables of ``mutations/*.txt``
are sequences: there a line may come twice, and one that begins with ``>`` is line protocol to be written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RULES = Path(__file__).parent / "rules"
MUTATIONS = Path(__file__).parent / "mutations"
_NAME = re.compile(r"@([a-z_]+)")


@dataclass(frozen=True)
class Rule:
    """A block of a table: the rule, the parameters of its requests and its statements, expanded."""

    file: str
    title: str
    parameters: dict[str, str]
    statements: tuple[str, ...]

    def sample(self, most: int) -> tuple[str, ...]:
        """At most so many of the statements, spread evenly."""
        step = max(1, -(-len(self.statements) // most))
        return self.statements[::step]

    @property
    def id(self) -> str:
        return f"{self.file}: {self.title}"


def _alternatives(text: str, start: int) -> tuple[list[str], int]:
    """The parts between ``|`` of the braces that open at ``start``, and where they close; no parts: not closed."""
    depth, parts, begin, position = 0, [], start + 1, start
    while position < len(text):
        character = text[position]
        if character == "\\" and text[position + 1 : position + 2] == "|":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return [*parts, text[begin:position]], position
        elif character == "|" and depth == 1:
            parts.append(text[begin:position])
            begin = position + 1
        position += 1
    return [], start


def expand(text: str) -> Iterator[str]:
    """Every statement that a line stands for, in the order of its alternatives."""
    position = text.find("{")
    while position >= 0:
        parts, end = _alternatives(text, position)
        if len(parts) > 1:
            for part in parts:
                yield from expand(text[:position] + part + text[end + 1 :])
            return
        position = text.find("{", position + 1)
    yield text.replace("\\|", "|")


def _tidy(statement: str) -> str:
    """Without the double blanks that empty alternatives leave outside of quotes."""
    return statement if any(quote in statement for quote in "'\"/") else re.sub(" +", " ", statement).strip()


def read(path: Path, *, sequence: bool = False) -> list[Rule]:
    """The blocks of a file; a statement that stands in two places of a block counts once, but in a sequence."""
    rules: list[Rule] = []
    names: dict[str, str] = {}
    title, parameters, statements = "", dict[str, str](), list[str]()

    def finish() -> None:
        if statements:
            assert title, f"{path.name}: statements before the first rule"
            once = statements if sequence else dict.fromkeys(statements)
            rules.append(Rule(path.stem, title, parameters, tuple(once)))

    def value(match: re.Match[str]) -> str:
        return names.get(match[1], match[0])

    for raw in path.read_text(encoding="utf-8").splitlines():
        text = raw.rstrip()
        if text.startswith("#"):
            finish()
            title, parameters, statements = text[1:].strip(), {}, []
        elif text.startswith(": "):
            parameters.update(pair.split("=", 1) for pair in text[2:].split())
        elif definition := re.fullmatch(r"@([a-z_]+) = (.*)", text):
            names[definition[1]] = _NAME.sub(value, definition[2])
        elif text:
            statements += [_tidy(statement) for statement in expand(_NAME.sub(value, text))]
    finish()
    return rules


def tables(*, exclude: frozenset[str] = frozenset()) -> list[Rule]:
    """The rules of all files but those named."""
    return [rule for path in sorted(RULES.glob("*.txt")) if path.stem not in exclude for rule in read(path)]
