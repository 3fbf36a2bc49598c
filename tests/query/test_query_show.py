"""SHOW statements over indexes as shards have them, beside answers made one series at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.model.predicate import TagPredicate
from dsdbd.model.scan import Extent, Piece, ScanRequest, SeriesSet
from dsdbd.model.series import Series, parse_key
from dsdbd.model.types import FieldType
from dsdbd.query import show_finish, show_partial
from dsdbd.query.run import QueryCancelled
from dsdbd.query.show_parts import FoundSeries, FoundTexts
from dsdbd.storage.index import SeriesIndex
from tests.examples import examples
from tests.query.query_engine import parse_one, run_query


@dataclass
class IndexedShard:
    """A shard of series without points."""

    keys: Sequence[bytes]
    shard_id: int = 1
    start_ns: int = -(2**63)
    end_ns: int = 2**63 - 1
    indexes: dict[str, SeriesIndex] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_name: dict[str, list[bytes]] = {}
        for key in self.keys:
            by_name.setdefault(parse_key(key).measurement, []).append(key)
        for name, keys in by_name.items():
            self.indexes[name] = SeriesIndex()
            self.indexes[name].numbers(keys)

    def measurements(self) -> list[str]:
        return sorted(self.indexes)

    def tag_keys(self, measurement: str) -> frozenset[str]:
        return self.indexes[measurement].tag_keys()

    def field_types(self, measurement: str) -> dict[str, FieldType]:
        return {"f": FieldType.FLOAT, f"n{self.shard_id}": FieldType.INTEGER}

    def series(self, measurement: str, predicate: TagPredicate) -> SeriesSet:
        index = self.indexes.get(measurement, SeriesIndex())
        return index.subset(measurement, index.select(predicate))

    def extent(self, measurement: str) -> Extent | None:
        return None

    def scan(self, request: ScanRequest) -> Iterator[Piece]:
        yield from ()


def rows(text: str, nodes: Sequence[Sequence[bytes]]) -> dict[str, list[tuple[str | int, ...]]]:
    """The answer over two shards per node, which share a third of their series."""
    shards = [[IndexedShard(keys[: len(keys) * 2 // 3], 1), IndexedShard(keys[len(keys) // 3 :], 2)] for keys in nodes]
    found: dict[str, list[tuple[str | int, ...]]] = {}
    for block in run_query(text, shards, 0):
        columns = [
            values.to_pylist() if isinstance(values, pa.Array) else values.tolist()
            for values in (column.values for column in block.data)
        ]
        found.setdefault(block.name, []).extend(zip(*columns, strict=True))
    return found


def series_of(many: Sequence[tuple[str, dict[str, str]]], times: int) -> list[Series]:
    return [
        Series(name, tuple(sorted({**tags, **({"n": f"v{number}"} if times > 1 else {})}.items())))
        for name, tags in many
        for number in range(times)
    ]


series_lists = st.builds(
    series_of,
    st.lists(
        st.tuples(
            st.sampled_from(["cpu", "m m", "x"]),
            st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", "x y", "a,b", "é"]), max_size=3),
        ),
        max_size=5,
    ),
    st.sampled_from([1, 1, 1, 1, 3, 3, 300]),
)


@settings(deadline=None, max_examples=examples(40))
@given(st.lists(series_lists, min_size=1, max_size=3), st.sampled_from(["", "x", "y", "zz"]), st.integers(0, 5))
def test_answers_are_those_of_the_series_one_by_one(nodes: list[list[Series]], value: str, limit: int) -> None:
    keys = [[one.key() for one in many] for many in nodes]
    chosen = {one for many in nodes for one in many if one.tag("a") == value}
    cut = slice(limit, limit + 7)
    limited = f"where a = '{value}' limit 7 offset {limit}"

    by_key = sorted((one.key().decode(),) for one in chosen)[cut]
    assert rows(f"show series {limited}", keys) == ({"": by_key} if by_key else {})

    names = sorted({one.measurement for one in chosen})
    values, tag_keys, counts, all_keys = {}, {}, {}, {}
    for name in names:
        of_name = [one for one in chosen if one.measurement == name]
        pairs = sorted({pair for one in of_name for pair in one.tags if pair[0] != "b"})
        values[name] = pairs[cut]
        tag_keys[name] = sorted({(key,) for one in of_name for key, _ in one.tags})
        counts[name] = [(len(of_name),)]
        # A value that two keys have counts once; that of a series without the tag of the condition not at all.
        all_keys[name] = [(len({text for _, text in pairs}),)] if pairs and value else []
    assert rows(f"show tag values with key != b {limited}", keys) == {n: v for n, v in values.items() if v}
    assert rows(f"show tag keys where a = '{value}'", keys) == {n: v for n, v in tag_keys.items() if v}
    assert rows(f"show series exact cardinality where a = '{value}'", keys) == counts
    assert rows(f"show tag values exact cardinality with key != b where a = '{value}'", keys) == {
        n: v for n, v in all_keys.items() if v
    }
    # Measurements are asked for a value that one of their series has; an absent tag is none.
    assert rows(f"show measurements where a = '{value}'", keys) == (
        {"measurements": [(name,) for name in names]} if names and value else {}
    )
    tagged = {one.measurement for many in nodes for one in many if one.tag("a")}
    without = sorted(tagged - set(names)) if value else sorted(tagged)
    assert rows(f"show measurements where a != '{value}'", keys) == (
        {"measurements": [(name,) for name in without]} if without else {}
    )


def grouped(statement: str, nodes: list[list[bytes]]) -> dict[tuple[str, ...], int]:
    """Counts by measurement and values of tags."""
    parts = [show_partial(parse_one(statement), [IndexedShard(keys)], 0, lambda: False) for keys in nodes]
    found = list(show_finish(parse_one(statement), parts))
    places = [(one.name, *(one.tags or {}).values()) for one in found]
    assert places == sorted(places)
    return {place: int(one.data[0].values[0]) for place, one in zip(places, found, strict=True)}


@settings(deadline=None, max_examples=examples(40))
@given(
    st.lists(series_lists, min_size=1, max_size=3),
    st.sampled_from(["", "where a = 'x'", "where a = b", "where a != b"]),
)
def test_counts_by_groups_are_those_of_the_series_one_by_one(nodes: list[list[Series]], where: str) -> None:
    keys = [[one.key() for one in many] for many in nodes]
    holds = {
        "": lambda one: True,
        "where a = 'x'": lambda one: one.tag("a") == "x",
        "where a = b": lambda one: one.tag("a") == one.tag("b") != "",
        "where a != b": lambda one: not (one.tag("a") == one.tag("b") != ""),
    }[where]
    series, names, tag_keys, values = defaultdict(set), defaultdict(set), defaultdict(set), defaultdict(set)
    for one in {one for many in nodes for one in many if holds(one)}:
        group = (one.tag("a"), one.tag("c"))
        series[one.measurement, *group].add(one)
        names["", *group].add(one.measurement)
        tag_keys[one.measurement, *group] |= {key for key, _ in one.tags}
        values[one.measurement, *group] |= {text for key, text in one.tags if key != "b"}
    for what, expected in (
        ("series exact cardinality", series),
        ("measurement exact cardinality", names),
        ("tag key exact cardinality", tag_keys),
        ("tag values exact cardinality with key != b", values),
    ):
        assert grouped(f"show {what} {where} group by a, c", keys) == {k: len(v) for k, v in expected.items() if v}


@settings(deadline=None, max_examples=examples(30))
@given(st.lists(series_lists, min_size=1, max_size=3))
def test_whole_answers_hold_every_series_once(nodes: list[list[Series]]) -> None:
    keys = [[one.key() for one in many] for many in nodes]
    everything = {one for many in nodes for one in many}
    assert rows("show series", keys).get("", []) == sorted((one.key().decode(),) for one in everything)
    assert rows("show series cardinality", keys) == {"": [(len(everything),)]}
    names = {one.measurement for one in everything}
    assert rows("show measurement exact cardinality", keys) == ({"": [(len(names),)]} if names else {})
    fields = {node for node, many in enumerate(nodes) if many}
    if fields:
        found = rows("show field keys", keys)
        assert set(found) == names and all(("f", "float") in pairs for pairs in found.values())


def test_a_limit_cuts_what_shards_send() -> None:
    shard = IndexedShard([b"m,h=%d" % number for number in range(5_000)])
    for statement in ("show series limit 3 offset 2", "show tag values with key = h limit 3 offset 2"):
        part = show_partial(parse_one(statement), [shard], 0, lambda: False)
        content = msgspec.msgpack.decode(part)
        (texts,) = content["m"].values()
        assert len(texts) == 5


@pytest.mark.parametrize("statement", ["show series", "show series exact cardinality", "show tag values with key = h"])
def test_cancelled_statements_end(statement: str) -> None:
    shard = IndexedShard([b"m,h=1"])
    with pytest.raises(QueryCancelled):
        show_partial(parse_one(statement), [shard], 0, lambda: True)


@settings(max_examples=examples(100))
@given(st.binary(max_size=60))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    for decode in (FoundTexts.decode, FoundSeries.decode):
        try:
            found = decode([data])
        except CorruptData as error:
            assert "cannot be decoded" in error.message
        else:
            assert msgspec.msgpack.decode(found.encode()) == msgspec.msgpack.decode(data)


@settings(deadline=None, max_examples=examples(200))
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_changed_bytes_are_refused_or_answered(at: int, byte: int, series: bool) -> None:
    statement = parse_one("show series exact cardinality" if series else "show series")
    shard = IndexedShard([b"m,h=%d" % number for number in range(400)])
    part = bytearray(show_partial(statement, [shard], 0, lambda: False))
    part[at % len(part)] = byte
    try:
        found = list(show_finish(statement, [bytes(part)]))
    except CorruptData:
        return
    assert all(len(block) > 0 for block in found)


@pytest.mark.parametrize("codes", [[0, 2], [0], [0, -2]])
def test_codes_that_do_not_fit_their_values_are_refused(codes: list[int]) -> None:
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"v": pa.array(codes, pa.int32())})
    with pa.ipc.new_stream(sink, batch.schema) as out:
        out.write_batch(batch)
    part = msgspec.msgpack.encode({"m": (2, {"h": (["a", "b"], sink.getvalue().to_pybytes())})})
    with pytest.raises(CorruptData, match="do not belong together"):
        FoundSeries.decode([part])


def test_many_series_without_a_tag_are_refused() -> None:
    with pytest.raises(CorruptData, match="without any tag"):
        FoundSeries.decode([msgspec.msgpack.encode({"m": (2, {})})])


def test_counting_needs_no_more_than_the_tags() -> None:
    found = FoundSeries()
    index = SeriesIndex()
    index.numbers([b"m"])
    for _ in range(3):
        found.add("m", index.subset("m", np.zeros(1, dtype=np.int64)))
    assert found.counts() == {"m": 1}
    assert FoundSeries.decode([found.encode(), found.encode()]).counts() == {"m": 1}
