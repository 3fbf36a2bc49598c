"""Whether two answers are the same, and what the first difference is."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from typing import Any

from tests.cluster.daemons import Answer

RELATIVE_TOLERANCE = 1e-12
ABSOLUTE_TOLERANCE = 1e-12
"""Floats out of an aggregate may differ in the last digits: two servers add numbers in another order."""
EXACT_INTEGERS = 2**53
"""Above, a float is printed as an integer that ends with zeros."""


def _same_numbers(ours: float, theirs: float) -> bool:
    if isinstance(ours, int) and isinstance(theirs, int):
        rounded = ours % 10 == theirs % 10 == 0 and min(abs(ours), abs(theirs)) > EXACT_INTEGERS
        return ours == theirs or (rounded and math.isclose(ours, theirs, rel_tol=RELATIVE_TOLERANCE))
    return math.isclose(ours, theirs, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)


def same(ours: object, theirs: object) -> bool:
    """Equal documents, members in the same order, floats within the tolerance."""
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return _same_numbers(ours, theirs)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    return type(ours) is type(theirs) and ours == theirs


def _json(text: str) -> list[Any]:
    """The documents of a text: one, or one per chunk."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        found.append(document)
        while position < len(text) and text[position].isspace():
            position += 1
    return found


def _cell(text: str) -> object:
    """A cell of CSV: numbers as numbers, so that the tolerance counts there too."""
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:
        return text


def documents(answer: Answer) -> list[Any]:
    """What an answer holds: JSON documents, rows of CSV, or its text.

    Beside the text of an error that a request as a whole got, ours says its ``code``, which InfluxDB does not have.
    """
    text = answer.body.decode(errors="replace")
    if answer.headers.get("Content-Type", "").startswith("text/csv"):
        return [[_cell(cell) for cell in row] for row in csv.reader(text.splitlines())]
    try:
        found = _json(text.strip())
    except ValueError:
        return [text]
    return [
        {"error": document["error"]} if isinstance(document, dict) and "code" in document else document
        for document in found
    ]


def same_answer(ours: Answer, theirs: Answer) -> bool:
    """Equal status and equal bodies, but for the last digits of floats."""
    if ours.status != theirs.status:
        return False
    return ours.body == theirs.body or same(documents(ours), documents(theirs))


def _first(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    if same(ours, theirs):
        return
    if isinstance(ours, dict) and isinstance(theirs, dict) and list(ours) == list(theirs):
        for key in ours:
            yield from _first(ours[key], theirs[key], f"{path}.{key}" if path else key)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from _first(a, b, f"{path}[{number}]")
    else:
        yield f"{path}: ours {_short(ours)} theirs {_short(theirs)}"


def _short(value: Any, length: int = 300) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"


def difference(ours: Answer, theirs: Answer) -> str:
    """One line that says where two answers part first; empty for equal ones."""
    if same_answer(ours, theirs):
        return ""
    if ours.status != theirs.status:
        return f"status {ours.status} {ours.body[:200]!r} theirs {theirs.status} {theirs.body[:200]!r}"
    found = next(_first(documents(ours), documents(theirs), ""), "")
    return found or f"ours {ours.body[:300]!r} theirs {theirs.body[:300]!r}"
