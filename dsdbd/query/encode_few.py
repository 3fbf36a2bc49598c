"""Small answers as JSON, row by row through a JSON encoder: quicker than setting up work on whole arrays.

Floats that the encoder writes otherwise than Go does, and strings with characters that only Go escapes, are handed to
it as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from dsdbd.model.columns import Column, Int32s, Int64s
from dsdbd.model.types import FieldType
from dsdbd.query.columns import is_listed, plain_strings
from dsdbd.query.encode_cells import listed_floats, quote, quoted_list, scaled_times
from dsdbd.query.rows import SeriesBlock
from dsdbd.query.zones import offset_texts

FEW_CELLS = 8_000
"""Up to so many values: the work of about a millisecond."""
_FEW_TEXTS = 16
_FEW_TIMES = 16
_MINUTES = [f"{minute // 60:02d}:{minute % 60:02d}:" for minute in range(1440)]
_SECONDS = [f"{second:02d}" for second in range(60)]
_SECOND_NS = 1_000_000_000
_DAY_S = 86_400
_ESCAPED = re.compile("[\x00-\x1f<>&\u2028\u2029]")
"""What Go's encoding/json writes otherwise than the encoder."""
_encode = msgspec.json.Encoder().encode


def few_rows(data: Sequence[Column], time_column: int | None, unit_ns: int | None, timezone: str = "") -> bytes:
    """Rows as JSON arrays with commas between; ``unit_ns`` None writes the times of ``time_column`` as RFC3339."""
    return _encode(_rows(data, time_column, unit_ns, timezone))[1:-1]


def _rows(data: Sequence[Column], time_column: int | None, unit_ns: int | None, timezone: str) -> list[tuple[Any, ...]]:
    cells = [
        _times(column.values, unit_ns, timezone) if position == time_column else _cells(column)
        for position, column in enumerate(data)
    ]
    return list(zip(*cells, strict=True))


def few_block(block: SeriesBlock, unit_ns: int | None) -> bytes:
    """The JSON objects of a block's series, with commas between them."""
    rows = _rows(block.data, 0, unit_ns, block.timezone)
    starts = block.starts.tolist()
    bounds = zip(starts, [*starts[1:], len(rows)], strict=True)
    return b"},".join([head + _encode(rows[a:b]) for head, (a, b) in zip(_heads(block), bounds, strict=True)]) + b"}"


def _heads(block: SeriesBlock) -> Iterable[bytes]:
    """What stands before the rows of each series."""
    groups = block.groups
    names = _quoted(groups.names, groups.name_codes[block.group])
    end = f'"columns":[{",".join(map(quote, block.columns))}],"values":'
    if not block.dimensions:
        return [f'{{"name":{name},{end}'.encode() for name in names]
    places = {key: position for position, key in enumerate(block.dimensions)}
    keys = sorted(places)
    tags = [_quoted(groups.texts[places[key]], groups.codes[places[key]][block.group]) for key in keys]
    before = [f"{quote(key)}:" for key in keys]
    return [
        f'{{"name":{name},"tags":{{{",".join(map("".join, zip(before, texts, strict=True)))}}},{end}'.encode()
        for name, *texts in zip(names, *tags, strict=True)
    ]


def _quoted(texts: Any, codes: Int32s) -> Iterator[str]:
    if len(texts) <= len(codes) + _FEW_TEXTS:
        known = list(map(quote, texts.to_pylist()))
        return map(known.__getitem__, codes.tolist())
    return map(quote, texts.take(pa.array(codes)).to_pylist())


def _cells(column: Column) -> list[Any]:
    """What the encoder is given for each value."""
    found: list[Any]
    if column.type is FieldType.STRING:
        found = plain_strings(column).values.to_pylist()
        if is_listed(column):
            found = [msgspec.Raw(quoted_list(texts).encode()) for texts in found]
        elif _ESCAPED.search("".join(filter(None, found))):
            found = [None if text is None else msgspec.Raw(quote(text).encode()) for text in found]
    elif column.type is FieldType.FLOAT:
        found = listed_floats(column.values)
    else:
        found = column.values.tolist()
    if column.valid is None:
        return found
    return [value if valid else None for value, valid in zip(found, column.valid.tolist(), strict=True)]


def _times(times_ns: Int64s, unit_ns: int | None, timezone: str) -> list[Any]:
    if unit_ns is not None:
        scaled: list[int] = scaled_times(times_ns, unit_ns).tolist()
        return scaled
    if timezone:
        times_ns, ends = offset_texts(timezone, times_ns)
        return [
            time.removesuffix("Z") + end.decode()
            for time, end in zip(_times(times_ns, None, ""), ends.tolist(), strict=True)
        ]
    if len(times_ns) > _FEW_TIMES:
        return _many_times(times_ns)
    seconds = times_ns // _SECOND_NS
    moments: list[str] = np.datetime_as_string(seconds.view("M8[s]")).tolist()
    fractions = (times_ns - seconds * _SECOND_NS).tolist()
    if not any(fractions):
        return [moment + "Z" for moment in moments]
    return [
        f"{moment}.{fraction:09d}".rstrip("0") + "Z" if fraction else moment + "Z"
        for moment, fraction in zip(moments, fractions, strict=True)
    ]


def _many_times(times_ns: Int64s) -> list[str]:
    """The same for many times, of which several are of one day, and the same may be in many series."""
    listed: list[int] = times_ns.tolist()
    distinct = list(dict.fromkeys(listed))
    if len(distinct) * 2 > len(listed):
        return _moments(times_ns)
    texts = dict(zip(distinct, _moments(np.array(distinct, dtype=np.int64)), strict=True))
    return [texts[time] for time in listed]


def _moments(times_ns: Int64s) -> list[str]:
    seconds = times_ns // _SECOND_NS
    days = seconds // _DAY_S
    second = seconds - days * _DAY_S
    minutes = second // 60
    day_list: list[int] = days.tolist()
    names = {day: f"{np.datetime64(day, 'D')}T" for day in dict.fromkeys(day_list)}
    parts = zip(day_list, minutes.tolist(), (second - minutes * 60).tolist(), strict=True)
    fractions = times_ns - seconds * _SECOND_NS
    if not fractions.any():
        return [f"{names[day]}{_MINUTES[minute]}{_SECONDS[second]}Z" for day, minute, second in parts]
    return [
        f"{names[day]}{_MINUTES[minute]}{_SECONDS[second]}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"
        for (day, minute, second), fraction in zip(parts, fractions.tolist(), strict=True)
    ]
