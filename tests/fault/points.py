"""The points a campaign writes. Pure: writer and number make the point, and each value says who wrote it.

``unique``: every (series, time) is written once, with times of three days out of order.
``shared``: few cells that all writers overwrite, one of two fields or both at a time.
``doomed``: series that are written and then deleted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

DAY_NS = 86_400 * 10**9
SERIES = 10
CELLS = 600
_BITS = 40
_MIX = 2654435761


def value_of(writer: int, number: int | Int64s) -> int | Int64s:
    """The value of a writer's point: unique in a round."""
    return (writer << _BITS) + number


def split_value(values: Int64s) -> tuple[Int64s, Int64s]:
    """Writers and numbers of values."""
    return values >> _BITS, values & ((1 << _BITS) - 1)


def unique_time_ns(base_ns: int, numbers: Int64s) -> Int64s:
    """Times of a writer's points: each its own, hopping over three days and back and forth within them."""
    swapped = numbers ^ 0x55
    return np.asarray(base_ns + (numbers % 3) * DAY_NS + swapped * 1_000_000, np.int64)


def unique_lines(base_ns: int, writer: int, first: int, rows: int) -> bytes:
    """A batch of line protocol of ``unique``; the numbers are ``first`` to ``first + rows - 1``."""
    numbers = np.arange(first, first + rows, dtype=np.int64)
    times = unique_time_ns(base_ns, numbers)
    start = writer << _BITS
    return "\n".join(
        f"unique,writer=w{writer},s={number % SERIES} value={start + number}i {time_ns}"
        for number, time_ns in zip(numbers.tolist(), times.tolist(), strict=True)
    ).encode()


def shared_cell(numbers: Int64s | int, writer: Int64s | int) -> Int64s | int:
    """The cell that a writer's numbered point overwrites."""
    return ((numbers * 31 + writer * 17) * _MIX >> 7) % CELLS


def shared_fields(number: int) -> tuple[str, ...]:
    """The fields it sets."""
    return (("a",), ("b",), ("a", "b"))[number % 3]


def shared_lines(base_ns: int, writer: int, first: int, rows: int) -> bytes:
    """A batch of line protocol of ``shared``. No cell occurs twice in it by accident of order: the later row wins."""
    lines = []
    for number in range(first, first + rows):
        cell = int(shared_cell(number, writer))
        value = (writer << _BITS) + number
        fields = ",".join(f"{name}={value}i" for name in shared_fields(number))
        lines.append(f"shared,s={cell % 20} {fields} {base_ns + (cell // 20) * 3_600 * 10**9}")
    return "\n".join(lines).encode()


def doomed_lines(base_ns: int, series: int, rows: int) -> bytes:
    """The points of a series that will be deleted."""
    return "\n".join(
        f"doomed,s=d{series} value={number}i {base_ns + (number % 3) * DAY_NS + number * 1000}"
        for number in range(rows)
    ).encode()
