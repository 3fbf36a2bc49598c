"""Hides passwords in the text of a query before it is logged or shown; works on text that does not parse, too."""

from __future__ import annotations

import re
from typing import Final

from dsdbd.influxql.format import REDACTED

# A quoted string may lack its end and a quote inside may be escaped: better hide too much than the half of a password.
_VALUE = r"""('(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[^\s;'"]+)"""
_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)"
_PASSWORDS: Final = (
    re.compile(rf"(with{_GAP}+password{_GAP}*){_VALUE}", re.IGNORECASE | re.DOTALL),
    re.compile(rf"(set{_GAP}+password{_GAP}+for{_GAP}*[^=]*={_GAP}*){_VALUE}", re.IGNORECASE | re.DOTALL),
)


def sanitize(text: str) -> str:
    """The text with ``[REDACTED]`` in place of every password of CREATE USER and SET PASSWORD."""
    for pattern in _PASSWORDS:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return text
