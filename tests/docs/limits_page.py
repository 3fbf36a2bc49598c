"""Makes docs/reference/limits.md from dsdbd/limits.py: ``python -m tests.docs.limits_page --write``."""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

from dsdbd import limits

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "limits.md"
COMMAND = "python -m tests.docs.limits_page --write"
HEAD = f"""\
# Fixed limits

This page is written by `{COMMAND}` from `dsdbd/limits.py`. What an operator may change is in the
[configuration](config.md) instead.

| limit | value | why |
| --- | --- | --- |
"""
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def rows(source: str) -> list[tuple[str, str]]:
    """Name and reason of each constant, in order; the reason is the text below it."""
    body = ast.parse(source).body
    found: list[tuple[str, str]] = []
    for statement, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.Assign) and isinstance(target := statement.targets[0], ast.Name):
            text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            found.append((target.id, " ".join(str(text).split()).replace("``", "`")))
    return found


def shown(name: str, value: float) -> str:
    """A value with its unit, which the end of the name states."""
    if "BYTES" in name:
        for size, unit in _UNITS:
            if value % size == 0:
                return f"{value // size:,} {unit}"
        return f"{value:,} bytes"
    return f"{value:g} s" if name.endswith("_S") else f"{value:,}"


def page() -> str:
    """The whole page."""
    source = Path(limits.__file__).read_text(encoding="utf-8")
    lines = [f"| `{name}` | {shown(name, getattr(limits, name))} | {why} |" for name, why in rows(source)]
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} instead of printing it")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())


if __name__ == "__main__":
    main()
