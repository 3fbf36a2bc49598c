"""Copying a file from another node: whole, broken off and taken up again, damaged; and what is kept of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from aiohttp import web

from dsdbd.cluster import segment_fetch
from dsdbd.cluster.gentle import gentle_threads
from dsdbd.cluster.peers import PeerClient, PeerUnreachable
from dsdbd.cluster.segment_messages import (
    DIGEST_BYTES,
    PIECE_BYTES,
    FileEntry,
    decode,
    encode,
    new_digest,
    sums_of,
    wire_sums,
)
from dsdbd.cluster.segment_source import file_pieces
from dsdbd.cluster.transfer import _adopt as adopt_file
from dsdbd.cluster.transfer_files import WORK_DIR, Workspace, remove_leftovers
from dsdbd.errors import CorruptData
from dsdbd.model.digest import CELLS, Grid, TimeRanges
from dsdbd.storage.file_sums import FileSums, digest_of_file
from tests.storage.storage_model import KEY, open_store, put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SIZE = 2 * PIECE_BYTES + 12_345
ENTRY = FileEntry("cpu", "00000001.parquet", SIZE, 1)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "original"
    path.write_bytes(random.Random(3).randbytes(SIZE))
    return path


class Owner:
    """Serves one file as an owner does; breaks off the first answer after ``breaks_after`` pieces."""

    def __init__(self, path: Path, breaks_after: int | None = None) -> None:
        self._path = path
        self._breaks_after = breaks_after
        self.offsets: list[int] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        offset = int(request.query["offset"])
        self.offsets.append(offset)
        response = web.StreamResponse()
        response.content_length = SIZE - offset + DIGEST_BYTES
        await response.prepare(request)
        left, self._breaks_after = self._breaks_after, None
        async with contextlib.aclosing(file_pieces(self._path, SIZE, offset)) as pieces:
            async for piece in pieces:
                if left == 0:
                    assert request.transport is not None
                    request.transport.close()
                    break
                left = None if left is None else left - 1
                await response.write(piece)
        return response


@contextlib.asynccontextmanager
async def serving(owner: Owner | Silent) -> AsyncIterator[tuple[PeerClient, str]]:
    app = web.Application()
    app.router.add_get("/internal/files/token/0", owner.answer)
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    peers = PeerClient(b"secret", lambda: ("cluster", "uuid"))
    await peers.start()
    try:
        yield peers, "127.0.0.1:" + str(runner.addresses[0][1])
    finally:
        await peers.close()
        await runner.cleanup()


async def copy(owner: Owner, target: Path) -> int:
    """Bytes that came; raises as ``fetch`` does."""
    came = 0

    async def pace(size_bytes: int) -> None:
        nonlocal came
        came += size_bytes

    async with serving(owner) as (peers, address):
        await segment_fetch.fetch(peers, address, "token", 0, ENTRY, target, pace)
    return came


def test_a_copy_is_what_the_owner_has(original: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.part"
    assert asyncio.run(copy(Owner(original), target)) == SIZE + DIGEST_BYTES
    assert target.read_bytes() == original.read_bytes()


def test_a_copy_that_broke_off_goes_on_where_it_was(original: Path, tmp_path: Path) -> None:
    target, owner = tmp_path / "copy.part", Owner(original, breaks_after=2)
    with pytest.raises(PeerUnreachable):
        asyncio.run(copy(owner, target))
    had = target.stat().st_size
    assert had >= PIECE_BYTES
    assert asyncio.run(copy(owner, target)) == SIZE - had + DIGEST_BYTES
    assert owner.offsets == [0, had]
    assert target.read_bytes() == original.read_bytes()


def test_a_copy_is_broken_off_when_its_owner_is_found_down_also_while_it_waits(original: Path, tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(Owner(original)) as (peers, address):

            async def pace(_: int) -> None:
                peers.set_down(address, "it does not answer")
                await asyncio.Event().wait()

            with pytest.raises(PeerUnreachable, match="does not answer any more"):
                await segment_fetch.fetch(peers, address, "token", 0, ENTRY, tmp_path / "copy.part", pace)

    asyncio.run(act())


@pytest.mark.parametrize("left", [b"not what was there", b"\0" * SIZE, b"longer than the file" * SIZE])
def test_what_a_crash_made_of_a_part_does_not_pass(original: Path, tmp_path: Path, left: bytes) -> None:
    target = tmp_path / "copy.part"
    target.write_bytes(left)
    with contextlib.suppress(CorruptData):
        # A part that is too long is begun anew at once, another is found out by its digest and removed.
        asyncio.run(copy(Owner(original), target))
        assert len(left) > SIZE
    if len(left) <= SIZE:
        assert not target.exists()
        asyncio.run(copy(Owner(original), target))
    assert target.read_bytes() == original.read_bytes()


def test_a_whole_part_needs_the_digest_only(original: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.part"
    target.write_bytes(original.read_bytes())
    assert asyncio.run(copy(Owner(original), target)) == DIGEST_BYTES


def test_the_names_of_what_was_taken_outlive_a_crash(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    work.open()
    other = FileEntry("cpu", "00000002.parquet", 5, 1)
    assert not work.has(2, ENTRY)
    work.took(2, ENTRY)
    again = Workspace(tmp_path)
    again.open()
    assert again.has(2, ENTRY)
    assert not again.has(4, ENTRY), "another node's file of that name is another file"
    assert not again.has(2, other)
    for entry in (ENTRY, other):
        again.part(2, entry).write_bytes(b"x")
    again.keep_parts(2, [other])
    assert list(again.directory.glob("*.part")) == [again.part(2, other)]
    (again.directory / "taken.json").write_bytes(b"\xff torn")
    damaged = Workspace(tmp_path)
    damaged.open()
    assert not damaged.has(2, ENTRY), "it is copied once more"


def test_the_digest_of_a_file_is_of_its_bytes_and_not_of_how_they_are_cut(original: Path) -> None:
    whole, choose = original.read_bytes(), random.Random(4)

    def digest_of(data: bytes, most: int) -> bytes:
        digest, at = new_digest(), 0
        while at < len(data):
            step = choose.randrange(1, most)
            digest.update(data[at : at + step])
            at += step
        return digest.digest()

    wanted = digest_of(whole, 3 * PIECE_BYTES)
    assert len(wanted) == DIGEST_BYTES
    assert {digest_of(whole, most) for most in (5_000, PIECE_BYTES, 3 * PIECE_BYTES)} == {wanted}
    swapped = whole[PIECE_BYTES : 2 * PIECE_BYTES] + whole[:PIECE_BYTES] + whole[2 * PIECE_BYTES :]
    others = [swapped, whole[:-1], whole + b"\0", whole[: 2 * PIECE_BYTES], whole[:99] + b"\0" + whole[100:], b""]
    found = {digest_of(other, PIECE_BYTES) for other in others}
    assert len(found) == len(others) and wanted not in found
    assert digest_of(b"\0" * PIECE_BYTES, 9_000) != digest_of(b"\0" * (PIECE_BYTES + 1), 9_000)


def test_only_work_that_nobody_wants_is_removed(tmp_path: Path) -> None:
    for shard_id, name in ((7, "whole.parquet"), (8, ""), (9, "")):
        shard = tmp_path / "d" / "rp" / str(shard_id)
        (shard / WORK_DIR).mkdir(parents=True)
        (shard / WORK_DIR / "a.part").write_bytes(b"x")
        if name:
            (shard / name).write_bytes(b"x")
    assert remove_leftovers(tmp_path, {9}.__contains__) == 2
    left = sorted(str(path.relative_to(tmp_path / "d" / "rp")) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["7/whole.parquet", f"9/{WORK_DIR}/a.part"]
    assert not (tmp_path / "d" / "rp" / "8").exists(), "a shard that was never made"


def test_what_an_owner_knows_of_a_file_counts_for_its_very_bytes() -> None:
    cells = np.zeros(CELLS, dtype=np.uint64)
    cells[[3, 700]] = (1 << 63) + 5, 7
    digest = random.Random(5).randbytes(DIGEST_BYTES)
    known = wire_sums(FileSums(digest, TimeRanges(-5, 1 << 60), Grid.of("cpu", cells)))
    entry = decode(encode(FileEntry("cpu", "00000001.parquet", SIZE, 1, 2, known)), FileEntry)
    found = sums_of(entry, digest)
    assert found is not None and found.file_digest == digest and found.ranges == TimeRanges(-5, 1 << 60)
    assert (found.grid.cells == cells).all() and found.grid.total == Grid.of("cpu", cells).total
    assert sums_of(entry, digest[::-1]) is None and sums_of(ENTRY, digest) is None
    for wrong in (
        {"format": 99},
        {"sums": known.sums[:-8]},
        {"places": known.places[:-1]},
        {"places": b"\xff\xff\0\0"},
        {"sums": known.sums[:-1]},
    ):
        other = msgspec.structs.replace(known, **wrong)
        assert sums_of(msgspec.structs.replace(entry, known=other), digest) is None


class Silent:
    """Sends the beginning of a file, and then nothing more; ``asked`` is set by then."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = SIZE + DIGEST_BYTES
        await response.prepare(request)
        await response.write(b"x" * 100_000)
        self.asked.set()
        await self.over.wait()
        return response


