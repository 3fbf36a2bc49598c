"""Text of InfluxQL to tokens.

A token's kind is its own spelling for operators (``<=``) and keywords (``SELECT``), else one of IDENT, STRING, INTEGER,
NUMBER, DURATIONVAL, BOUNDPARAM, REGEX, TRUE, FALSE, EOF, ILLEGAL, BADSTRING, BADESCAPE, BADREGEX. Positions are
counted as InfluxDB 1.x counts them, with its habits: a string or regex is placed one character before its opening
quote, and the end of the text one character further when a word or white space has run into it. Clients and people
compare error texts, so the habits are kept.

Most tokens are of the simple shapes that one pattern (``COMMON``) cuts out in one step; ``Lexer.scan`` knows all of
them. A test holds the first to the second.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEYWORD_TEXT = (
    "ALL ALTER ANALYZE ANY AS ASC BEGIN BY CARDINALITY CREATE CONTINUOUS DATABASE DATABASES DEFAULT "
    "DELETE DESC DESTINATIONS DIAGNOSTICS DISTINCT DROP DURATION END EVERY EXACT EXPLAIN FIELD FOR FROM "
    "GRANT GRANTS GROUP GROUPS INF INSERT INTO KEY KEYS KILL LIMIT MEASUREMENT MEASUREMENTS NAME OFFSET "
    "ON ORDER PASSWORD POLICY POLICIES PRIVILEGES QUERIES QUERY READ REPLICATION RESAMPLE RETENTION "
    "REVOKE SELECT SERIES SET SHOW SHARD SHARDS SLIMIT SOFFSET STATS SUBSCRIPTION SUBSCRIPTIONS TAG TO "
    "USER USERS VALUES WHERE WITH WRITE AND OR IN TRUE FALSE"
)
KEYWORDS: Final = frozenset(_KEYWORD_TEXT.split())
"""Reserved words. META, DATA, SERVER, SERVERS and FORCE are not: they mean something only where a statement asks."""

KIND_OF_WORD: Final = {word: word for word in KEYWORDS} | {word.lower(): word for word in KEYWORDS}
"""Kinds of keywords in the two usual spellings."""

COMMON: Final = re.compile(
    r"([ \t\n]*)(?:"
    r"([A-Za-z_][A-Za-z0-9_]*)"
    r"|(::|=~|!=|!~|>=|<=|<(?!>)|-(?!-)|/(?!\*)|\.(?![0-9])|[+*%&|^=>(),;:])"
    r"|'([^'\\\n]*)'"
    r'|"([^"\\\n]*)"'
    r"|([0-9]*\.[0-9]+)"
    r"|([0-9]+[A-Za-zµ][A-Za-zµ0-9]*)"
    r"|([0-9]+)(?![0-9.])"
    r"|())"
)
"""A token that needs no further look, with the white space before it; the last group is empty where another begins."""
WORD: Final = 2
SYMBOL: Final = 3
QUOTED_NAME: Final = 5
OTHER: Final = 9
KIND_OF_GROUP: Final = ("", "", "", "", "STRING", "IDENT", "NUMBER", "DURATIONVAL", "INTEGER")
"""Kinds of the groups of ``COMMON`` that are neither words, symbols nor something else."""

_SPACE = re.compile(r"[ \t\n]+")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARAM = re.compile(r"[A-Za-z0-9_]*")
_DECIMAL = re.compile(r"[0-9]*\.[0-9]+|[0-9]+\.")
_DIGITS = re.compile(r"[0-9]+")
_DURATION = re.compile(r"[0-9]+[A-Za-zµ][A-Za-zµ0-9]*")
_SYMBOL = re.compile(r"::|=~|!=|!~|>=|<=|<>|[-+*/%&|^=<>(),;:.]")
_QUOTED_BODY = {
    "'": re.compile(r"""[^'\\\n]*(?:\\[n\\"'][^'\\\n]*)*"""),
    '"': re.compile(r"""[^"\\\n]*(?:\\[n\\"'][^"\\\n]*)*"""),
}
_ESCAPE = re.compile(r"\\(.)")
_REGEX_BODY = re.compile(r"[^/\\\n]*(?:(?:\\/|\\)[^/\\\n]*)*")


class Token(NamedTuple):
    """One token; ``text`` is empty for symbols and keywords, it begins at ``start`` and is reported at ``at``."""

    kind: str
    text: str
    at: int
    start: int
    space: str = ""
    quoted: bool = False

    @property
    def found(self) -> str:
        """How an error names this token."""
        return self.text or self.kind


def is_bare_identifier(name: str) -> bool:
    """True when a name can be written without quotes."""
    return _WORD.fullmatch(name) is not None and name.upper() not in KEYWORDS


def common_token(match: re.Match[str]) -> Token:
    """The token of a match of ``COMMON`` whose last group did not take part."""
    group, space, start = match.lastindex, match[1], match.end(1)
    assert group is not None
    if group == WORD:
        return _word_token(match[WORD], start, space)
    if group == SYMBOL:
        return Token(match[SYMBOL], "", start, start, space)
    kind = KIND_OF_GROUP[group]
    return Token(kind, match[group], start - (kind == "STRING"), start, space, quoted=group == QUOTED_NAME)


