"""Reading tokens one by one: the tools every part of the parser shares."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dsdbd.errors import QueryParseError
from dsdbd.influxql.durations import parse_duration
from dsdbd.influxql.lexer import Lexer, Token
from dsdbd.influxql.regexes import check_regex
from dsdbd.limits import MAX_QUERY_NESTING

PREFIX = "error parsing query: "
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_MAX_UINT64 = 2**64 - 1


class Cursor:
    """A position in the tokens of one text, with one token of lookahead and the values of bound parameters."""

    __slots__ = ("_ahead", "_lexer", "_params", "nesting", "previous")

    def __init__(self, text: str, params: Mapping[str, object]) -> None:
        self._lexer = Lexer(text)
        self._ahead: Token | None = None
        self._params = params
        self.previous: Token | None = None
        self.nesting = 0

    # --- tokens

    def peek(self) -> Token:
        """The next token, which stays."""
        if self._ahead is None:
            token = self._lexer.scan()
            self._ahead = self._bound(token) if token.kind == "BOUNDPARAM" else token
        return self._ahead

    def take(self) -> Token:
        """The next token, which is consumed."""
        token = self.peek()
        self._ahead = None
        self.previous = token
        return token

    def accept(self, kind: str) -> bool:
        """Consume the next token if it is of this kind."""
        if self.peek().kind != kind:
            return False
        self.take()
        return True

    def accept_word(self, word: str) -> bool:
        """Consume the next token if it is this contextual word, in any case and without quotes."""
        token = self.peek()
        if token.kind != "IDENT" or token.quoted or token.text.upper() != word:
            return False
        self.take()
        return True

    def expect(self, *kinds: str) -> None:
        """Consume these kinds in this order."""
        for kind in kinds:
            if self.peek().kind != kind:
                raise self.expected(self.peek(), kind)
            self.take()

    def adjacent(self, kind: str) -> bool:
        """True when the next token is of this kind and follows without white space."""
        token = self.peek()
        return token.kind == kind and not token.space

    # --- errors, for the caller to raise

    def expected(self, token: Token, *expected: str) -> QueryParseError:
        """The error ``found …, expected …`` for a token."""
        return self.error_at(f"found {token.found}, expected {', '.join(expected)}", token.at)

    def expected_adjacent(self, expected: str) -> QueryParseError:
        """The error for a symbol that must follow at once; white space in its place is what was found."""
        token = self.peek()
        if token.space and token.kind != "EOF":
            return self.error_at(f"found {token.space}, expected {expected}", token.start - len(token.space))
        return self.expected(token, expected)

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
        token = self.peek()
        if token.kind != "IDENT":
            raise self.expected(token, "identifier")
        return self.take().text

    def identifiers(self) -> tuple[str, ...]:
        """Names separated by commas."""
        names = [self.identifier()]
        while self.accept(","):
            names.append(self.identifier())
        return tuple(names)

    def string(self) -> str:
        """A single-quoted string."""
        token = self.peek()
        if token.kind != "STRING":
            raise self.expected(token, "string")
        return self.take().text

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
        token = self.peek()
        if token.kind == "EOF":
            self._ahead = self._lexer.end_peeked()
            return None
        if token.kind == "/":
            token = self._lexer.scan_regex(token.start)
            self._ahead = token
        if token.kind == "BADREGEX":
            raise self.error_at("bad regex: ", token.at)
        if token.kind != "REGEX":
            return None
        self.take()
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
