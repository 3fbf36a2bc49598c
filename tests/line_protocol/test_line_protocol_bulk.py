"""Reading a block at once: nothing but what the reference reads, whatever the block looks like."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd import limits
from dsdbd.model import line_protocol
from dsdbd.model.line_protocol_bulk import read_bulk
from dsdbd.model.line_protocol_forms import form_of
from dsdbd.model.line_protocol_lines import Lines
from dsdbd.model.line_protocol_marks import find_marks
from dsdbd.model.spans import encode_spans, read_floats, read_integers, take_spans
from dsdbd.model.times import MAX_TIME_NS
from dsdbd.model.types import FieldType
from tests.examples import examples
from tests.line_protocol.test_line_protocol_blocks import body_of, check, mutate, mutations


@pytest.fixture(autouse=True, scope="module")
def short_bodies_too() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_protocol, "_MIN_BULK_BYTES", 1)
        yield


@settings(deadline=None, max_examples=examples(60))
@given(st.sampled_from(["uniform", "mixed", "hard"]), st.integers(0, 1 << 32), mutations, st.integers(1, 60))
def test_bodies_read_as_their_lines_do(kind: str, seed: int, changes: list[tuple[float, str, str]], rows: int) -> None:
    check(mutate(body_of(kind, seed, rows), changes).encode())


@settings(deadline=None, max_examples=examples(120))
@given(st.lists(st.text('a=1"\\ ,', max_size=12), max_size=8), st.booleans())
def test_quotes_and_backslashes_anywhere(middles: list[str], ended: bool) -> None:
    lines = [f'm a="{middle}" 5' if row % 2 else f"m {middle}" for row, middle in enumerate(middles)]
    good = ['m,t=1 a="x",b=2 7', "m,t=2 b=3i 8"] * 6
    check(("\n".join(good[:6] + lines + good[6:]) + "\n" * ended).encode())


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.text("0123456789.-+eExXniaft\"'_", min_size=1, max_size=8), min_size=1, max_size=6))
def test_values_of_any_characters(values: list[str]) -> None:
    good = [f"m,t=1 v={row}.5 {row}" for row in range(8)]
    for value in values:
        check("\n".join([*good, f"m,t=1 v={value} 9", f"n v={value}", *good]).encode())
        check("\n".join([*good, f"m,t=1 v=1 {value}", *good]).encode())


@pytest.mark.parametrize(
    "odd",
    [
        b"m v=+1",
        b"m v=+1e5 7",
        b"m v=0x10i",
        b"m v=-0x10i",
        b"m v=0X1fi 7",
        b"m v=1 0x10",
        b"m v=i",
        b"m v=",
        b"m v= 7",
        b"m v=1,",
        b"m v=1,w",
        b"m v=1=2,w=3=4",
        b"m v=inf",
        b"m v=nan",
        b"m v=1e999",
        b"m v=99999999999999999999i",
        b"m v=-9223372036854775808i",
        b"m v=1 9223372036854775807",
        b"m v=1 -9223372036854775808",
        b'm v="a"b"',
        b'm v="a""b"',
        b'm,t="a b" v=1',
        b'm,t="a" v=1',
        b'm a,b,c="d=e="\nm v=2',
        b'm v="a\nm v=2"',
        b'm v="a\\"b"',
        b'm v="a\\\\"',
        b"m\\ n,t=a\\,b v=1",
        b"m v\\ w=1",
        b"m v=1\\\nm v=2",
        b"m  v=1",
        b"m v=1 ",
        b"m v=1  7",
        b"m \tv=1",
        b" m v=1",
        b" v=1",
        b"# m v=1",
        b"#m v=1",
        b"m time=1",
        b"m v=1,time=2",
        b"m v=1,v=2",
        b"m,time=1 v=1",
        b"m,b=1,a=2 v=1",
        b"m v=1\r",
        b"m v=\xff",
        b"m \xff=1",
        b"m,t=\xc3\xbc v=1",
        b"m v=t,w=1",
        b"m v=1,w=t",
        b"m v=trust",
        b"",
    ],
)
def test_one_odd_line(odd: bytes) -> None:
    good = [b"m,t=%d v=%d.5,w=%d 1" % (row % 3, row, row) for row in range(12)]
    check(b"\n".join([*good[:6], odd, *good[6:]]))
    check(b"\n".join([odd, *good, b""]))
    check(b"\n".join([*good, odd]))


def test_booleans_in_different_places_are_different_forms() -> None:
    lines = [b"m a=%b,b=%b" % pair for pair in ((b"1", b"t"), (b"false", b"2"), (b"T", b"F"), (b"3", b"4")) * 8]
    check(b"\n".join(lines))
    bulk = read_bulk(b"\n".join(lines), MAX_TIME_NS)
    assert bulk is not None
    assert {group.form.types for group in bulk.groups} == {
        (one, other) for one in (FieldType.FLOAT, FieldType.BOOLEAN) for other in (FieldType.FLOAT, FieldType.BOOLEAN)
    }


def test_agents_bodies_are_read_at_once() -> None:
    lines = []
    for host in range(40):
        lines.append(f"cpu,host=h{host} user={host}.25,system=1e-3 1600000000")
        lines.append(f'disk,host=h{host},path=/ free={host}i,mode="rw, noatime=1" 1600000000')
        lines.append(f"up,host=h{host} ok={'true' if host % 3 else 'F'}")
    text = "\n".join(lines).encode()
    check(text)
    bulk = read_bulk(text, MAX_TIME_NS)
    assert bulk is not None and not len(bulk.rest)
    assert sorted((group.measurement, len(group.rows)) for group in bulk.groups) == [
        ("cpu", 40),
        ("disk", 40),
        ("up", 40),
    ]


def test_a_quote_without_partner_is_left_to_others() -> None:
    assert find_marks(b'm v="a\nb" 1\n', 100) is None
    marks = find_marks(b'm v="a b,c=d" 1\nm v=1\n\nm\n', 100)
    assert marks is not None
    assert marks.regular.tolist() == [True, True, False, False]
    assert marks.ends.tolist() == [15, 21, 22, 24]


def test_long_lines_are_not_regular() -> None:
    marks = find_marks(b"m v=1\nm v=1111111\n", 6)
    assert marks is not None and marks.regular.tolist() == [True, False]


@pytest.mark.parametrize("skeleton", [b"", b" ", b"a", b"a=b=", b"a=,", b"a=, b=", b",a=", b"a=i=", b'a"=', b"time="])
def test_what_is_no_form(skeleton: bytes) -> None:
    assert form_of(skeleton, frozenset()) is None


def test_forms() -> None:
    form = form_of(b'a=,b=i,c="",d= ', frozenset({3}))
    assert form is not None and form.timed
    assert form.names == ("a", "b", "c", "d")
    assert form.types == (FieldType.FLOAT, FieldType.INTEGER, FieldType.STRING, FieldType.BOOLEAN)


def test_spans() -> None:
    text = b"..1.5,-2,x,007"
    starts, ends = np.array([2, 6, 11]), np.array([5, 8, 14])
    assert take_spans(text, starts, ends, pa.string()).to_pylist() == ["1.5", "-2", "007"]
    assert read_floats(text, starts, ends).tolist() == [1.5, -2.0, 7.0]
    assert read_integers(text, starts[1:], ends[1:]).tolist() == [-2, 7]
    with pytest.raises(pa.ArrowInvalid):
        read_integers(text, starts, ends)


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.tuples(st.binary(max_size=2), st.binary(max_size=2)), min_size=1, max_size=40))
def test_distinct_stretches(pieces: list[tuple[bytes, bytes]]) -> None:
    text = b"".join(between + stretch for between, stretch in pieces)
    lengths = np.cumsum([[len(between), len(stretch)] for between, stretch in pieces]).reshape(-1, 2)
    codes, distinct = encode_spans(text, lengths[:, 0], lengths[:, 1])
    assert len(set(distinct)) == len(distinct)
    assert [distinct[code] for code in codes.tolist()] == [stretch for _, stretch in pieces]


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.text(' ,="', max_size=6), min_size=1, max_size=10), st.binary(max_size=12))
def test_marks_in_strings_do_not_count(strings: list[str], low: bytes) -> None:
    """Bytes that are looked at like marks and are none stand beside them."""
    odd = bytes(byte for byte in low if byte <= 0x2C and byte not in b'\n\r ",\0')
    quoted = [string.replace('"', "") for string in strings]
    lines = [b'm,t=a%b s="%b",v=%d 5' % (odd, string.encode(), row) for row, string in enumerate(quoted)]
    check(b"\n".join(lines * 3))
    marks = find_marks(b"\n".join(lines), 100)
    assert marks is not None and marks.regular.all()
    assert bytes(marks.kind) == b",= =,= \n" * len(lines)


def test_pieces_of_a_body_hold_about_so_many_lines_and_all_of_them() -> None:
    short = b"m v=1 1\n" * (3 * limits.PARSE_BLOCK_LINES)
    long = b"m,t=%b v=1 1\n" % (b"x" * 5000) * 500
    for body in (short, long, short + long, long + short, short[:-1], b"", b"\n", b"m v=1"):
        lines, pieces = Lines(body), []
        while piece := lines.piece():
            pieces.append(piece)
            lines.skip(piece.count(b"\n"))
        assert b"".join(pieces) == body
        assert lines.number == 1 + body.count(b"\n")
        assert all(piece.endswith(b"\n") for piece in pieces[:-1])
        assert all(len(piece) <= limits.PARSE_BLOCK_BYTES + 1 for piece in pieces)
        if body is short:
            assert max(piece.count(b"\n") for piece in pieces) <= limits.PARSE_BLOCK_LINES


def test_many_forms_of_few_lines_are_read_line_by_line() -> None:
    rare = [b"m,t=1 a%d=%d,b=1" % (row, row) for row in range(100)]
    text = b"\n".join([*rare[:50], *[b"m,t=1 v=%d" % row for row in range(20)], *rare[50:]])
    check(text)
    bulk = read_bulk(text, MAX_TIME_NS)
    assert bulk is not None
    assert [len(group.rows) for group in bulk.groups] == [20]
    assert len(bulk.rest) == 100