def _word_token(word: str, start: int, space: str) -> Token:
    """A keyword, in any case, or a bare name."""
    upper = word.upper()
    return Token(upper, "", start, start, space) if upper in KEYWORDS else Token("IDENT", word, start, start, space)


class Lexer:
    """Cuts one text into tokens on demand, because a slash is a division or a regex depending on what is asked for."""

    __slots__ = ("_end_passed", "_offset", "text")

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n").replace("\r", "\n")
        self._offset = 0
        self._end_passed = False

    def position(self, at: int) -> tuple[int, int]:
        """Line and character of an offset, both from 1."""
        at = max(at, 0)
        return self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at)

    def end_peeked(self) -> Token:
        """The end of the text, after somebody looked whether a regex starts there."""
        self._end_passed = True
        return self._end("")

    def common(self) -> Iterator[re.Match[str]]:
        """Matches of ``COMMON`` from where the lexer stands, one behind the other up to a group OTHER."""
        return COMMON.finditer(self.text, self._offset)

    def resume(self, end: int, *, after_word: bool) -> None:
        """Go on at ``end``, up to which ``common`` was followed; the last of its tokens may have been a word."""
        self._offset = end
        if after_word and end >= len(self.text):
            self._end_passed = True

    def scan(self) -> Token:
        """The next token, white space and comments before it skipped."""
        space, broken = self._skip_space()
        if broken is not None:
            return broken
        text, start = self.text, self._offset
        if start >= len(text):
            return self._end(space)
        char = text[start]
        if word := _WORD.match(text, start):
            return self._word(word, space)
        if char in "'\"":
            return self._quoted(char, start, space)
        if number := self._number(start, space):
            return number
        if char == "$":
            return self._parameter(start, space)
        if symbol := _SYMBOL.match(text, start):
            self._offset = symbol.end()
            kind = "!=" if symbol[0] == "<>" else symbol[0]
            return Token(kind, "", start, start, space)
        self._offset += 1
        return Token("ILLEGAL", char, start, start, space)

    def scan_regex(self, start: int) -> Token:
        r"""Read a regex whose opening slash is at ``start``; only ``\/`` is an escape, all else stays as written."""
        body = _REGEX_BODY.match(self.text, start + 1)
        assert body is not None
        end = body.end()
        self._offset = min(end + 1, len(self.text))
        if end >= len(self.text) or self.text[end] != "/":
            return Token("BADREGEX", "", start - 1, start)
        return Token("REGEX", body[0].replace("\\/", "/"), start - 1, start)

    def _end(self, space: str) -> Token:
        length = len(self.text)
        return Token("EOF", "", length + self._end_passed, length, space)

    def _moved_to(self, end: int) -> None:
        """Step over something that only stops where something else begins, and so notices the end of the text."""
        self._offset = end
        if end >= len(self.text):
            self._end_passed = True

    def _skip_space(self) -> tuple[str, Token | None]:
        text, space = self.text, ""
        while True:
            start = self._offset
            if blank := _SPACE.match(text, start):
                space = blank[0]
                self._moved_to(blank.end())
            elif text.startswith("--", start):
                newline = text.find("\n", start)
                space = space or " "
                self._moved_to(len(text) if newline < 0 else newline + 1)
            elif text.startswith("/*", start):
                close = text.find("*/", start + 2)
                if close < 0:
                    self._moved_to(len(text))
                    return space, Token("ILLEGAL", "", start, start, space)
                space = space or " "
                self._offset = close + 2
            else:
                return space, None

    def _word(self, word: re.Match[str], space: str) -> Token:
        self._moved_to(word.end())
        return _word_token(word[0], word.start(), space)

    def _quoted(self, quote: str, start: int, space: str) -> Token:
        body = _QUOTED_BODY[quote].match(self.text, start + 1)
        assert body is not None
        end, text = body.end(), self.text
        if end < len(text) and text[end] == quote:
            self._offset = end + 1
            value = _ESCAPE.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], body[0])
            if quote == '"':
                return Token("IDENT", value, start, start, space, quoted=True)
            return Token("STRING", value, start - 1, start, space)
        if end < len(text) and text[end] == "\\":
            self._offset = min(end + 2, len(text))
            return Token("BADESCAPE", text[end : end + 2], end + 1, start, space)
        self._moved_to(end)
        return Token("BADSTRING", body[0], start - 1, start, space)

    def _number(self, start: int, space: str) -> Token | None:
        if match := _DECIMAL.match(self.text, start):
            kind, value = "NUMBER", match[0].removesuffix(".")
        elif match := _DURATION.match(self.text, start):
            kind, value = "DURATIONVAL", match[0]
        elif match := _DIGITS.match(self.text, start):
            kind, value = "INTEGER", match[0]
        else:
            return None
        self._offset = match.end()
        return Token(kind, value, start, start, space)

    def _parameter(self, start: int, space: str) -> Token:
        if self.text.startswith('"', start + 1):
            name = self._quoted('"', start + 1, space)
            return name._replace(kind="BOUNDPARAM", text="$" + name.text) if name.kind == "IDENT" else name
        match = _PARAM.match(self.text, start + 1)
        assert match is not None
        self._moved_to(match.end())
        return Token("BOUNDPARAM", "$" + match[0], start, start, space)
