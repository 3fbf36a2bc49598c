"""JSON that keeps numbers, and the pieces of chunked answers put together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdb_cli.jsontext import Number, decode_documents, encode
from dsdb_cli.results import Series, merge_documents

JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(JSON, st.sampled_from([None, "    "]))
def test_what_is_decoded_is_encoded_with_the_same_meaning_and_the_same_numbers(value: Any, indent: str | None) -> None:
    (document,) = decode_documents(json.dumps(value))
    text = encode(document, indent)
    assert json.loads(text) == value
    assert decode_documents(text) == [document]


@settings(deadline=None)
@given(st.lists(JSON.filter(lambda value: isinstance(value, dict)), max_size=4))
def test_documents_in_a_row_are_all_read(values: list[Any]) -> None:
    for separator in ("\n", "", " \r\n"):
        text = separator.join(json.dumps(value) for value in values)
        assert [json.loads(encode(document)) for document in decode_documents(text)] == values


@pytest.mark.parametrize("text", ["{", "<html>", '{"a":NaN}', '{"a":1}x', "[1,]"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_documents(text)


def test_numbers_keep_their_text() -> None:
    ((number, text),) = decode_documents('[1.50, "1.50"]')
    assert isinstance(number, Number)
    assert not isinstance(text, Number)
    assert encode([number, text]) == '[1.50,"1.50"]'


def test_strings_are_escaped_as_go_does() -> None:
    assert encode("<a&b>\u2028é\n") == '"\\u003ca\\u0026b\\u003e\\u2028é\\n"'


def piece(statement: int, values: list[int], *, partial: bool = False, name: str = "m") -> dict[str, Any]:
    series = {"name": name, "columns": ["v"], "values": [[value] for value in values]}
    if partial:
        series["partial"] = True
    return {"results": [{"statement_id": statement, "series": [series]} | ({"partial": True} if partial else {})]}


def series(name: str, *values: int) -> Series:
    return Series(name, {}, ["v"], [[value] for value in values])


def test_pieces_of_a_series_become_one() -> None:
    response = merge_documents([piece(0, [1], partial=True), piece(0, [2], partial=True), piece(0, [3])])
    assert [result.series for result in response.results] == [[series("m", 1, 2, 3)]]


def test_series_of_a_statement_stay_apart() -> None:
    response = merge_documents([piece(0, [1]), piece(0, [2]), piece(1, [3], name="n")])
    assert [result.series for result in response.results] == [[series("m", 1), series("m", 2)], [series("n", 3)]]


def test_answers_without_statement_ids() -> None:
    documents = [{"results": [{}, {"series": [{"name": "m", "columns": ["v"], "values": [[1]]}]}, {}]}]
    assert [len(result.series) for result in merge_documents(documents).results] == [0, 1, 0]


def test_errors_of_the_request_and_of_statements() -> None:
    assert merge_documents([{"error": "bad"}]).first_error() == "bad"
    assert merge_documents([{"results": [{}, {"error": "worse"}]}]).first_error() == "worse"
    assert merge_documents([piece(0, [1], partial=True), {"error": "cut"}]).first_error() == "cut"
    assert merge_documents([piece(0, [1])]).first_error() is None


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="not an object"):
        merge_documents([[1]])
