"""The stream of rows between two nodes: whatever the pieces in which it arrives, and whatever arrives instead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.cluster.peers import ErrorBody
from dsdbd.cluster.repair_messages import (
    CompleteRequest,
    DigestsRequest,
    SummariesAnswer,
    decode_answer,
    decode_request,
    encode,
)
from dsdbd.cluster.repair_pull import frames
from dsdbd.errors import DiskFull, RequestError, ShardUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def framed(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(4, "little") + body


async def _pieces(data: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def read(data: bytes, sizes: list[int]) -> list[bytes]:
    async def run() -> list[bytes]:
        return [body async for body in frames(_pieces(data, sizes), "peer:1")]

    return asyncio.run(run())


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 30), max_size=12), st.integers(0, 3))
def test_frames_come_out_whole_however_they_are_cut(bodies: list[bytes], sizes: list[int], signs: int) -> None:
    data = b"".join(bytes(signs) + framed(1, body) for body in bodies) + bytes(signs) + b"\x02"
    assert read(data, sizes) == bodies


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.data())
def test_a_stream_that_ends_early_is_an_error(bodies: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(framed(1, body) for body in bodies)
    cut = data.draw(st.integers(0, len(whole)))
    with pytest.raises(ShardUnavailable, match=r"^peer:1 ended in the middle of its rows$"):
        read(whole[:cut], [])


def test_the_error_of_the_other_side_comes_out_as_its_class() -> None:
    data = framed(1, b"rows") + framed(3, msgspec.json.encode(ErrorBody("full", "disk_full")))
    with pytest.raises(DiskFull, match=r"^full$"):
        read(data, [3, 4])
    with pytest.raises(ShardUnavailable, match="cannot be understood"):
        read(b"\x09" + bytes(10), [])
    with pytest.raises(ShardUnavailable, match="cannot be understood"):
        read(b"\x01\xff\xff\xff\xff", [])


def test_requests_and_answers_that_are_none_are_refused() -> None:
    asked = CompleteRequest(5, [1, 2], ["cpu"], 0, 9)
    assert decode_request(encode(asked), CompleteRequest) == asked
    with pytest.raises(RequestError, match="run equal versions"):
        decode_request(b"\xc1", CompleteRequest)
    with pytest.raises(RequestError, match="format 2 cannot be compared"):
        decode_request(encode(DigestsRequest(0, 1, {}, 0, format=2)), DigestsRequest)
    with pytest.raises(ShardUnavailable, match=r"^peer:1 answers what cannot be decoded"):
        decode_answer(b"", SummariesAnswer, "peer:1")
