"""Whole bodies against a reference that reads one line at a time: same points, same errors, same order."""

from __future__ import annotations

import random
import threading
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd import limits
from dsdbd.model.line_protocol import parse_lines
from dsdbd.model.line_protocol_keys import KnownKeys
from dsdbd.model.line_protocol_lines import line_blocks, strip_line
from dsdbd.model.line_protocol_patterns import PatternCache
from dsdbd.model.line_protocol_scan import LineProblem, scan_point
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS, PRECISION_NS
from dsdbd.model.types import FieldType
from tests.examples import examples

NOW_NS = 1_700_000_000_123_456_789
TYPES = {float: FieldType.FLOAT, int: FieldType.INTEGER, str: FieldType.STRING, bool: FieldType.BOOLEAN}
KNOWN = {"disk": {"free": FieldType.INTEGER}}


class Outcome(NamedTuple):
    """Rows by measurement in the order of their lines, errors, and conflicts (both: line and reason)."""

    rows: dict[str, list[tuple]]
    errors: list[tuple[int, str]]
    conflicts: list[tuple[int, str]]


# --- the reference


def reference_lines(body: bytes) -> list[tuple[int, bytes]]:
    """Numbered lines, found one byte after the other."""
    lines = []
    at, number = 0, 1
    while at < len(body):
        start = at
        comment = body[start:].split(b"\n", 1)[0].lstrip(b" \t\0")[:1] == b"#"
        while not comment and body[at : at + 1] in (b" ", b"\t", b"\0"):
            at += 1
        in_fields = quoted = False
        equals = commas = 0
        while at < len(body):
            byte = body[at : at + 1]
            if byte == b"\\" and not comment and at + 2 < len(body):
                at += 2
                continue
            if byte == b"\n" and not quoted:
                break
            if byte == b" ":
                in_fields = True
            elif in_fields and not comment:
                if byte == b'"' and equals > commas:
                    quoted = not quoted
                elif not quoted:
                    equals += byte == b"="
                    commas += byte == b","
            at += 1
        line = body[start:at].lstrip(b" \t\0").removesuffix(b"\r")
        if line and not comment:
            lines.append((number, line))
        number += body.count(b"\n", start, at + 1)
        at += 1
    return lines


def reference(body: bytes, precision: str) -> Outcome:
    unit = PRECISION_NS[precision]
    outcome = Outcome({}, [], [])
    fixed: dict[str, dict[str, FieldType]] = {}
    for number, raw in reference_lines(body):
        try:
            try:
                point = scan_point(raw.decode())
            except UnicodeDecodeError as error:
                raise LineProblem(f"invalid UTF-8 at byte {error.start}") from None
            time_ns = NOW_NS // unit * unit if point.time is None else point.time * unit
            if not MIN_TIME_NS <= time_ns <= MAX_TIME_NS:
                raise LineProblem(f"time outside range {MIN_TIME_NS} - {MAX_TIME_NS}")
        except LineProblem as problem:
            outcome.errors.append((number, str(problem)))
            continue
        name = point.series.measurement
        if "time" in dict(point.series.tags):
            reason = f'invalid tag key: input tag "time" on measurement "{name}" is invalid'
            outcome.conflicts.append((number, reason))
            continue
        types = fixed.setdefault(name, dict(KNOWN.get(name, {})))
        fresh: dict[str, FieldType] = {}
        cells = [(key, value) for key, value in point.cells if key != "time"]
        reason = "" if cells else f'invalid field name: input field "time" on measurement "{name}" is invalid'
        for key, value in cells:
            sent = TYPES[type(value)]
            held = types.get(key) or fresh.setdefault(key, sent)
            if held is not sent and not reason:
                reason = (
                    f'field type conflict: input field "{key}" on measurement "{name}" is type {sent.value}, '
                    f"already exists as type {held.value}"
                )
        if reason:
            outcome.conflicts.append((number, reason))
            continue
        types.update(fresh)
        outcome.rows.setdefault(name, []).append((point.series.key(), time_ns, shown(dict(cells))))
    return outcome


