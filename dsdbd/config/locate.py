"""Line numbers of keys in a TOML text, which the TOML parser does not keep. Good enough for messages, pure."""

from __future__ import annotations

import re

Place = tuple[str, int | None, str]
"""Section, index in an array of tables (None elsewhere), key; a section's own line has the key ``""``."""

_HEADER = re.compile(r"""\s*(\[\[?)\s*["']?([^\[\]"']+?)["']?\s*\]""")
_KEY = re.compile(r"""\s*(?:["']?([A-Za-z0-9_-]+)["']?\s*\.\s*)?["']?([A-Za-z0-9_-]+)["']?\s*=""")


def locate_keys(text: str) -> dict[Place, int]:
    """First line (from 1) of each key and each section header.

    Lines inside multi-line strings may be taken for keys; that can only misplace a message.
    """
    lines: dict[Place, int] = {}
    section: str = ""
    index: int | None = None
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section, index = header[2], None
            if header[1] == "[[":
                index = counts.get(section, 0)
                counts[section] = index + 1
            lines.setdefault((section, index, ""), number)
        elif key := _KEY.match(line):
            place = (key[1], None, key[2]) if key[1] and not section else (section, index, key[2])
            lines.setdefault(place, number)
    return lines