def test_nothing_waits_for_an_owner_that_nobody_listens_to_any_more(tmp_path: Path) -> None:
    threads = ThreadPoolExecutor(1)

    async def act() -> None:
        owner = Silent()
        async with serving(owner) as (peers, address):
            target = tmp_path / "copy.part"
            copying = asyncio.create_task(
                segment_fetch.fetch(peers, address, "token", 0, ENTRY, target, never, threads)
            )
            await owner.asked.wait()
            while not threads._threads:
                await asyncio.sleep(0.01)
            copying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await copying
            owner.over.set()
            # The thread would wait for half a minute.
            async with asyncio.timeout(25):
                await asyncio.to_thread(threads.shutdown)

    async def never(_: int) -> None:
        raise AssertionError("a whole piece came")

    asyncio.run(act())


def test_an_owner_that_falls_silent_did_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_fetch, "_SILENCE_S", 0.2)

    async def act() -> None:
        owner = Silent()
        async with serving(owner) as (peers, address):
            with pytest.raises(PeerUnreachable, match="timed out"):
                await segment_fetch.fetch(peers, address, "token", 0, ENTRY, tmp_path / "copy.part", ignored)
            owner.over.set()

    async def ignored(_: int) -> None:
        pass

    asyncio.run(act())


def test_threads_for_copies_let_others_go_first() -> None:
    with gentle_threads(1, "some") as threads:
        theirs, name = threads.submit(
            lambda: (os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), threading.current_thread().name)
        ).result()
    assert theirs == min(19, os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + 5)
    assert name.startswith("some")


