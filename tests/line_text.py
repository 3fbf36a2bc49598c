"""Line protocol as tests write it: names and values as its documentation says, and nothing of the code under test."""

from __future__ import annotations


def escape(text: str, characters: str = ", =") -> str:
    return "".join("\\" + one if one in characters else one for one in text)


def field_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
