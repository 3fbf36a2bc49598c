"""Many series keys as columns of tag values at once, checked against the keys byte by byte."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Int32s, Int64s
from dsdbd.model.series import parse_key
from dsdbd.storage.index_shapes import join_keys, literals

_WORTHWHILE = 32
"""Fewer keys of one shape are parsed one by one."""
_VALUES = re.compile(rb"=[^,]*")
_PARSING = pcsv.ParseOptions(quote_char=False, escape_char=False, double_quote=False, ignore_empty_lines=False)


@dataclass(frozen=True, slots=True)
class ParsedKeys:
    """Keys with the same measurement and tag keys.

    ``prefix``: the escaped measurement. ``names``: tag keys, ascending. ``positions``: int64[n], where in the list
    that was parsed the keys stand. ``columns``: per tag its values, an Arrow ``large_string`` array, and int32[n]
    codes, the positions in it.
    """

    prefix: str
    names: tuple[str, ...]
    positions: Int64s
    columns: tuple[tuple[Any, Int32s], ...]


def parse_uniform(keys: Sequence[bytes]) -> Iterator[ParsedKeys]:
    """Groups of keys of the same shape, those that are many enough; the others are left out."""
    # What a comma ends depends on a backslash before it; without one, a key can be divided at any comma.
    rest: list[int] = []
    if b"\\" not in b"".join(keys):
        rest = list(range(len(keys)))
    else:
        rest = [position for position, key in enumerate(keys) if b"\\" not in key]
    if len(rest) >= _WORTHWHILE:
        parsed = _parse(keys, rest)
        if parsed is not None:
            yield parsed
            rest = np.setdiff1d(np.array(rest, dtype=np.int64), parsed.positions, assume_unique=True).tolist()
    groups: dict[bytes, list[int]] = {}
    for position in rest:
        groups.setdefault(_VALUES.sub(b"", keys[position]), []).append(position)
    for positions in groups.values():
        if len(positions) >= _WORTHWHILE:
            parsed = _parse(keys, positions)
            if parsed is not None:
                yield parsed


def _parse(all_keys: Sequence[bytes], positions: list[int]) -> ParsedKeys | None:
    """Of the keys at some positions those of the shape of the first one; None when that one is no usual key."""
    keys = all_keys if len(positions) == len(all_keys) else [all_keys[position] for position in positions]
    try:
        first = parse_key(keys[0])
    except CorruptData:
        return None
    names = tuple(name for name, _ in first.tags)
    if not names or any(one >= other for one, other in itertools.pairwise(names)):
        return None
    data = b"\n".join(keys)
    columns = _read_values(data, len(keys), len(names))
    if columns is None or any(pc.any(pc.equal(values, "")).as_py() for values, _ in columns):
        return None
    prefix = keys[0].partition(b",")[0].decode()
    # A space without a backslash comes out escaped and differs: what is equal has been parsed rightly.
    checked = [(values, codes, b" " in data) for values, codes in columns]
    built = join_keys(prefix, literals(prefix, names), checked, len(keys)).cast(pa.large_binary())
    same = pc.equal(built, pa.array(keys, pa.large_binary())).to_numpy(zero_copy_only=False)
    where = np.array(positions, dtype=np.int64)
    if same.all():
        return ParsedKeys(prefix, names, where, tuple(columns))
    chosen = np.flatnonzero(same)
    if not len(chosen):
        return None
    return ParsedKeys(prefix, names, where[chosen], tuple((values, codes[chosen]) for values, codes in columns))


def _read_values(data: bytes, count: int, tags: int) -> list[tuple[Any, Int32s]] | None:
    """The values of ``measurement,name=value,name=value`` lines with their codes; None where lines differ in form."""
    data = data.replace(b"=", b",")
    titles = [f"{'value' if place and place % 2 == 0 else 'other'}{place}" for place in range(2 * tags + 1)]
    wanted = titles[2::2]
    try:
        table = pcsv.read_csv(
            pa.BufferReader(data),
            pcsv.ReadOptions(use_threads=False, column_names=titles, block_size=len(data) + 1),
            _PARSING,
            pcsv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.dictionary(pa.int32(), pa.string())),
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != count:
        return None
    columns = []
    for name in wanted:
        column = table.column(name).unify_dictionaries().combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        columns.append((column.dictionary.cast(pa.large_string()), np.asarray(column.indices)))
    return columns
