"""Line protocol: what is accepted, what it becomes, and what is said about the rest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd import limits
from dsdbd.errors import RequestError
from dsdbd.model.line_protocol import LineError, Parsed, parse_lines
from dsdbd.model.line_protocol_scan import LineProblem, scan_point
from dsdbd.model.series import Series, parse_key
from dsdbd.model.times import PRECISION_NS
from dsdbd.model.types import FieldType
from tests.examples import examples
from tests.line_text import escape, field_text

NOW_NS = 1_700_000_000_123_456_789


def parse(body: bytes, precision: str = "ns") -> Parsed:
    return parse_lines(body, precision=precision, default_time_ns=NOW_NS)


def rows_of(parsed: Parsed) -> list[tuple]:
    """(series, time, {field: value}) in arrival order per measurement."""
    result = []
    for points in parsed.points:
        columns = {key: column.to_arrow().to_pylist() for key, column in points.fields.items()}
        for row in range(len(points)):
            values = {key: cells[row] for key, cells in columns.items() if cells[row] is not None}
            result.append((parse_key(points.series[points.series_index[row]]), int(points.time_ns[row]), values))
    return result


def one(body: bytes) -> tuple:
    parsed = parse(body)
    assert not parsed.errors and not parsed.conflicts
    (row,) = rows_of(parsed)
    return row


def test_every_value_type() -> None:
    body = b'm,host=a f=1,g=-2.5e3,i=3i,n=-4i,s="x y",t=true,u=F,z=.5,y=1. 7'
    values = {"f": 1.0, "g": -2500.0, "i": 3, "n": -4, "s": "x y", "t": True, "u": False, "z": 0.5, "y": 1.0}
    assert one(body) == (Series("m", (("host", "a"),)), 7, values)


@pytest.mark.parametrize("text", ["t", "T", "true", "True", "TRUE"])
def test_true(text: str) -> None:
    assert one(f"m v={text}".encode())[2] == {"v": True}


@pytest.mark.parametrize("text", ["f", "F", "false", "False", "FALSE"])
def test_false(text: str) -> None:
    assert one(f"m v={text}".encode())[2] == {"v": False}


def test_all_escapes_of_the_guide() -> None:
    body = (
        rb'"measurement\ with\ quotes",tag\ key\ with\ spaces=tag\,value\,with"commas" '
        rb'field_key\\\\="string field value, only \" need be quoted"'
    )
    series, _, values = one(body)
    assert series == Series('"measurement with quotes"', (("tag key with spaces", 'tag,value,with"commas"'),))
    assert values == {r"field_key\\\\": 'string field value, only " need be quoted'}


def test_strings_keep_newlines_commas_and_hashes() -> None:
    parsed = parse(b'm s="a\nb, c=d\n# e" 1\nm s="second" 2\n')
    assert [row[2]["s"] for row in rows_of(parsed)] == ["a\nb, c=d\n# e", "second"]


def test_line_numbers_count_newlines_inside_strings() -> None:
    parsed = parse(b'm s="a\nb" 1\nbad\n')
    assert [error.line_number for error in parsed.errors] == [3]


def test_a_quote_in_a_comment_or_tag_hides_nothing() -> None:
    parsed = parse(b'# it"s a=" comment\n  \t# another\nm,a=b"c v=1 1\nm v=2 2\n')
    assert [row[2] for row in rows_of(parsed)] == [{"v": 1.0}, {"v": 2.0}]


def test_blank_lines_and_windows_line_ends() -> None:
    parsed = parse(b"\r\n\nm v=1 1\r\n \t \nm v=2\r\n\r\n")
    assert [row[1:] for row in rows_of(parsed)] == [(1, {"v": 1.0}), (NOW_NS, {"v": 2.0})]
    assert parsed.rows == 2


@pytest.mark.parametrize(
    "line", [b"m\rn v=1", b"m v\rw=1", b"m v=1\r 1", b"m v=t\r,w=1", b'm v\r="a" 1', b"m v=1 1\r1"]
)
def test_a_carriage_return_elsewhere_is_refused(line: bytes) -> None:
    assert parse(line).error_count == 1
    assert parse(b"m v=1,w=1 1\n" + line).error_count == 1


def test_a_carriage_return_inside_a_string_stays() -> None:
    assert one(b'm s="a\r\nb"')[2] == {"s": "a\r\nb"}


def test_tags_are_sorted_and_times_may_be_negative() -> None:
    assert one(b"m,b=2,a=1 v=1 -5") == (Series("m", (("a", "1"), ("b", "2"))), -5, {"v": 1.0})


@pytest.mark.parametrize(("precision", "unit"), list(PRECISION_NS.items()))
def test_precisions(precision: str, unit: int) -> None:
    rows = rows_of(parse(b"m v=1 3\nm v=2", precision))
    assert [row[1] for row in rows] == [3 * unit, NOW_NS // unit * unit]


def test_unknown_precision() -> None:
    with pytest.raises(RequestError, match='invalid precision "d"'):
        parse(b"m v=1", "d")


def test_time_outside_range_by_precision() -> None:
    (error,) = parse(b"m v=1 9223372036854775807", "h").errors
    assert error.reason == "time outside range -9223372036854775806 - 9223372036854775806"


def test_first_type_wins_and_the_row_is_dropped_whole() -> None:
    parsed = parse(b"m v=1i,w=1 1\nm v=2.5,new=1 2\nm v=3i 3\n")
    assert parsed.rows == 2 and parsed.conflict_count == 1
    assert parsed.conflicts == (
        LineError(
            2,
            "m v=2.5,new=1 2",
            'field type conflict: input field "v" on measurement "m" is type float, already exists as type integer',
        ),
    )
    assert "new" not in parsed.points[0].fields
    assert parsed.points[0].fields["v"].type is FieldType.INTEGER


def test_conflict_within_one_row_and_field_given_twice() -> None:
    parsed = parse(b"m v=1,v=2i 1\nm v=1,v=2 2\n")
    assert parsed.conflict_count == 1
    assert rows_of(parsed) == [(Series("m", ()), 2, {"v": 2.0})]


def test_the_name_time_is_reserved() -> None:
    parsed = parse(b"m time=1 1\nm,time=a v=1 1\nm time=1,v=1 1\n")
    assert [row[2] for row in rows_of(parsed)] == [{"v": 1.0}]
    assert [conflict.reason for conflict in parsed.conflicts] == [
        'invalid field name: input field "time" on measurement "m" is invalid',
        'invalid tag key: input tag "time" on measurement "m" is invalid',
    ]


def test_sizes_are_bounded() -> None:
    longest = "m,t=" + "x" * (limits.MAX_KEY_BYTES - 4)
    assert parse(f"{longest}x v=1".encode()).errors[0].reason == "max key length exceeded: 65536 > 65535"
    # The name of the field and four bytes between count as well.
    assert parse(f"{longest} v=1".encode()).errors[0].reason == "max key length exceeded: 65540 > 65535"
    assert parse(f"{longest[:-5]} v=1".encode()).rows == 1
    assert parse(f"{longest[:-5]} vw=1".encode()).error_count == 1
    text = "x" * limits.MAX_STRING_BYTES
    assert parse(f'm v="{text}"'.encode()).rows == 1
    assert "is too long: 65537 > 65536" in parse(f'm v="{text}y"'.encode()).errors[0].reason
    long_line = b"m " + b",".join(b"f%d=1" % n for n in range(120_000))
    (error,) = parse(long_line).errors
    assert error.reason.startswith("line too long:") and len(error.text) < 300


def test_errors_are_bounded_and_counted() -> None:
    parsed = parse(b"bad\n" * 1_000)
    assert parsed.error_count == 1_000 and len(parsed.errors) == limits.MAX_REPORTED_LINES
    assert parsed.errors[0].message == "unable to parse 'bad': missing fields"


def test_invalid_utf8_names_the_byte() -> None:
    parsed = parse(b"m\xff v=1\nm v=1")
    assert parsed.rows == 1 and parsed.errors[0].reason == "invalid UTF-8 at byte 1"


@pytest.mark.parametrize(
    "text", ["1_0", "inf", "-inf", "nan", "+1", "0x1", "1e", "--1", "١", "1١", "1e400", "1\t", "-", "."]
)
def test_what_python_reads_as_a_number_and_the_protocol_does_not(text: str) -> None:
    parsed = parse(f"m v=1 1\nm v={text} 1\n".encode())
    assert parsed.rows == 1 and parsed.error_count == 1


@pytest.mark.parametrize("text", ["1_0i", "9223372036854775808i", "+1i", "1.0i", "-i", "١i", "1ii", "0" * 5_000 + "1x"])
def test_bad_integers(text: str) -> None:
    parsed = parse(f"m v=1i 1\nm v={text} 1\n".encode())
    assert parsed.rows == 1 and parsed.error_count == 1


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", ["0" * 500_000 + "x", "." + "0" * 500_000 + "x", "1e" + "0" * 500_000 + "x"])
def test_a_number_costs_no_more_than_its_length(text: str) -> None:
    """A pattern that tries every division of the digits would take hours."""
    parsed = parse(f"m v={text}\nm v=1".encode())
    assert parsed.rows == 1 and parsed.errors[0].reason == "invalid number"


def test_integer_limits() -> None:
    row = one(b"m a=9223372036854775807i,b=-9223372036854775808i,c=000000000000000000000000001i")
    assert row[2] == {"a": 2**63 - 1, "b": -(2**63), "c": 1}


# --- properties

names = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0\t\\"), min_size=1, max_size=8)
strings = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**63 - 1)
times = st.integers(-(2**63) + 2, 2**63 - 2)
values = st.one_of(numbers, integers, strings, st.booleans())


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, tuple]:
    measurement = draw(names.filter(lambda name: name[0] not in "# ," and name == name.strip()))
    tags = draw(st.dictionaries(names.filter(lambda name: name != "time"), names, max_size=4))
    fields = draw(st.dictionaries(names.filter(lambda name: name != "time"), values, min_size=1, max_size=4))
    time_ns = draw(times)
    key = escape(measurement, ", ") + "".join(
        f",{escape(name, ', =')}={escape(value, ', =')}" for name, value in draw(st.permutations(list(tags.items())))
    )
    text = ",".join(f"{escape(name, ', =')}={field_text(value)}" for name, value in fields.items())
    # The protocol unescapes a quote in a field key as well; the generator writes it bare, which is the same.
    return f"{key} {text} {time_ns}", (Series(measurement, tuple(sorted(tags.items()))), time_ns, fields)


@settings(deadline=None, max_examples=examples(200))
@given(st.lists(lines(), max_size=5))
def test_what_is_written_is_read(written: list[tuple[str, tuple]]) -> None:
    # One body per line: rows of one body may contradict each other's field types.
    for text, expected in written:
        assert rows_of(parse(text.encode())) == [expected]
    body = "\n".join(text for text, _ in written).encode()
    parsed = parse(body)
    assert parsed.error_count == 0 and parsed.rows + parsed.conflict_count == len(written)


alphabet = st.text('m,a=b v1i."\\tTe-+N#_ \r', max_size=25)


@settings(deadline=None, max_examples=examples(1_000))
@given(alphabet)
def test_the_fast_path_agrees_with_the_scanner(tail: str) -> None:
    """A line behind one that made its key known goes the fast way; it must read as if it came alone."""
    line = "m,a=b v=" + tail
    try:
        expected = scan_point(line.removesuffix("\r"))
    except LineProblem:
        expected = None
    parsed = parse(b"m,a=b zz=1 1\n" + line.encode())
    assert parsed.error_count + parsed.conflict_count + parsed.rows == 2
    if expected is None:
        assert parsed.error_count == 1
    elif parsed.conflict_count == 0:
        series, time_ns, cells = rows_of(parsed)[1]
        assert series == expected.series and cells == dict(expected.cells)
        assert time_ns == (NOW_NS if expected.time is None else expected.time)
        assert all(math.isfinite(value) for value in cells.values() if isinstance(value, float))


@settings(deadline=None, max_examples=examples(500))
@given(st.one_of(st.binary(max_size=60), st.lists(alphabet, max_size=4).map(lambda parts: "\n".join(parts).encode())))
def test_no_body_makes_the_parser_raise(body: bytes) -> None:
    parsed = parse(body)
    assert parsed.rows == sum(len(points) for points in parsed.points)
    assert (parsed.error_count == 0) == (not parsed.errors)


def test_a_type_that_is_known_already_counts_more_than_the_first_row_of_a_body() -> None:
    parsed = parse_lines(
        b'm t="text" 1\nm t=1.5 2\nm t=2i 3\nn t="free" 4',
        precision="ns",
        default_time_ns=0,
        known_types=lambda measurement: {"t": FieldType.FLOAT} if measurement == "m" else {},
    )
    assert {part.measurement: part.time_ns.tolist() for part in parsed.points} == {"m": [2], "n": [4]}
    assert [conflict.line_number for conflict in parsed.conflicts] == [1, 3]
    assert parsed.conflicts[0].reason == (
        'field type conflict: input field "t" on measurement "m" is type string, already exists as type float'
    )
