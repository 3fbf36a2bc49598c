"""Whether two answers are the same, and what the first difference is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from tests.cluster.daemons import Answer

RELATIVE_TOLERANCE = 1e-12
ABSOLUTE_TOLERANCE = 1e-12
"""Floats out of an aggregate may differ in the last digits: two servers add numbers in another order."""


def same(ours: object, theirs: object, relative: float = RELATIVE_TOLERANCE) -> bool:
    """Equal documents, members in the same order, floats within the tolerance."""
    if isinstance(ours, float) or isinstance(theirs, float):
        numbers = isinstance(ours, int | float) and isinstance(theirs, int | float)
        if not numbers or isinstance(ours, bool) or isinstance(theirs, bool):
            return False
        return math.isclose(ours, theirs, rel_tol=relative, abs_tol=ABSOLUTE_TOLERANCE)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key], relative) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(same(a, b, relative) for a, b in zip(ours, theirs, strict=True))
    return type(ours) is type(theirs) and ours == theirs


def documents(body: bytes) -> list[Any]:
    """The JSON documents of an answer, one per line; anything else as its text.

    Beside the text of an error that a request as a whole got, ours says its ``code``, which InfluxDB does not have.
    """
    try:
        found = [json.loads(text) for text in body.decode().splitlines() if text.strip()]
    except ValueError:
        return [body.decode(errors="replace")]
    return [
        {"error": document["error"]} if isinstance(document, dict) and "code" in document else document
        for document in found
    ]


def same_answer(ours: Answer, theirs: Answer) -> bool:
    """Equal status and equal bodies, but for the last digits of floats."""
    if ours.status != theirs.status:
        return False
    return ours.body == theirs.body or same(documents(ours.body), documents(theirs.body))


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
    """One line that says where two answers part first."""
    if ours.status != theirs.status:
        return f"status {ours.status} {ours.body[:200]!r} theirs {theirs.status} {theirs.body[:200]!r}"
    found = next(_first(documents(ours.body), documents(theirs.body), ""), "")
    return found or f"ours {ours.body[:300]!r} theirs {theirs.body[:300]!r}"
