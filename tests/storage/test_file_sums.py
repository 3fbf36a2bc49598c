"""Digests of files that are known from their writing and merging, and are handed on with the bytes they are of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.model.digest import Grid
from dsdbd.model.predicate import TagEquals
from dsdbd.storage import Replica, Shard, StoreSettings
from dsdbd.storage.file_sums import FileDigest, FileSums, digest_of_file
from dsdbd.storage.segment import Segment
from dsdbd.storage.tombstones import Tombstone
from tests.storage.storage_model import KEY, Row, make_batch, scan

END_NS = 1_000


def shard_at(place: Path) -> Shard:
    return Shard(KEY, place, StoreSettings(merge_files=2), pytest.fail)


def plain(grids: dict[str, Grid]) -> dict[str, tuple[bytes, bytes, int]]:
    return {name: (grid.places.tobytes(), grid.sums.tobytes(), grid.total) for name, grid in grids.items()}


def known_files(shard: Shard) -> list[FileSums | None]:
    with shard.held_files() as held:
        return [one.sums for one in held.files]


def never_read(*_: object) -> None:
    raise AssertionError("rows of a file were read")


def write(shard: Shard, version: int, rows: list[Row]) -> None:
    batch = make_batch(version, rows)
    shard.check_types(batch)
    shard.insert(batch, 1, 0.0)


def rows_of(turn: int) -> list[Row]:
    return [(f"h{n % 3}", turn * 10 + n, {"i": turn, "s": f"t{n}"}) for n in range(5)]


def test_only_what_is_compared_is_added_up_when_it_is_written(tmp_path: Path) -> None:
    shard = shard_at(tmp_path / "shard")
    write(shard, 1, rows_of(0))
    shard.flush()
    assert known_files(shard) == [None]
    Replica(shard, 0, END_NS).digests()
    write(shard, 2, rows_of(1))
    shard.flush()
    assert None not in known_files(shard) and len(known_files(shard)) == 2


def test_rows_of_files_are_not_read_again_for_their_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = shard_at(tmp_path / "shard")
    replica = Replica(shard, 0, END_NS)
    for turn in range(4):
        write(shard, turn + 1, rows_of(turn))
        # The first digest makes the measurement one that is compared.
        replica.digests()
        shard.flush()
    before = plain(replica.digests())
    assert shard.merge(full=True) > 0 and len(known_files(shard)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "read_group", never_read)
        write(shard, 9, rows_of(7))
        after = plain(replica.digests())
    assert after != before
    assert after == plain(Replica(replayed(shard, tmp_path), 0, END_NS).digests())


def replayed(shard: Shard, home: Path) -> Shard:
    """The same rows in a shard that knows nothing but its files."""
    shard.flush()
    place = home / "fresh"
    shutil.rmtree(place, ignore_errors=True)
    if shard.directory.exists():
        shutil.copytree(shard.directory, place)
    return shard_at(place)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 6), st.integers(0, 3)),
        st.just(("flush",)),
        st.just(("merge",)),
        st.just(("digests",)),
        st.just(("purge",)),
        st.tuples(st.just("delete"), st.integers(0, 60)),
    ),
    max_size=14,
)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_digests_that_were_kept_are_those_that_are_found_anew(
    tmp_path_factory: pytest.TempPathFactory, doing: list[tuple]
) -> None:
    home = tmp_path_factory.mktemp("sums")
    shard = shard_at(home / "shard")
    replica = Replica(shard, 0, END_NS)
    for version, (what, *how) in enumerate(doing, 1):
        if what == "write":
            turn, rows = how
            some = [(host, time_ns, values if rows else {"f": 1.5}) for host, time_ns, values in rows_of(turn)]
            write(shard, version, some[rows:])
        elif what == "delete":
            shard.delete(Tombstone("m", TagEquals("host", "h1"), 0, how[0], version))
        elif what == "digests":
            replica.digests()
        elif what == "purge":
            shard.purge(version)
        else:
            shard.flush() if what == "flush" else shard.merge(full=True)
    fresh = Replica(replayed(shard, home), 0, END_NS)
    assert plain(replica.digests()) == plain(fresh.digests())
    replica.digests()
    fresh.digests()
    with shard.held_files() as held:
        for one in held.files:
            if one.sums is not None:
                assert one.sums.file_digest == digest_of_file(one.path)


def adopted(source: Shard, place: Path, sums: FileSums | None) -> Shard:
    target = shard_at(place)
    place.mkdir()
    with source.held_files() as held:
        part = place / "one.part"
        shutil.copyfile(held.files[0].path, part)
    Replica(target, 0, END_NS).adopt("m", part, sums)
    return target


def test_a_file_whose_bytes_are_known_is_taken_without_reading_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shard_at(tmp_path / "a")
    write(source, 1, rows_of(0))
    source.flush()
    wanted = plain(Replica(source, 0, END_NS).digests())
    (sums,) = known_files(source)
    assert sums is not None
    read = adopted(source, tmp_path / "b", None)
    other_times = adopted(source, tmp_path / "c", sums._replace(ranges=type(sums.ranges)(0, END_NS + 1)))
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "read_group", never_read)
        with pytest.raises(AssertionError, match="were read"):
            adopted(source, tmp_path / "d", None)
        taken = adopted(source, tmp_path / "e", sums)
        for target in (read, other_times, taken):
            assert plain(Replica(target, 0, END_NS).digests()) == wanted
            # It can be handed on in the same way.
            (again,) = known_files(target)
            assert again is not None and again.file_digest == sums.file_digest
    assert scan(taken) == scan(source)


def test_a_file_of_which_something_is_deleted_is_not_handed_on_without_reading_it(tmp_path: Path) -> None:
    source = shard_at(tmp_path / "a")
    write(source, 1, rows_of(0))
    source.flush()
    source.delete(Tombstone("m", TagEquals("host", "h1"), 0, 500, 2))
    Replica(source, 0, END_NS).digests()
    assert known_files(source) == [None]


def test_the_digest_of_a_file_that_is_gone_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "some"
    path.write_bytes(b"some bytes" * 300_000)
    digest = FileDigest()
    digest.update(path.read_bytes())
    assert digest_of_file(path) == digest.digest()
    path.unlink()
    assert digest_of_file(path) == b""