def shown(values: dict[str, object]) -> dict[str, str]:
    """Values so that 0.0, -0.0, 0 and False differ."""
    return {key: repr(value) for key, value in values.items()}


def parsed(body: bytes, precision: str) -> tuple[Outcome, int]:
    result = parse_lines(
        body, precision=precision, default_time_ns=NOW_NS, known_types=lambda measurement: KNOWN.get(measurement, {})
    )
    rows: dict[str, list[tuple]] = {}
    for points in result.points:
        assert len(set(points.series)) == len(points.series)
        columns = {key: column.to_arrow().to_pylist() for key, column in points.fields.items()}
        for row in range(len(points)):
            values = {key: cells[row] for key, cells in columns.items() if cells[row] is not None}
            key = points.series[points.series_index[row]]
            rows.setdefault(points.measurement, []).append((key, int(points.time_ns[row]), shown(values)))
        for column in points.fields.values():
            assert column.valid is None or column.valid.any(), "a column without a value"
    errors = [(error.line_number, error.reason) for error in result.errors]
    conflicts = [(conflict.line_number, conflict.reason) for conflict in result.conflicts]
    assert result.rows == sum(map(len, rows.values()))
    outcome = Outcome(rows, errors, conflicts)
    assert (result.error_count, result.conflict_count) >= (len(errors), len(conflicts))
    return outcome, result.columnar_rows


def check(body: bytes, precision: str = "ns") -> int:
    """Compare with the reference; returns how many lines went the fast way."""
    expected = reference(body, precision)
    got, columnar = parsed(body, precision)
    assert got.rows == expected.rows
    assert got.errors == expected.errors[: limits.MAX_REPORTED_LINES]
    assert got.conflicts == expected.conflicts[: limits.MAX_REPORTED_LINES]
    return columnar


# --- bodies

ROWS = 120
"""Lines of one shape that are enough for a pattern to be made for it."""


def number(source: random.Random) -> str:
    kinds = (
        lambda: f"{source.uniform(-100, 100):.3f}",
        lambda: repr(source.uniform(-1e6, 1e6)),
        lambda: str(source.randrange(-5, 100)),
        lambda: f"{source.randrange(100)}.",
        lambda: f".{source.randrange(100)}",
        lambda: f"{source.random():.3e}",
        lambda: repr(source.random() * 10.0 ** source.randrange(-90, 90)),
        lambda: "-0",
    )
    return source.choice(kinds)()


def text(source: random.Random, hard: bool) -> str:
    plain = ["", "ok", "degraded, slow", "a=b c=d", "# no comment", "näher", "日本"]
    odd = ["a\nb", 'say \\"hi\\"', "C:\\\\x", "tab\t", "\r", "x\\y"]
    return '"' + source.choice(plain + odd if hard else plain) + '"'


def uniform_line(source: random.Random, row: int) -> str:
    fields = ",".join(f"usage_{name}={number(source)}" for name in ("user", "system", "idle"))
    return f"cpu,host=h{source.randrange(9)},region=eu {fields} {1_600_000_000_000_000_000 + row}"


def mixed_line(source: random.Random, row: int, hard: bool) -> str:
    time = 1_600_000_000_000_000_000 + source.randrange(-5, 5) * row
    host = source.choice(["a", "b", "ü", "c-d", *(["e\\ f", "g\\,h=i".replace("=", "\\="), "k\\l"] if hard else [])])
    kind = source.randrange(6)
    if kind == 0:
        return uniform_line(source, row)
    if kind == 1:
        full = f",free={source.randrange(-(1 << 62), 1 << 62)}i" if source.random() < 0.7 else ""
        return f"disk,path=/,host={host} used={number(source)}{full},fs={text(source, hard)} {time}"
    if kind == 2:
        return f"net,host={host} up={source.choice(['t', 'F', 'true', 'False'])},in={source.randrange(9)}i"
    if kind == 3:
        return f"log,host={host} message={text(source, hard)},level={text(source, False)} {time}"
    if kind == 4:
        return f"load,host={host} load1={number(source)} {-time}"
    return f"load,host={host} load15={number(source)} {time}"


