import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.model.predicate import EVERY_SERIES, AllOf, AnyOf, TagEquals, TagMatches, TagPredicate, matches
from dsdbd.model.scan import SeriesSet, TagColumn
from dsdbd.model.series import Series, parse_key
from dsdbd.model.texts import Texts
from dsdbd.storage.index import SeriesIndex
from dsdbd.storage.index_table import HashTable
from dsdbd.storage.index_texts import TextDictionary
from tests.examples import examples

NAMES = st.sampled_from(["a", "b", "c", "a b", "a,b", "é", "a\\b"])
VALUES = st.sampled_from(["x", "y", "xy", "z", "x y", "x!", "x=y", "x,y", "ü", "\\", "x\\y", '"q"', "x\n"])
PLAIN_VALUES = st.sampled_from(["x", "y", "xy", "z", "x!", "x-", "ü", '"q"'])
PATTERNS = st.sampled_from(["x", "^$", ".*", "^x|z$", "^(x|y|q)$", "(?i)X", "[^x]", r"\\"])


def tags_of(values: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(NAMES, values, max_size=4)


predicates = st.recursive(
    st.one_of(
        st.builds(TagEquals, NAMES, st.one_of(st.just(""), st.just("absent"), VALUES), st.booleans()),
        st.builds(TagMatches, NAMES, PATTERNS, st.booleans()),
    ),
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=12).map(tuple)),
    ),
    max_leaves=12,
)
hashes: st.SearchStrategy[Callable[[Any], int]] = st.sampled_from([hash, len, lambda _: -7])


def key_of(tags: dict[str, str], measurement: str = "m") -> bytes:
    return Series(measurement, tuple(sorted(tags.items()))).key()


def multiplied(many: list[dict[str, str]], times: int) -> list[bytes]:
    """Keys of each of the series with one more tag of many values: enough of them to be handled as columns."""
    return [key_of({**tags, "n": f"v{number}"}) for tags in many for number in range(times)]


def as_columns(many: Sequence[Series]) -> dict[str, TagColumn]:
    return dict(SeriesSet.of("m", many).tags)


def check(index: SeriesIndex, given_keys: Sequence[bytes], predicate: TagPredicate) -> None:
    """The index holds these keys and answers about them as the reference does."""
    numbers = index.numbers(given_keys).tolist()
    distinct = set(given_keys)
    assert [index.keys[number] for number in numbers] == list(given_keys)
    assert len(index) == len(distinct) == len(set(numbers))
    assert list(index.keys) == [index.keys[number] for number in range(len(index))]
    series = [parse_key(key) for key in index.keys]
    chosen = index.select(predicate)
    assert chosen.tolist() == [number for number, one in enumerate(series) if matches(predicate, one)]
    subset = index.subset("m", chosen)
    assert subset.series_keys() == [index.keys[number] for number in chosen.tolist()]
    for name in [*subset.tags, "absent"]:
        assert subset.texts(name) == [series[number].tag(name) for number in chosen.tolist()]
    for column in subset.tags.values():
        assert column.to_arrow().to_pylist() == [column.values[c] if c >= 0 else None for c in column.codes.tolist()]
        assert set(column.distinct().to_pylist()) == {column.values[c] for c in column.codes.tolist() if c >= 0}
    ordered = [index.keys[number] for number in index.in_key_order(chosen[::-1]).tolist()]
    assert ordered == sorted(subset.series_keys())
    assert index.tag_keys() == {name for one in series for name, _ in one.tags}


@settings(deadline=None, max_examples=examples(80))
@given(st.lists(tags_of(VALUES), max_size=12), predicates, hashes)
def test_single_series_agree_with_the_reference(
    many: list[dict[str, str]], predicate: TagPredicate, hash_of: Callable[[Any], int]
) -> None:
    index = SeriesIndex(hash_of)
    keys = [key_of(tags) for tags in many]
    assert [index.number(key) for key in keys] == index.numbers(keys).tolist()
    check(index, keys, predicate)


@settings(deadline=None, max_examples=examples(60))
@given(
    st.lists(st.tuples(st.lists(tags_of(VALUES), max_size=4), st.sampled_from([1, 20, 40])), max_size=4),
    predicates,
    hashes,
)
def test_many_series_at_once_agree_with_the_reference(
    batches: list[tuple[list[dict[str, str]], int]], predicate: TagPredicate, hash_of: Callable[[Any], int]
) -> None:
    index = SeriesIndex(hash_of)
    keys = []
    for many, times in batches:
        keys += multiplied(many, times)
        index.numbers(keys)
    check(index, keys, predicate)


