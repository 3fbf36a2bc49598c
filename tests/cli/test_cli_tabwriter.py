"""The alignment rule: golden tables, and every table against the rule written down a second time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dsdb_cli.tabwriter import align

CELL = st.text(alphabet="abcé ", max_size=20)
FULL_CELL = st.text(alphabet="abcé ", min_size=1, max_size=20)
LINES = st.lists(st.lists(CELL, min_size=1, max_size=5), max_size=12)


def by_the_rule(lines: list[list[str]]) -> list[str]:
    """Go's recursive formulation: a block of column n is looked at again, inside itself, for column n + 1."""
    out = [""] * len(lines)

    def block(start: int, end: int, widths: list[int]) -> None:
        column = len(widths)
        index = start
        while index < end:
            if len(lines[index]) - 1 <= column:
                emit(index, widths)
                index += 1
                continue
            stop = index
            width = 0
            while stop < end and len(lines[stop]) - 1 > column:
                width = max(width, len(lines[stop][column]) + 1)
                stop += 1
            block(index, stop, [*widths, width])
            index = stop

    def emit(index: int, widths: list[int]) -> None:
        for column, cell in enumerate(lines[index]):
            out[index] += cell
            if column < len(lines[index]) - 1:
                target = (widths[column] + 7) // 8 * 8
                out[index] += "\t" * ((target - len(cell) + 7) // 8)

    block(0, len(lines), [])
    return out


@settings(deadline=None)
@given(LINES)
def test_equals_the_recursive_rule(lines: list[list[str]]) -> None:
    assert align(lines) == by_the_rule(lines)


@settings(deadline=None)
@given(
    st.integers(2, 5).flatmap(lambda n: st.lists(st.lists(FULL_CELL, min_size=n, max_size=n), min_size=1, max_size=9))
)
def test_columns_of_a_full_table_begin_at_the_same_place(rows: list[list[str]]) -> None:
    texts = align(rows)
    for column in range(1, len(rows[0])):
        places = set()
        for text, row in zip(texts, rows, strict=True):
            place = 0
            for cell in row[:column]:
                place += len(cell)
                text = text[len(cell) :]
                while text.startswith("\t"):
                    text = text[1:]
                    place = (place // 8 + 1) * 8
            places.add(place)
        assert len(places) == 1


def test_a_line_without_the_cell_ends_the_block() -> None:
    assert align([["name: x"], ["a", "b"], ["a long cell", "b"], ["plain"], ["c", "d"]]) == [
        "name: x",
        "a\t\tb",
        "a long cell\tb",
        "plain",
        "c\td",
    ]


def test_width_counts_one_more_than_the_longest_cell() -> None:
    assert align([["1234567", "x"], ["", "x"]]) == ["1234567\tx", "\tx"]
    assert align([["12345678", "x"], ["", "x"]]) == ["12345678\tx", "\t\tx"]
