from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsdbd.influxql.cursor import Cursor
from dsdbd.influxql.lexer import KEYWORDS, Lexer, Token
from tests.examples import examples

PARTS = st.sampled_from(
    [
        *("select", "SELECT", "Select", "a", "_x9", "é", "µ", "5m", "5mx", "1µ", "12", "1.5", ".5", "1.", "1.h", "0x1"),
        *("'s'", "''", "'it\\'s'", "'bad\\q'", "'open", '"i"', '"q\\"x"', '"open', "'a\nb'", "$p", '$"p q"', "$"),
        *("::", "=~", "!~", "!=", "<>", "<=", ">=", "--", "-- c\n", "/*", "/* c */", "*/", "!", "\\", "~", "\r\n"),
        *"+-*/%&|^=<>(),;:. \t\n",
    ]
)
TEXTS = st.lists(PARTS | st.sampled_from(sorted(KEYWORDS)), max_size=20).map("".join) | st.text(max_size=20)


def whole(text: str) -> list[Token]:
    """All tokens by the scanner that knows every shape."""
    lexer = Lexer(text)
    tokens = [lexer.scan()]
    while tokens[-1].kind != "EOF":
        tokens.append(lexer.scan())
    return tokens


@settings(max_examples=examples(1000), deadline=None)
@given(TEXTS)
@example("a")
@example("a ")
@example("a-- c")
@example("a.5 .b")
@example("<><>")
def test_common_shapes_are_cut_as_the_scanner_cuts_them(text: str) -> None:
    cursor = Cursor(text, {})
    read = [cursor.peek()]
    while cursor.kind != "EOF":
        assert (cursor.kind, cursor.text) == (read[-1].kind, read[-1].text)
        assert cursor.kind != "IDENT" or cursor.quoted == read[-1].quoted
        assert cursor.adjacent(cursor.kind) == (not read[-1].space)
        last = cursor.take()
        assert cursor.previous == last
        read.append(cursor.peek())
    assert read == whole(text)


@pytest.mark.parametrize(
    ("text", "pattern", "rest"),
    [
        ("/it's/ 'x'", "it's", ["STRING"]),
        (r"/a\/b/.c", "a/b", [".", "IDENT"]),
        ('/"/ AND "x"', '"', ["AND", "IDENT"]),
        ("/-- no comment/", "-- no comment", []),
    ],
)
def test_a_regex_is_read_where_one_is_asked_for(text: str, pattern: str, rest: list[str]) -> None:
    cursor = Cursor(text, {})
    assert cursor.regex() == pattern
    kinds = []
    while cursor.kind != "EOF":
        kinds.append(cursor.take().kind)
    assert kinds == rest
