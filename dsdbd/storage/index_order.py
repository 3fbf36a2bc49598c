"""Order of series by their keys, found from codes: no key is built and no Python object compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsdbd.model.columns import Int32s, Int64s
from dsdbd.storage.index_shapes import Shape
from dsdbd.storage.index_texts import key_parts, large_text

_WORD = 1 << 62
"""Ranks of several tags are packed into one integer as long as it stays below."""


@dataclass(frozen=True, slots=True)
class Group:
    """Series of one shape among those to be ordered: int64[n] positions among them, and rows of the shape."""

    shape: Shape
    positions: Int64s
    rows: Int64s


def can_order(groups: Sequence[Group]) -> bool:
    """Whether the ranks of single values give the order of keys: not with backslashes in values."""
    return not any(dictionary.has_backslash for group in groups for dictionary in group.shape.dictionaries) and (
        len({group.shape.prefix for group in groups}) <= 1
    )


def key_order(groups: Sequence[Group], count: int) -> Int64s:
    """Positions of ``count`` series in the order of their keys; needs ``can_order``."""
    words: list[Int64s] = []
    size = _WORD
    for place in range(max((len(group.shape.names) for group in groups), default=0)):
        there = [group for group in groups if place < len(group.shape.names)]
        if len(groups) == 1:
            ranks, most = _ranks_of_one(groups[0], place, count)
        else:
            ranks, most = _ranks_of_many(there, place, count)
        if most <= 1:
            continue
        if size * most >= _WORD:
            words.append(ranks.astype(np.int64))
            size = most
        else:
            words[-1] = words[-1] * most + ranks
            size *= most
    if not words:
        return np.arange(count, dtype=np.int64)
    return np.argsort(words[0], kind="stable") if len(words) == 1 else np.lexsort(words[::-1])


def _ranks_of_one(group: Group, place: int, count: int) -> tuple[Int64s, int]:
    """Rank of each series' value of a tag, and the number of ranks, where all series are of one shape."""
    dictionary = group.shape.dictionaries[place]
    codes = group.shape.codes[place].view()[group.rows]
    last = place == len(group.shape.names) - 1
    ranks: Int64s = np.empty(count, dtype=np.int64)
    if count * 2 > len(dictionary):
        whole = dictionary.ranks(last=last)
        ranks[group.positions] = whole[codes]
        return ranks, len(whole)
    used, dense = _used(codes, len(dictionary))
    order = np.asarray(pc.sort_indices(key_parts(dictionary, dictionary.texts().take(used), last=last)))
    by_code = np.empty(len(order), dtype=np.int64)
    by_code[order] = np.arange(len(order))
    ranks[group.positions] = by_code[dense]
    return ranks, len(used)


def _ranks_of_many(groups: Sequence[Group], place: int, count: int) -> tuple[Int64s, int]:
    """The same for series of several shapes; 0 for those that have no tag at this place, which come first."""
    texts, denses = [], []
    for group in groups:
        dictionary = group.shape.dictionaries[place]
        used, dense = _used(group.shape.codes[place].view()[group.rows], len(dictionary))
        last = place == len(group.shape.names) - 1
        values = key_parts(dictionary, dictionary.texts().take(used), last=last)
        literal = group.shape.literals[place] if place else group.shape.literals[0][len(group.shape.prefix) :]
        texts.append(pc.binary_join_element_wise(large_text(literal), values, large_text("")))
        denses.append(dense)
    tokens = pa.concat_arrays(texts)
    order = np.asarray(pc.sort_indices(tokens))
    in_order = tokens.take(pa.array(order))
    differs = pc.not_equal(in_order[1:], in_order[:-1]).to_numpy(zero_copy_only=False)
    rank_of = np.empty(len(order), dtype=np.int64)
    rank_of[order] = np.concatenate([np.ones(1, dtype=np.int64), 1 + np.cumsum(differs, dtype=np.int64)])
    ranks: Int64s = np.zeros(count, dtype=np.int64)
    base = 0
    for group, text, dense in zip(groups, texts, denses, strict=True):
        ranks[group.positions] = rank_of[base + dense]
        base += len(text)
    return ranks, int(ranks.max(initial=0)) + 1


def _used(codes: Int32s, size: int) -> tuple[Int64s, Int64s]:
    """The distinct codes, ascending, and for each entry the position of its code among them."""
    marks = np.zeros(size, dtype=np.bool_)
    marks[codes] = True
    used = np.flatnonzero(marks)
    places = np.empty(size, dtype=np.int64)
    places[used] = np.arange(len(used))
    return used, places[codes]