@pytest.mark.parametrize("damaged", [False, True])
def test_a_file_damaged_after_its_owner_added_it_up_is_read_and_refused(tmp_path: Path, damaged: bool) -> None:
    source, target = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    put(source, 1, [("h1", time_ns, {"f": time_ns / 3, "s": "text" * 9}) for time_ns in range(200)])
    replica, theirs = (store.make_replica(KEY, 0, 1_000) for store in (target, source))
    # What is compared is added up when it is written.
    theirs.digests()
    work = Workspace(replica.shard.directory)
    work.open()
    with theirs.files() as held:
        (one,) = held.files
        assert one.sums is not None
        known = wire_sums(one.sums)
        entry = FileEntry(one.measurement, one.path.name, one.size_bytes, one.rows, 0, known)
        part = work.part(1, entry)
        content = bytearray(one.path.read_bytes())
    if damaged:
        content[len(content) // 3] ^= 0xFF
    part.write_bytes(content)
    digest = digest_of_file(part)
    assert (sums_of(entry, digest) is None) == damaged
    adopt_file(replica, work, 1, entry, part, digest)
    assert work.has(1, entry) and not part.exists()
    found = [(name, grid.total) for name, grid in replica.digests().items()]
    assert found == ([] if damaged else [(name, grid.total) for name, grid in theirs.digests().items()])
    source.close()
    target.close()
