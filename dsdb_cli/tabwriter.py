"""Columns aligned with tabs, by the elastic tabstop rule of Go's text/tabwriter.

Fixed to the values of InfluxDB's original shell: minimal width 0, tab width 8, padding 1, padding character TAB.
"""

from __future__ import annotations

from collections.abc import Sequence

TAB_WIDTH = 8
PADDING = 1


def align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Text of each line.

    Every cell but a line's last belongs to a column; a column is a block of consecutive lines that have such a cell at
    that place, and ends at the first line that has none. The block is as wide as its longest cell plus one, rounded up
    to whole tabs. A line's last cell is never padded. Lengths count characters, as the original does.
    """
    texts = [""] * len(lines)
    column = 0
    while any(len(line) > column for line in lines):
        start = 0
        while start < len(lines):
            end = start
            while end < len(lines) and len(lines[end]) > column + 1:
                end += 1
            if end == start:
                if len(lines[start]) == column + 1:
                    texts[start] += lines[start][column]
                start += 1
                continue
            longest = max(len(line[column]) for line in lines[start:end])
            tabs = _tabs(longest + PADDING)
            for index in range(start, end):
                cell = lines[index][column]
                texts[index] += cell + "\t" * (tabs - len(cell) // TAB_WIDTH)
            start = end
        column += 1
    return texts


def _tabs(width: int) -> int:
    return -(-width // TAB_WIDTH)