def body_of(kind: str, seed: int, rows: int) -> str:
    source = random.Random(seed)
    lines = []
    for row in range(rows):
        lines.append(uniform_line(source, row) if kind == "uniform" else mixed_line(source, row, kind == "hard"))
    return "\n".join(lines) + "\n"


ALPHABET = 'm,a=b v1i."\\tTe-+N#_ \r\n\t\0é0'
mutations = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["drop", "double", "swap", "put"]), st.sampled_from(ALPHABET)),
    max_size=8,
)


def mutate(body: str, changes: list[tuple[float, str, str]]) -> str:
    for fraction, change, character in changes:
        at = min(int(fraction * len(body)), len(body) - 2)
        if change == "drop":
            body = body[:at] + body[at + 1 :]
        elif change == "double":
            body = body[: at + 1] + body[at:]
        elif change == "swap":
            body = body[:at] + body[at + 1] + body[at] + body[at + 2 :]
        else:
            body = body[:at] + character + body[at + 1 :]
    return body


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(60))
@given(
    st.sampled_from(["uniform", "mixed", "hard"]), st.integers(0, 1 << 32), mutations, st.sampled_from(["ns", "u", "s"])
)
def test_any_body_reads_as_its_lines_do(
    kind: str, seed: int, changes: list[tuple[float, str, str]], precision: str
) -> None:
    rows = ROWS if kind == "uniform" else 5 * ROWS
    check(mutate(body_of(kind, seed, rows), changes).encode(errors="surrogateescape"), precision)


@settings(deadline=None, max_examples=examples(100))
@given(st.sampled_from(["uniform", "mixed", "hard"]), st.integers(0, 1 << 32), mutations, st.integers(17, 40))
def test_short_bodies_read_as_their_lines_do(
    kind: str, seed: int, changes: list[tuple[float, str, str]], rows: int
) -> None:
    check(mutate(body_of(kind, seed, rows), changes).encode())


@settings(deadline=None, max_examples=examples(300))
@given(st.text('m,a=b1"\\ \n#\r', max_size=60))
def test_lines_end_where_the_reference_ends_them(text: str) -> None:
    body = text.encode()
    found = [
        (number, strip_line(line))
        for block in line_blocks(body)
        for number, line in zip(block.numbers, block.lines, strict=True)
    ]
    assert [(number, line) for number, line in found if line] == reference_lines(body)


# --- that the fast way is the one taken, and what it must leave alone


def uniform(rows: int, **changed: str) -> bytes:
    """Rows of one shape; ``changed`` replaces the line ``row_N``."""
    lines = [f"cpu,host=h{row % 9},region=eu usage_user={row}.5,usage_idle=1 {row}" for row in range(rows)]
    for name, line in changed.items():
        lines[int(name.removeprefix("row_"))] = line
    return "\n".join(lines).encode()


@pytest.mark.parametrize(("kind", "share"), [("uniform", 1.0), ("mixed", 0.9), ("hard", 0.6)])
def test_the_fast_way_is_taken(kind: str, share: float) -> None:
    body = body_of(kind, 7, 10 * ROWS).encode()
    check(body)  # makes the patterns and the keys known
    assert check(body) >= share * 10 * ROWS


def test_new_series_go_the_fast_way_at_once() -> None:
    check(uniform(ROWS))
    lines = [f"cpu,region=eu,host=new{row} usage_user=1,usage_idle={row} 1" for row in range(5 * ROWS)]
    assert check("\n".join(lines).encode()) == 5 * ROWS


def test_escaped_keys_go_the_fast_way_once_they_are_known() -> None:
    hosts = ["a\\ b", "c\\,d", "e\\=f", "g\\ \\,h"]
    lines = [f"cpu,host={hosts[row % 4]},region=eu usage_user={row},usage_idle=1 {row}" for row in range(4 * ROWS)]
    body = "\n".join(lines).encode()
    check(body)
    assert check(body) == 4 * ROWS


def test_windows_line_ends_and_comments_go_along() -> None:
    body = b"# comment\r\n\r\n" + uniform(2 * ROWS).replace(b"\n", b"\r\n") + b"\r\n  # more\r\n"
    check(body)
    assert check(body) == 2 * ROWS


