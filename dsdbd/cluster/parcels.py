"""Kept writes of one shard united to one, so that an owner that is back takes hundreds with one request. Pure.

Each row travels with the version of its write, so it is as if the writes had come one by one, in any order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dsdbd.errors import CorruptData
from dsdbd.model.columns import Batch, Points, concat_columns, decode_batch, encode_batch
from dsdbd.storage import Record, RecordKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsdbd.storage import ShardKey

MOST_BYTES = 64 << 10
"""Of a record that is united with others: larger ones cost little for what they bring."""
MOST_PARCELS = 16
"""On their way at a time."""


class Parcel(NamedTuple):
    """What one request brings: ``record``, made of those at ``places`` among those that were given."""

    places: tuple[int, ...]
    record: Record


def make_parcels(records: Sequence[Record], most: int) -> list[Parcel]:
    """The first of some records, ``most`` of them or somewhat less, for as few requests as possible."""
    alone: list[Parcel] = []
    found: dict[ShardKey, list[tuple[int, Batch]]] = {}
    for place, record in enumerate(records[:most]):
        batch = _small_batch(record) if most > 1 else None
        if (batch is None or record.key not in found) and len(alone) + len(found) >= MOST_PARCELS:
            break
        if batch is None:
            alone.append(Parcel((place,), record))
        else:
            found.setdefault(record.key, []).append((place, batch))
    for key, members in found.items():
        places = tuple(place for place, _ in members)
        payload = (
            encode_batch(unite([batch for _, batch in members])) if len(places) > 1 else records[places[0]].payload
        )
        alone.append(Parcel(places, Record(RecordKind.WRITE, key, payload)))
    return alone


def _small_batch(record: Record) -> Batch | None:
    """The batch of a record that may be united with others."""
    if record.kind is not RecordKind.WRITE or len(record.payload) > MOST_BYTES:
        return None
    try:
        batch = decode_batch(bytes(record.payload))
    except CorruptData:
        return None  # its owner is to say so
    names = {points.measurement for points in batch.points}
    # Rows of the same version count in the order of the batch.
    return batch if len(names) == len(batch.points) else None


def unite(batches: Sequence[Batch]) -> Batch:
    """One batch with the rows of all, each with its version."""
    alike: dict[tuple[object, ...], list[Points]] = {}
    for batch in batches:
        for points in batch.points:
            versions = np.full(len(points), batch.version, np.int64) if points.versions is None else points.versions
            layout = (points.measurement, *((name, column.type) for name, column in points.fields.items()))
            alike.setdefault(layout, []).append(replace(points, versions=versions))
    return Batch(max(batch.version for batch in batches), tuple(map(_one_after_another, alike.values())))


def _one_after_another(parts: Sequence[Points]) -> Points:
    series = dict.fromkeys(key for part in parts for key in part.series)
    numbers = {key: number for number, key in enumerate(series)}
    index = [np.array([numbers[key] for key in part.series], np.int32)[part.series_index] for part in parts]
    return Points(
        parts[0].measurement,
        list(series),
        np.concatenate(index),
        np.concatenate([part.time_ns for part in parts]),
        {name: concat_columns([part.fields[name] for part in parts]) for name in parts[0].fields},
        np.concatenate([part.versions for part in parts if part.versions is not None]),
    )
