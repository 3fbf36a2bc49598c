"""The form of a line: names and types of its fields in their order, and whether a time follows."""

from __future__ import annotations

import re

from dsdbd import limits
from dsdbd.model.types import FieldType

_FIELD = rb'[^\x00-\x1f\x7f"\\ ,=]+=(?:i|"")?'
_SKELETON = re.compile(_FIELD + b"(?:," + _FIELD + b")* ?")
_PAIR = re.compile(rb'([^,=]+)=(i|"")?[, ]?')
_KINDS = {b"": FieldType.FLOAT, b"i": FieldType.INTEGER, b'""': FieldType.STRING}


class Form:
    """A form.

    ``skeleton``: what lines of it have in common behind the series, which is everything but numbers, booleans and the
    content of strings. ``booleans`` are the positions of fields whose values are booleans, not floats.
    ``names`` and ``types`` have one entry for each field. Raises UnicodeDecodeError for bad names.
    """

    __slots__ = ("names", "timed", "types")

    def __init__(self, skeleton: bytes, booleans: frozenset[int]) -> None:
        pairs = _PAIR.findall(skeleton)
        self.names = tuple(name.decode() for name, _ in pairs)
        self.types = tuple(
            FieldType.BOOLEAN if place in booleans else _KINDS[kind] for place, (_, kind) in enumerate(pairs)
        )
        self.timed = skeleton.endswith(b" ")


_forms: dict[tuple[bytes, frozenset[int]], Form | None] = {}


def form_of(skeleton: bytes, booleans: frozenset[int]) -> Form | None:
    """The form of lines with this skeleton; None for lines that only the scanner should read."""
    key = skeleton, booleans
    if key in _forms:
        return _forms[key]
    form = _read(skeleton, booleans)
    if len(skeleton) <= limits.MAX_PARSER_FORM_BYTES:
        if len(_forms) >= limits.MAX_PARSER_WANTED:
            _forms.clear()
        _forms[key] = form
    return form


def _read(skeleton: bytes, booleans: frozenset[int]) -> Form | None:
    if _SKELETON.fullmatch(skeleton) is None:
        return None
    try:
        form = Form(skeleton, booleans)
    except UnicodeDecodeError:
        return None
    if "time" in form.names or len(set(form.names)) < len(form.names):
        return None
    return form