@settings(deadline=None, max_examples=examples(60))
@given(
    st.lists(st.tuples(tags_of(st.one_of(PLAIN_VALUES, VALUES)), st.sampled_from([1, 30])), max_size=6),
    st.booleans(),
    predicates,
    hashes,
)
def test_columns_give_the_same_numbers_as_keys(
    batches: list[tuple[dict[str, str], int]],
    keys_first: bool,
    predicate: TagPredicate,
    hash_of: Callable[[Any], int],
) -> None:
    keys = list(dict.fromkeys(key for tags, times in batches for key in multiplied([tags], times)))
    # A tag that ends with a backslash is another series once it stands in a key; columns mean the key's.
    series = [parse_key(key) for key in keys]
    keys = [one.key() for one in series]
    index = SeriesIndex(hash_of)
    known = keys[: len(keys) // 2]
    by_key = index.numbers(known) if keys_first else None
    by_columns = index.numbers_of_columns("m", as_columns(series)) if series else np.empty(0, dtype=np.int64)
    if by_key is not None:
        assert by_columns[: len(known)].tolist() == by_key.tolist()
    assert by_columns.tolist() == index.numbers(keys).tolist()
    check(index, keys, predicate)


@pytest.mark.parametrize("hash_of", [hash, len, lambda _: 5])
def test_equal_hashes_in_groups_of_one_batch_do_not_hide_a_series(hash_of: Callable[[Any], int]) -> None:
    index = SeriesIndex(hash_of)
    keys = [b"m,%s=%d" % (name, number) for name in (b"a", b"b", b"c") for number in range(100, 150)]
    check(index, keys, TagEquals("b", "120"))
    assert index.numbers(keys[::-1]).tolist() == index.numbers(keys).tolist()[::-1]


def test_a_backslash_at_the_end_of_a_value_reads_the_same_in_a_batch_as_alone() -> None:
    keys = [b"m,a=%d,b=1" % number for number in range(50)] + [b"m,a=x\\,b=1"]
    index = SeriesIndex()
    check(index, keys, TagEquals("a", "x,b=1"))
    assert len(index.select(TagEquals("a", "x,b=1"))) == 1 and not len(index.select(TagEquals("a", "x\\")))


def test_a_series_without_tags_is_found_by_columns() -> None:
    index = SeriesIndex()
    assert index.numbers_of_columns("m m", {}).tolist() == [0]
    assert index.numbers([b"m\\ m"]).tolist() == [0] and index.keys[0] == b"m\\ m"


def test_columns_with_repeated_series_give_one_number() -> None:
    index = SeriesIndex()
    codes = np.arange(100, dtype=np.int32) % 50
    numbers = index.numbers_of_columns("m", {"a": TagColumn(codes, tuple(f"v{n}" for n in range(60)))})
    assert len(index) == 50 and numbers[:50].tolist() == numbers[50:].tolist()
    assert sorted(index.subset("m", numbers).tags["a"].distinct().to_pylist()) == sorted(f"v{n}" for n in range(50))


def test_values_that_no_series_has_are_not_taken_over() -> None:
    index = SeriesIndex()
    index.numbers_of_columns("m", {"a": TagColumn(np.zeros(40, dtype=np.int32), Texts.of(["used", "unused"]))})
    assert list(index.subset("m", index.select(EVERY_SERIES)).tags["a"].values) == ["used"]


@pytest.mark.parametrize("bad", [b"m,a", b"m,a=", b"m,=b", b"m,a=\xff", b"m,", b"m,a=1,,b=2"])
@pytest.mark.parametrize("others", [0, 100])
def test_bytes_that_are_no_key_are_refused_and_harm_nothing(bad: bytes, others: int) -> None:
    index = SeriesIndex()
    keys = [b"m,a=%d" % number for number in range(others)]
    with pytest.raises(CorruptData):
        index.numbers([*keys, bad])
    check(index, [*keys, b"m,a=new"], TagEquals("a", "7"))


@pytest.mark.parametrize("odd", [b"m,b=1,a=2", b"m,a=1,a=2", b"m,a=x=y", b"m,a=x y", b"k=v,a=1", b'm,a="x\ry"'])
@pytest.mark.parametrize("times", [1, 60])
def test_keys_that_are_not_in_canonical_form_are_given_back_as_they_came(odd: bytes, times: int) -> None:
    index = SeriesIndex()
    keys = [odd + b",n=%d" % number for number in range(times)]
    numbers = index.numbers([*keys, b"m,a=1"])
    assert [index.keys[number] for number in numbers.tolist()] == [*keys, b"m,a=1"]
    assert index.numbers(keys).tolist() == numbers.tolist()[:-1]
    assert index.subset("m", numbers).series_keys() == [*keys, b"m,a=1"]
    ordered = index.in_key_order(numbers).tolist()
    assert [index.keys[number] for number in ordered] == sorted([*keys, b"m,a=1"])


def test_many_series_of_many_shapes_keep_their_numbers_and_order() -> None:
    index = SeriesIndex()
    keys = [b"cpu,host=h%d,region=r%d" % (n * 7919 % 100_003, n % 7) for n in range(60_000)]
    keys += [b"cpu,host=h%d" % n for n in range(0, 60_000, 3)]
    keys += [b"cpu,az=%d,host=h%d,z=1" % (n % 5, n) for n in range(10_000)]
    numbers = index.numbers(keys)
    assert numbers.tolist() == index.numbers(keys).tolist()
    assert index.subset("cpu", numbers).series_keys() == keys
    assert index.in_key_order(numbers).tolist() == sorted(
        numbers.tolist(), key=dict(zip(numbers.tolist(), keys, strict=True)).__getitem__
    )
    wanted = [n for n, key in zip(numbers.tolist(), keys, strict=True) if b"host=h17," in key + b","]
    assert index.select(TagEquals("host", "h17")).tolist() == sorted(wanted)
    hosts = tuple(TagEquals("host", f"h{n}") for n in range(0, 300, 3))
    found = index.select(AllOf((AnyOf(hosts), TagEquals("region", ""), TagEquals("az", "", negated=True))))
    assert index.subset("cpu", found).series_keys() == [
        key
        for key in keys
        if key.startswith(b"cpu,az") and int(key.split(b"host=h")[1].split(b",")[0]) in range(0, 300, 3)
    ]


def test_readers_need_no_lock_while_series_are_added() -> None:
    index = SeriesIndex()
    done = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                chosen = index.select(TagMatches("host", "7$"))
                subset = index.subset("m", index.in_key_order(chosen))
                keys = subset.series_keys()
                assert keys == sorted(keys)
                assert all(text.endswith("7") for text in subset.texts("host"))
                assert len(index.select(EVERY_SERIES)) <= len(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for start in range(0, 40_000, 500):
            extra = b",rack=%d" % (start % 3) if start % 1_000 else b""
            index.numbers([b"m,host=h%d" % number + extra for number in range(start, start + 500)])
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]
    assert len(index) == 40_000


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.lists(st.integers(-3, 12) | st.integers(-(2**63), 2**63 - 1), max_size=80), max_size=6))
def test_the_hash_table_places_the_first_of_equal_hashes(batches: list[list[int]]) -> None:
    table = HashTable()
    placed: dict[int, int] = {}
    count = 0
    for batch in batches:
        clashing = set()
        for position, value in enumerate(batch):
            if value in placed:
                clashing.add(position)
            placed.setdefault(value, count + position)
        count += len(batch)
        if len(batch) == 1:
            assert table.add_one(batch[0]) == (not clashing)
        else:
            assert set(table.add(np.array(batch, dtype=np.int64)).tolist()) == clashing
        wanted = np.array([*placed, 99, -99], dtype=np.int64)
        expected = [*placed.values(), placed.get(99, -1), placed.get(-99, -1)]
        assert table.find(wanted).tolist() == expected
        assert [table.find_one(value) for value in wanted.tolist()] == expected


