"""Log records: what survives cuts and flipped bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.storage.settings import ShardKey
from dsdbd.storage.wal import LogWriter, last_drops, log_files, remove_before, replay
from dsdbd.storage.wal_format import (
    HEADER_BYTES,
    Damage,
    Kind,
    Record,
    encode_header,
    encode_record,
    find_drops,
    read_records,
)
from tests.examples import examples

records = st.builds(
    Record,
    st.sampled_from(Kind),
    st.builds(ShardKey, st.text(max_size=5), st.text(max_size=5), st.integers(0, 2**63)),
    st.binary(max_size=40),
)


def encoded(items: list[Record]) -> tuple[bytes, list[int]]:
    """A file, and the offset at which each record begins."""
    data = encode_header(1)
    offsets = []
    for item in items:
        offsets.append(len(data))
        data += b"".join(encode_record(item))
    return data, offsets


def read(data: bytes, *, last_file: bool = True) -> tuple[list[Record], Damage]:
    damage = Damage()
    return [record for _, record in read_records(memoryview(data), damage, last_file=last_file)], damage


def sample(count: int = 3) -> list[Record]:
    return [Record(Kind.WRITE, ShardKey("db", "rp", number), b"payload %d" % number) for number in range(count)]


@settings(deadline=None)
@given(st.lists(records, max_size=6))
def test_records_come_back(items: list[Record]) -> None:
    data, _ = encoded(items)
    assert read(data) == (items, Damage())
    assert read(data, last_file=False) == (items, Damage())


@pytest.mark.parametrize("last_file", [True, False])
def test_a_cut_at_every_byte_loses_only_what_is_cut(last_file: bool) -> None:
    items = sample()
    data, offsets = encoded(items)
    for size in range(HEADER_BYTES + 1, len(data)):
        whole = sum(1 for end in [*offsets[1:], len(data)] if end <= size)
        found, damage = read(data[:size], last_file=last_file)
        assert found == items[:whole]
        assert not damage.corrupt_at
        assert damage.torn_at == (None if size in offsets else offsets[whole])


def test_a_cut_header_is_an_empty_file() -> None:
    for size in range(HEADER_BYTES):
        assert read(encode_header(1)[:size]) == ([], Damage(torn_at=0))
    assert read(bytes(4096)) == ([], Damage(torn_at=0))


def test_zeros_behind_the_last_record_are_a_torn_end() -> None:
    data, _ = encoded(sample())
    assert read(data + bytes(512), last_file=False) == (sample(), Damage(torn_at=len(data)))


def test_every_flipped_bit_costs_one_record_and_is_noticed() -> None:
    items = sample()
    data, offsets = encoded(items)
    for at in range(offsets[0], len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            hit = max(number for number, offset in enumerate(offsets) if offset <= at)
            found, damage = read(bytes(flipped), last_file=False)
            assert found == items[:hit] + items[hit + 1 :]
            assert damage.corrupt_at == (offsets[hit],) or (hit == 2 and damage.torn_at == offsets[hit])


def test_a_damaged_header_costs_nothing() -> None:
    data, _ = encoded(sample())
    found, damage = read(b"X" + data[1:])
    assert found == sample() and damage.corrupt_at == (0,)


@settings(deadline=None, max_examples=examples(300))
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_without_an_error(tail: bytes, last_file: bool) -> None:
    data, _ = encoded(sample(1))
    found, _ = read(data + tail, last_file=last_file)
    assert found[:1] == sample(1)
    read(tail, last_file=last_file)


@settings(deadline=None)
@given(st.lists(records, max_size=6))
def test_drops_are_found_by_the_lengths_alone(items: list[Record]) -> None:
    data, offsets = encoded(items)
    drops = [(at, item.key.shard_id) for at, item in zip(offsets, items, strict=True) if item.kind is Kind.DROP]
    assert find_drops(memoryview(data)) == drops
    for size in range(len(data)):
        assert find_drops(memoryview(data)[:size]) in (None, [drop for drop in drops if drop[0] < size])


def test_the_last_drop_of_each_shard_is_found_in_whole_torn_and_damaged_files(tmp_path: Path) -> None:
    def drop(number: int) -> Record:
        return Record(Kind.DROP, ShardKey("db", "rp", number), b"")

    first, first_at = encoded([drop(1), drop(2), *sample(2)])
    second, second_at = encoded([*sample(2), drop(1), *sample(1)])
    damaged = bytearray(second)
    damaged[second_at[1]] ^= 1  # a length that leads nowhere
    (tmp_path / "00000001.wal").write_bytes(first)
    for name, content in {"whole": second, "torn": second[:-1], "damaged": bytes(damaged)}.items():
        (tmp_path / "00000002.wal").write_bytes(content)
        assert last_drops(tmp_path) == {1: (2, second_at[2]), 2: (1, first_at[1])}, name
    (tmp_path / "00000002.wal").write_bytes(b"")
    assert last_drops(tmp_path) == {1: (1, first_at[0]), 2: (1, first_at[1])}


def test_writer_rolls_and_old_files_go_oldest_first(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, 4, segment_bytes=60)
    sequences = [writer.append([item]) for item in sample(4)]
    writer.close()
    assert sequences[0] == 5 and sequences == sorted(sequences) and len(set(sequences)) > 1
    assert [record for _, record in replay(tmp_path, pytest.fail)] == sample(4)
    assert remove_before(tmp_path, sequences[-1]) == len(set(sequences)) - 1
    assert [number for number, _ in log_files(tmp_path)] == [sequences[-1]]


def test_damage_in_the_middle_is_set_aside_once(tmp_path: Path) -> None:
    data, offsets = encoded(sample())
    damaged = bytearray(data)
    damaged[offsets[1] + 20] ^= 1
    path = tmp_path / "00000001.wal"
    path.write_bytes(damaged)
    notes: list[str] = []
    kept = [sample()[0], sample()[2]]
    assert [record for _, record in replay(tmp_path, notes.append)] == kept
    assert len(notes) == 1 and str(path) in notes[0] and f"byte {offsets[1]}" in notes[0]
    assert (tmp_path / "corrupt" / path.name).read_bytes() == damaged
    assert [record for _, record in replay(tmp_path, notes.append)] == kept
    assert len(notes) == 1


def test_a_torn_end_is_cut_off_and_stays_ordinary(tmp_path: Path) -> None:
    data, offsets = encoded(sample())
    path = tmp_path / "00000001.wal"
    path.write_bytes(data[:-1])
    assert [record for _, record in replay(tmp_path, pytest.fail)] == sample(2)
    assert path.stat().st_size == offsets[2]
