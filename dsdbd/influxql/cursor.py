"""Reading tokens one by one: the tools every part of the parser shares."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from dsdbd.errors import QueryParseError
from dsdbd.influxql.durations import parse_duration
from dsdbd.influxql.lexer import (
    KIND_OF_GROUP,
    KIND_OF_WORD,
    OTHER,
    QUOTED_NAME,
    SYMBOL,
    WORD,
    Lexer,
    Token,
    common_token,
)
from dsdbd.influxql.regexes import check_regex
from dsdbd.limits import MAX_QUERY_NESTING

PREFIX = "error parsing query: "
_BEFORE_REGEX = frozenset({"EOF", "/", "REGEX", "BADREGEX"})
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_MAX_UINT64 = 2**64 - 1


def _token(place: re.Match[str] | Token | None) -> Token:
    assert place is not None
    return place if isinstance(place, Token) else common_token(place)


class Cursor:
    """A position in the tokens of one text, and the values of bound parameters.

    ``kind`` and ``text`` are those of the next token, which has been read; ``quoted`` tells a name in double quotes or
    of a parameter from a bare one. Where a token stands is worked out when an error asks for it. ``operators`` counts
    the operators and calls read so far.
    """

    __slots__ = (
        "_common",
        "_lexer",
        "_next",
        "_params",
        "_previous",
        "kind",
        "nesting",
        "operators",
        "quoted",
        "text",
    )

    def __init__(self, text: str, params: Mapping[str, object]) -> None:
        self._lexer = Lexer(text)
        self._params = params
        self._common = self._lexer.common()
        self._next: re.Match[str] | Token | None = None
        self._previous: re.Match[str] | Token | None = None
        self.kind, self.text, self.quoted = "", "", False
        self.nesting = 0
        self.operators = 0
        self.advance()

    # --- tokens

    def advance(self) -> None:
        """Consume the next token."""
        self._previous = self._next
        self._next = match = next(self._common)
        group = match.lastindex
        if group == WORD:
            text = match[WORD]
            self.kind = kind = KIND_OF_WORD.get(text) or KIND_OF_WORD.get(text.upper(), "IDENT")
            self.text = text if kind == "IDENT" else ""
            self.quoted = False
        elif group == SYMBOL:
            self.kind = match[SYMBOL]
            self.text = ""
        elif group == OTHER or group is None:
            self._scan(match.start())
        else:
            self.kind = KIND_OF_GROUP[group]
            self.text = match[group]
            self.quoted = group == QUOTED_NAME

    def _scan(self, end: int) -> None:
        """Read a token that is not of the common shapes and begins, white space included, at ``end``."""
        before = self._previous
        self._lexer.resume(end, after_word=isinstance(before, re.Match) and before.lastindex == WORD)
        token = self._lexer.scan()
        self._place(self._bound(token) if token.kind == "BOUNDPARAM" else token)

    def _place(self, token: Token) -> None:
        self._next = token
        self.kind, self.text, self.quoted = token.kind, token.text, token.quoted
        self._common = self._lexer.common()

    def peek(self) -> Token:
        """The next token, which stays, with its place."""
        return _token(self._next)

    @property
    def previous(self) -> Token:
        """The token consumed last; there is one."""
        return _token(self._previous)

    def take(self) -> Token:
        """The next token, which is consumed."""
        token = self.peek()
        self.advance()
        return token

    def accept(self, kind: str) -> bool:
        """Consume the next token if it is of this kind."""
        if self.kind != kind:
            return False
        self.advance()
        return True

    def accept_word(self, word: str) -> bool:
        """Consume the next token if it is this contextual word, in any case and without quotes."""
        if self.kind != "IDENT" or self.quoted or self.text.upper() != word:
            return False
        self.advance()
        return True

    def expect(self, *kinds: str) -> None:
        """Consume these kinds in this order."""
        for kind in kinds:
            if self.kind != kind:
                raise self.expected(self.peek(), kind)
            self.advance()

    def adjacent(self, kind: str) -> bool:
        """True when the next token is of this kind and follows without white space."""
        if self.kind != kind:
            return False
        following = self._next
        if isinstance(following, re.Match):
            return following.end(1) == following.start()
        return not _token(following).space

    # --- errors, for the caller to raise

    def expected(self, token: Token, *expected: str) -> QueryParseError:
        """The error ``found …, expected …`` for a token."""
        return self.error_at(f"found {token.found}, expected {', '.join(expected)}", token.at)

    def expected_adjacent(self, *expected: str) -> QueryParseError:
        """The error for something that must follow at once; white space in its place is what was found."""
        token = self.peek()
        if token.space and token.kind != "EOF":
            at = token.start - len(token.space)
            return self.error_at(f"found {token.space}, expected {', '.join(expected)}", at)
        return self.expected(token, *expected)

    def error_at(self, message: str, at: int) -> QueryParseError:
        """A message with the line and character of an offset."""
        line, char = self._lexer.position(at)
        return self.error(f"{message} at line {line}, char {char}")

    def error(self, message: str) -> QueryParseError:
        """A message as it is."""
        return QueryParseError(PREFIX + message)

    def position(self, at: int) -> tuple[int, int]:
        """Line and character of an offset, both from 1."""
        return self._lexer.position(at)

    def enter(self) -> None:
        """Count one level of nesting; the caller takes it back."""
        self.nesting += 1
        if self.nesting > MAX_QUERY_NESTING:
            raise self.error_at(f"nested more than {MAX_QUERY_NESTING} levels deep", self.peek().at)

    # --- values

    def identifier(self) -> str:
        """A name, quoted or bare."""
        if self.kind != "IDENT":
            raise self.expected(self.peek(), "identifier")
        text = self.text
        self.advance()
        return text

    def identifiers(self) -> tuple[str, ...]:
        """Names separated by commas."""
        names = [self.identifier()]
        while self.accept(","):
            names.append(self.identifier())
        return tuple(names)

    def string(self) -> str:
        """A single-quoted string."""
        if self.kind != "STRING":
            raise self.expected(self.peek(), "string")
        text = self.text
        self.advance()
        return text

    def strings(self) -> tuple[str, ...]:
        """Strings separated by commas."""
        values = [self.string()]
        while self.accept(","):
            values.append(self.string())
        return tuple(values)

    def replication(self) -> int:
        """A replication factor, 1 to 2³¹-1."""
        token = self._integer_token()
        if len(token.text) > 19 or int(token.text) > _MAX_INT64:
            raise self.error_at(f'strconv.Atoi: parsing "{token.text}": value out of range', token.at)
        value = int(token.text)
        if not 1 <= value <= _MAX_INT32:
            raise self.error_at(f"invalid value {value}: must be 1 <= n <= {_MAX_INT32}", token.at)
        return value

    def unsigned(self) -> int:
        """An id within uint64."""
        token = self._integer_token()
        if token.text.startswith("-"):
            raise self.error_at(f'strconv.ParseUint: parsing "{token.text}": invalid syntax', token.at)
        if len(token.text) > 20 or int(token.text) > _MAX_UINT64:
            raise self.error_at(f'strconv.ParseUint: parsing "{token.text}": value out of range', token.at)
        return int(token.text)

    def count(self, clause: str) -> int:
        """The number of LIMIT, OFFSET, SLIMIT or SOFFSET; 0 when the clause is absent. Capped to int64."""
        if not self.accept(clause):
            return 0
        token = self._integer_token()
        if token.text.startswith("-"):
            raise self.error_at(f"{clause} must be >= 0", token.at)
        return _MAX_INT64 if len(token.text) > 19 else min(int(token.text), _MAX_INT64)

    def _integer_token(self) -> Token:
        token = self.peek()
        if token.kind != "INTEGER":
            raise self.expected(token, "integer")
        return self.take()

    def duration(self, *, infinite: bool = True) -> int:
        """Nanoseconds of a duration; INF, where allowed, is 0."""
        token = self.peek()
        if infinite and token.kind == "INF":
            self.take()
            return 0
        if token.kind != "DURATIONVAL":
            raise self.expected(token, "duration")
        self.take()
        try:
            return parse_duration(token.text)
        except ValueError as error:
            raise self.error_at(str(error), token.at) from None

    def regex(self) -> str | None:
        """A regex if one comes next, else nothing is consumed."""
        kind = self.kind
        if kind not in _BEFORE_REGEX:
            return None
        if kind == "EOF":
            self._place(self._lexer.end_peeked())
            return None
        token = self.peek()
        if kind == "/":
            token = self._lexer.scan_regex(token.start)
            self._place(token)
        if token.kind == "BADREGEX":
            raise self.error_at("bad regex: ", token.at)
        self.advance()
        try:
            check_regex(token.text)
        except ValueError as error:
            raise self.error_at(str(error), token.at) from None
        return token.text

    # --- bound parameters

    def _bound(self, token: Token) -> Token:
        """The token a bound parameter stands for; a parameter without value stays and is refused by the parser."""
        name = token.text[1:]
        if name not in self._params:
            return token
        kind, text = self._bind(self._params[name])
        return token._replace(kind=kind, text=text, quoted=True)

    def _bind(self, value: object) -> tuple[str, str]:
        if isinstance(value, bool):
            return ("TRUE" if value else "FALSE"), ""
        if isinstance(value, str):
            return "STRING", value
        if isinstance(value, int):
            return "INTEGER", str(value)
        if isinstance(value, float) and math.isfinite(value):
            return "NUMBER", repr(value)
        if isinstance(value, Mapping) and len(value) == 1:
            ((key, inner),) = value.items()
            return self._bind_typed(str(key), inner)
        raise self.error(f"unable to bind parameter with type {type(value).__name__}")

    def _bind_typed(self, key: str, value: object) -> tuple[str, str]:
        if isinstance(value, str):
            kinds = {"ident": "IDENT", "identifier": "IDENT", "regex": "REGEX", "string": "STRING"}
            if key in kinds:
                return kinds[key], value
            if key == "duration":
                return "DURATIONVAL", value
        if isinstance(value, int | float) and not isinstance(value, bool):
            if key in {"int", "integer"} and math.isfinite(value) and int(value) == value:
                return "INTEGER", str(int(value))
            if key in {"float", "number"} and math.isfinite(value):
                return "NUMBER", repr(float(value))
        raise self.error(f"unable to bind parameter as {key} with type {type(value).__name__}")