@settings(deadline=None, max_examples=examples(80))
@given(st.lists(st.lists(st.text(max_size=3), unique=True, max_size=60), max_size=5), hashes, PATTERNS)
def test_a_dictionary_gives_every_text_one_code(
    batches: list[list[str]], hash_of: Callable[[Any], int], pattern: str
) -> None:
    dictionary = TextDictionary(hash_of)
    codes: dict[str, int] = {}
    for number, batch in enumerate(batches):
        if number % 2:
            added = [dictionary.add(text) for text in batch]
        else:
            added = dictionary.add_all(Texts.of(batch).array).tolist()
        for text, code in zip(batch, added, strict=True):
            assert codes.setdefault(text, code) == code
    assert list(dictionary.texts()) == sorted(codes, key=codes.__getitem__)
    assert [dictionary.code(text) for text in codes] == list(codes.values())
    assert all(dictionary.text(code) == text for text, code in codes.items())
    matched = dictionary.matching(pattern).tolist()
    assert matched == [matches(TagMatches("t", pattern), Series("m", (("t", text),))) for text in dictionary.texts()]


def test_a_dictionary_of_many_texts_finds_them_without_python_objects() -> None:
    dictionary = TextDictionary()
    texts = [f"host_{number}" for number in range(30_000)]
    assert dictionary.add_all(Texts.of(texts).array).tolist() == list(range(30_000))
    assert dictionary.add_all(Texts.of(texts[::-1]).array).tolist() == list(range(29_999, -1, -1))
    assert dictionary.code("host_29999") == 29_999 and dictionary.code("host_30000") == -1
    assert dictionary.add("host_30000") == 30_000 and dictionary.code("host_30000") == 30_000
    assert dictionary.matching("_30000$").sum() == 1 and len(dictionary.matching("9$")) == 30_001


@pytest.mark.slow
def test_many_series_take_the_memory_that_is_stated() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.storage.index_memory", "300000"]
    report = json.loads(subprocess.run(command, cwd=root, capture_output=True, check=True, timeout=280).stdout)
    print(report)
    assert report["stated_bytes_per_series"] < 350
    assert report["resident_bytes_per_series"] < 500
