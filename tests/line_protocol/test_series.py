"""Series and their keys."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.errors import CorruptData
from dsdbd.model.line_protocol_scan import scan_point
from dsdbd.model.series import Series, parse_key, series_hash
from tests.examples import examples

texts = st.text("ab,= \\ü", min_size=1, max_size=6).filter(lambda text: not text.endswith("\\"))
many = st.dictionaries(texts, texts, max_size=4)


@settings(deadline=None, max_examples=examples(300))
@given(st.text("m,= ü", min_size=1, max_size=5), many)
def test_a_key_gives_its_series_back_and_is_line_protocol(measurement: str, tags: dict[str, str]) -> None:
    tags = {key: text for key, text in tags.items() if not {key[0], text[0]} & {"\\"}}
    series = Series(measurement, tuple(sorted(tags.items())))
    assert parse_key(series.key()) == series
    assert scan_point(series.key().decode() + " v=1").series == series


def test_the_hash_that_places_series_never_changes() -> None:
    pinned = [17870684844898284943, 9162965487226840583, 16377776492312915268]
    assert [series_hash(key) for key in (b"cpu", b"cpu,host=a", b"m\\ x,k=\xc3\xbc")] == pinned


@pytest.mark.parametrize("key", [b"m,", b"m,a", b"m,=b", b"m,a=", b"\xff"])
def test_other_bytes_are_refused(key: bytes) -> None:
    with pytest.raises(CorruptData, match="not the key of a series"):
        parse_key(key)