@pytest.mark.parametrize(
    "bad",
    [
        "cpu,host=h1,region=eu usage_user=1.2.3,usage_idle=1 1",
        "cpu,host=h1,region=eu usage_user=1,usage_idle=1 1 1",
        "cpu,host=h1,region=eu usage_user=1,usage_idle=1 9223372036854775807",
        "cpu,host=h1,region=eu usage_user=1,usage_idle=1 -9223372036854775807",
        "cpu,host=h1,region=eu usage_user=1,usage_idle=1 99999999999999999999",
        "cpu,host=h1,region=eu usage_user=1e400,usage_idle=1 1",
        "cpu,host=h1,region=eu usage_user=" + "9" * 400 + ",usage_idle=1 1",
        "cpu,host=h1,region=eu usage_user=-,usage_idle=1 1",
        "cpu,host=h1,region=eu usage_user=1,usage_idle=1e 1",
        "cpu,host=h1,region=eu usage_user=nan,usage_idle=1 1",
        "cpu,host=h1,region=eu usage_user=1,usage_idle=1\\\n 1",
        "cpu,host=h1,region=eu usage_user=1i,usage_idle=1 1",
        "cpu,host=h1,region=eu usage_user=1,usage_user=2 1",
        "cpu,host=h1,region=eu time=1 1",
        "cpu,host=h1,time=eu usage_user=1,usage_idle=1 1",
        "cpu,host=h1,host=h2 usage_user=1,usage_idle=1 1",
        "cpu,host=h1, usage_user=1,usage_idle=1 1",
        "cpu,host=h1,region=eu",
        "cpu,host=h1,region=eu ",
        "cpu,host=h1,region=eu  usage_user=1,usage_idle=1 1",
    ],
)
def test_one_odd_line_among_many(bad: str) -> None:
    check(uniform(ROWS))
    for row in (0, 50, 3 * ROWS - 1):
        assert check(uniform(3 * ROWS, **{f"row_{row}": bad})) >= (0 if "999" in bad else 3 * ROWS - 1)


def test_many_alike_odd_lines() -> None:
    """Lines of one shape that contradict the type of others: the first of them all decides."""
    check(uniform(ROWS))
    lines = uniform(4 * ROWS).split(b"\n")
    for row in range(3, len(lines), 3):
        lines[row] = lines[row].replace(b".5", b"i")
    check(b"\n".join(lines))
    assert check(b"\n".join(lines)) == len(lines)
    assert check(b"\n".join(lines[3:])) == len(lines) - 3
    check(b"\n".join(line.replace(b"cpu,", b"disk,").replace(b"usage_user", b"free") for line in lines))


def test_bytes_that_are_no_text() -> None:
    lines = [b'log,host=a message="\xff",level="x" 1', b'log,host=a\xff message="a",level="x" 1']
    for odd in lines:
        body = [b'log,host=h%d message="m",level="x" %d' % (row, row) for row in range(2 * ROWS)]
        body[5] = odd
        assert reference(b"\n".join(body), "ns").errors
        check(b"\n".join(body))
    fields = b"\n".join(b"log,host=h%d v\xff=1 1" % row for row in range(2 * ROWS))
    check(fields)


def test_sizes_are_checked_in_long_bodies_as_well() -> None:
    text = "x" * (limits.MAX_STRING_BYTES + 1)
    body = [f'log,host=h{row} message="m",level="x" {row}' for row in range(2 * ROWS)]
    body[9] = f'log,host=h9 message="{text}",level="x" 9'
    body[11] = "log,host=" + "y" * limits.MAX_KEY_BYTES + ' message="m",level="x" 9'
    body[13] = f"log v={'1' * (limits.MAX_LINE_BYTES + 1)} 9"
    result = parse_lines("\n".join(body).encode(), precision="ns", default_time_ns=0)
    assert [error.line_number for error in result.errors] == [10, 12, 14]
    assert result.rows == 2 * ROWS - 3


