"""Where our answers are meant to differ from those of InfluxDB 1.6.7: the table of ``docs/reference/influxql.md``.

Every entry names its row there by the row's first cell. A difference counts as intended when an entry's pattern is
found in the statement and its check accepts both answers. ``example`` is a statement whose answers really differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.daemons import Answer
from tests.reference.compare import documents, same

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "influxql.md"
HEADING = "## Differences, and why"
Check = Callable[[Answer, Answer], bool]


def anything(ours: Answer, theirs: Answer) -> bool:
    """The pattern alone decides."""
    return True


def _map_rows(document: Any, change: Callable[[list[Any]], list[Any]]) -> Any:
    """A document with the rows of every series replaced."""
    if isinstance(document, dict):
        return {
            key: change(value) if key == "values" and isinstance(value, list) else _map_rows(value, change)
            for key, value in document.items()
        }
    return [_map_rows(part, change) for part in document] if isinstance(document, list) else document


def _same_after(change: Callable[[list[Any]], list[Any]]) -> Check:
    def check(ours: Answer, theirs: Answer) -> bool:
        changed = [_map_rows(documents(answer), change) for answer in (ours, theirs)]
        return ours.status == theirs.status and same(*changed)

    return check


same_but_for_order = _same_after(lambda rows: sorted(rows, key=json.dumps))
"""The same rows, in another order."""
same_times = _same_after(lambda rows: [row[:1] for row in rows])
"""The same times of as many rows."""
same_but_for_times = _same_after(lambda rows: [row[1:2] for row in rows])
"""The same first values, whatever their times and what stands beside them."""


def same_rows_of_each_series(ours: Answer, theirs: Answer) -> bool:
    """The same rows of each series, whatever the order of the series, one of which may come in parts."""
    found = []
    for answer in (ours, theirs):
        rows: dict[str, list[Any]] = {}
        for series in json.loads(answer.body)["results"][0].get("series", []):
            rows.setdefault(json.dumps([series["name"], series.get("tags")]), []).extend(series["values"])
        found.append({key: sorted(rows[key]) for key in sorted(rows)})
    return ours.status == theirs.status == 200 and same(*found)


def theirs_is_no_json(ours: Answer, theirs: Answer) -> bool:
    return b"error calling MarshalJSON" in theirs.body and b"MarshalJSON" not in ours.body


def theirs_panicked(ours: Answer, theirs: Answer) -> bool:
    return b"[panic:" in theirs.body


def both_answer(ours: Answer, theirs: Answer) -> bool:
    """Neither refuses."""
    return ours.status == theirs.status == 200 and b'"error"' not in ours.body + theirs.body


def _rows_of_series(answer: Answer) -> list[str]:
    """Every row with the name and tags of its series, sorted."""
    results = [
        result for document in documents(answer) if isinstance(document, dict) for result in document.get("results", [])
    ]
    return sorted(
        json.dumps([series.get("name"), series.get("tags"), row])
        for result in results
        for series in result.get("series", [])
        for row in series.get("values", [])
    )


def same_series_in_another_order(ours: Answer, theirs: Answer) -> bool:
    """The same rows of the same series, but for the order of either."""
    sides = [[json.loads(row) for row in _rows_of_series(answer)] for answer in (ours, theirs)]
    return ours.status == theirs.status and bool(sides[0]) and same(*sides)


def _without_own_words(text: str) -> str:
    for own in ("DATA, ", "META, ", "REPAIRS, ", "SERVERS, ", "SERVER, "):
        text = text.replace(own, "")
    return text


def same_but_for_own_words(ours: Answer, theirs: Answer) -> bool:
    texts = [_without_own_words(json.dumps(documents(answer))) for answer in (ours, theirs)]
    return ours.status == theirs.status and texts[0] == texts[1]


def refused_only_there(ours: Answer, theirs: Answer) -> bool:
    return b'"error"' in theirs.body and b'"error"' not in ours.body


def refused_only_here(ours: Answer, theirs: Answer) -> bool:
    return b'"error"' in ours.body and b'"error"' not in theirs.body


@dataclass(frozen=True)
class Intended:
    """A row of the table. Without an example, ``proof`` is the test that shows the difference."""

    row: str
    pattern: str = ""
    example: str = ""
    check: Check = anything
    proof: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    def accepts(self, statement: str, ours: Answer, theirs: Answer) -> bool:
        """Tell whether this row explains why two answers differ."""
        if not self.pattern or not re.search(self.pattern, statement, re.IGNORECASE | re.DOTALL):
            return False
        return self.check(ours, theirs)


def rows_of_the_document() -> list[str]:
    """The first cells of the table in the document."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [re.split(r"(?<!\\) \| ", line[2:])[0].strip() for line in rows]
