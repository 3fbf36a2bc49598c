"""JSON that keeps every number as the text the server sent: 64-bit integers and floats are printed unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn


class Number(str):
    """A JSON number, as the literal received."""

    __slots__ = ()


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_refuse_constant)


def decode_documents(text: str) -> list[Any]:
    """Every JSON document in ``text``, in order; only white space may stand between them.

    Raises ValueError when the text is not JSON.
    """
    documents = []
    position = _skip_space(text, 0)
    while position < len(text):
        document, end = _DECODER.raw_decode(text, position)
        documents.append(document)
        position = _skip_space(text, end)
    return documents


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


# Go's encoder, whose output scripts around `influx -format json` compare with, escapes these for use inside HTML.
_GO_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"},
)


def encode_string(text: str) -> str:
    """A JSON string literal, byte for byte what Go's encoding/json writes for valid UTF-8."""
    return json.dumps(text, ensure_ascii=False).translate(_GO_ESCAPES)


def encode(value: Any, indent: str | None = None) -> str:
    """JSON text of dicts, lists, strings, Numbers, booleans and None; one line, or indented as Go's MarshalIndent."""
    parts: list[str] = []
    _encode_into(parts, value, indent, "\n")
    return "".join(parts)


def _encode_into(parts: list[str], value: Any, indent: str | None, newline: str) -> None:
    if isinstance(value, Number):
        parts.append(str(value))
    elif isinstance(value, str):
        parts.append(encode_string(value))
    elif value is None or isinstance(value, bool):
        parts.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, Mapping):
        colon = ":" if indent is None else ": "
        members = [(encode_string(str(key)) + colon, member) for key, member in value.items()]
        _encode_members(parts, "{}", members, indent, newline)
    else:
        _encode_members(parts, "[]", [("", member) for member in value], indent, newline)


def _encode_members(
    parts: list[str], brackets: str, members: list[tuple[str, Any]], indent: str | None, newline: str
) -> None:
    if not members:
        parts.append(brackets)
        return
    inner = newline + indent if indent is not None else ""
    separator = brackets[0] + inner
    for prefix, member in members:
        parts.append(separator + prefix)
        _encode_into(parts, member, indent, inner)
        separator = "," + inner
    parts.append((newline if indent is not None else "") + brackets[1])