def test_an_escaped_newline_joins_lines_across_blocks() -> None:
    """The first block has no quote; the line that reaches beyond it brings some."""
    filler = "m v=1 1\n" * (limits.PARSE_BLOCK_LINES - 1)
    body = filler + 'm v\\\n=1,s="a,b=c d" 2\n' + 'log,host=a message="x",level="y" 3\n' * 3
    result = parse_lines(body.encode(), precision="ns", default_time_ns=0)
    assert (result.rows, result.error_count) == (limits.PARSE_BLOCK_LINES + 3, 0)
    (points, logs) = result.points
    assert points.fields["s"].to_arrow().to_pylist()[-1] == "a,b=c d"
    assert logs.fields["message"].values.to_pylist() == ["x"] * 3


def test_many_refused_lines_cost_no_call_each() -> None:
    template = b"cpu,host=%d\\ x,region=eu usage_user=1,usage_idle=1 1"
    assert check(b"\n".join(template % row for row in range(5 * ROWS))) == 0


def test_a_body_of_many_blocks() -> None:
    """Strings with newlines lie across the places where the body is cut."""
    lines = []
    for row in range(6_000):
        lines.append(f'log,host=h{row % 50} message="{"a" * 500}\n{"b" * 500}\n",level="x" {row}')
        lines.append(f"cpu,host=h{row % 50} v={row} {row}")
        if row % 1_000 == 999:
            lines.append(f"bad {row}")
    body = "\n".join(lines).encode()
    assert len(body) > 2 * limits.PARSE_BLOCK_BYTES
    result = parse_lines(body, precision="ns", default_time_ns=0)
    assert (result.rows, result.error_count) == (12_000, 6)
    by_name = {points.measurement: points for points in result.points}
    assert by_name["log"].time_ns.tolist() == by_name["cpu"].time_ns.tolist() == list(range(6_000))
    assert set(by_name["log"].fields["message"].values.to_pylist()) == {"a" * 500 + "\n" + "b" * 500 + "\n"}
    numbers = [error.line_number for error in result.errors]
    assert numbers == [4 * (row + 1) + row // 1_000 + 1 for row in range(999, 6_000, 1_000)]


def test_threads_share_what_is_remembered() -> None:
    bodies = [body_of("hard", seed, 2 * ROWS).encode() for seed in range(6)]
    expected = [reference(body, "ns").rows for body in bodies]
    failures: list[int] = []

    def work(start: int) -> None:
        for turn in range(12):
            at = (start + turn) % len(bodies)
            if parsed(bodies[at], "ns")[0].rows != expected[at]:
                failures.append(at)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_what_is_remembered_is_bounded() -> None:
    keys = KnownKeys(max_bytes=20_000)
    for number in range(1_000):
        key = b"m,host=%d" % number
        keys.remember({key: ("m", key)})
        assert keys.lookup([key]) == [("m", key)]
    known = keys.lookup([b"m,host=%d" % number for number in range(1_000)])
    assert 0 < 1_000 - known.count(None) < 50
    keys.remember({b"m,host=%d" % number: ("m", b"x") for number in range(1_000)})
    assert keys.lookup([b"m,host=1"]) == [None]


def test_a_pattern_is_made_when_it_is_worth_it_and_the_oldest_are_dropped() -> None:
    made: list[str] = []
    cache: PatternCache[str, str] = PatternCache(lambda key: made.append(key) or key, lambda _: 10, 30, 100)
    assert cache.get("a", 60) is None
    assert cache.get("a", 60) == "a" and cache.get("a", 1) == "a" and made == ["a"]
    for key in "bcd":
        assert cache.get(key, 100) == key
    assert cache.get("b", 1) == "b" and made == ["a", "b", "c", "d"]
    assert cache.get("a", 1) is None


def test_values_are_those_that_python_reads() -> None:
    source = random.Random(5)
    texts = [number(source) for _ in range(4_000)]
    lines = [f"m v={text},w={text} 1" for text in texts]
    result = parse_lines("\n".join(lines).encode(), precision="ns", default_time_ns=0)
    assert result.columnar_rows == len(lines)
    (points,) = result.points
    expected = np.array([float(text) for text in texts])
    for name in ("v", "w"):
        assert (points.fields[name].values.view(np.int64) == expected.view(np.int64)).all()
