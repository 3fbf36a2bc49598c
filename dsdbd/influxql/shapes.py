"""A text without its string literals: dashboards ask the same question again with other times and other tag values."""

from __future__ import annotations

import re
from typing import Final

from dsdbd.influxql.lexer import Lexer

_LITERAL: Final = re.compile(r"'([^'\\\n\r]*)'")
_EMPTY: Final = "''"
_ENDS: Final = frozenset({"EOF", "ILLEGAL", "BADSTRING", "BADESCAPE", "BADREGEX"})


def shape_of(text: str) -> tuple[str, tuple[str, ...]]:
    """What stands between the quoted parts of a text, and the quoted parts without quotes, in their order.

    Two texts of one shape have the same tokens but for their strings, if ``has_plain_literals`` holds for either.
    """
    parts = _LITERAL.split(text)
    return _EMPTY.join(parts[::2]), tuple(parts[1::2])


def has_plain_literals(text: str) -> bool:
    """Whether the quoted parts that ``shape_of`` finds are all string tokens, and there are no others.

    A quote may also stand in a name, a regex or a comment. No regex and no comment is looked into here: a text with one
    counts as not plain.
    """
    if "\r" in text or "--" in text or "/" in _LITERAL.sub(_EMPTY, text):
        return False
    expected = [(match.start(), match[1]) for match in _LITERAL.finditer(text)]
    lexer, found = Lexer(text), []
    while (token := lexer.scan()).kind not in _ENDS:
        if token.kind == "STRING":
            found.append((token.start, token.text))
    return token.kind == "EOF" and found == expected
