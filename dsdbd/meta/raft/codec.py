"""MessagePack for everything Raft sends or stores; nothing received can name a type, import a module or run code."""

from __future__ import annotations

from typing import Any

import msgspec

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def encode(value: object) -> bytes:
    """Encode None, bool, int, float, str, bytes, sequences and dicts of them; TypeError for anything else."""
    return _encoder.encode(value)


def decode(data: bytes | memoryview) -> Any:
    """Decode what ``encode`` made; arrays become lists. Raises ValueError for anything that is not MessagePack.

    Extension types come out as inert ``msgspec.msgpack.Ext`` values.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a Raft message: {error}") from None
