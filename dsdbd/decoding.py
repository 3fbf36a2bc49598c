"""Decoders of typed messages and files, each made once, one at a time.

The library builds what it knows of a type when a decoder for it is made, and two threads that do so for types with a
struct in common end the process (msgspec 0.18 to 0.20; the build gives way to other threads where annotations are
evaluated). A decoder that is made may be used by any number of threads.
"""

from __future__ import annotations

import threading
from types import UnionType
from typing import Any, TypeVar, overload

import msgspec

_Kind = TypeVar("_Kind")
_making = threading.Lock()
_json: dict[Any, msgspec.json.Decoder[Any]] = {}
_msgpack: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
# Both hold as many as the source names types.


@overload
def json_decoder(kind: type[_Kind]) -> msgspec.json.Decoder[_Kind]: ...
@overload
def json_decoder(kind: UnionType) -> msgspec.json.Decoder[Any]: ...
def json_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of JSON texts of a type."""
    found = _json.get(kind)
    if found is None:
        with _making:
            found = _json[kind] = msgspec.json.Decoder(kind)
    return found


@overload
def msgpack_decoder(kind: type[_Kind]) -> msgspec.msgpack.Decoder[_Kind]: ...
@overload
def msgpack_decoder(kind: UnionType) -> msgspec.msgpack.Decoder[Any]: ...
def msgpack_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of MessagePack of a type."""
    found = _msgpack.get(kind)
    if found is None:
        with _making:
            found = _msgpack[kind] = msgspec.msgpack.Decoder(kind)
    return found


def decode_json(data: bytes | str, kind: type[_Kind]) -> _Kind:
    """The value of a type in a JSON text; raises msgspec.MsgspecError or UnicodeDecodeError for anything else."""
    return json_decoder(kind).decode(data)


def decode_msgpack(data: bytes, kind: type[_Kind]) -> _Kind:
    """The value of a type in MessagePack; raises msgspec.MsgspecError or UnicodeDecodeError for anything else."""
    return msgpack_decoder(kind).decode(data)
