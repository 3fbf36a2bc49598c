"""docs/reference/http.md names every error code, with its status, and every route."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dsdbd.query  # noqa: F401 - it defines an error of its own
from dsdbd.errors import DSDBError, StartError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "http.md").read_text()
ROUTE = re.compile(r'web\.(get|post|options)\(\s*"([^"]+)"')


def classes(root: type[DSDBError]) -> list[type[DSDBError]]:
    return [root, *(found for child in root.__subclasses__() for found in classes(child))]


# Tests of one worker may have defined errors of their own, others not; those of the backup tool never travel.
KINDS = {
    kind
    for kind in classes(DSDBError)
    if kind.__module__.startswith("dsdbd.") and not kind.__module__.startswith("dsdbd.backup.")
}


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda kind: kind.__name__))
def test_page_names_code_and_status(kind: type[DSDBError]) -> None:
    if issubclass(kind, StartError):
        assert f"`{kind.code}`" in PAGE
    else:
        assert f"| `{kind.code}` | {kind.http_status} |" in PAGE


def test_page_names_every_route() -> None:
    found = 0
    for path in (ROOT / "dsdbd" / "http").glob("*.py"):
        for method, route in ROUTE.findall(path.read_text()):
            found += 1
            named = re.sub(r":[^{}]*(\{[^}]*\})?", "", route)
            pattern = rf"`[^`]*\b{method.upper()}\b[^|]*{re.escape(named)}`"
            assert re.search(pattern, PAGE), f"{method.upper()} {route} of {path.name}"
    assert found > 20
