"""Rules about the source itself that no linter checks."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PRODUCT = sorted(path for root in ("dsdbd", "dsdb_cli") for path in (REPOSITORY / root).rglob("*.py"))
TESTS = sorted(path for root in ("tests", "benchmarks") for path in (REPOSITORY / root).rglob("*.py"))
TEST_MODULES = sorted((REPOSITORY / "tests").rglob("test_*.py"))
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

# Rooms that decide. Time, randomness and whatever is read arrive there as arguments.
PURE_ROOMS = (
    "dsdbd/model/**/*.py",
    "dsdbd/influxql/**/*.py",
    "dsdbd/meta/state*.py",
    "dsdbd/meta/apply*.py",
    "dsdbd/meta/commands.py",
    "dsdbd/meta/placement.py",
    "dsdbd/meta/balance.py",
    "dsdbd/meta/join.py",
    "dsdbd/query/plan*.py",
    "dsdbd/query/slic*.py",
    "dsdbd/query/answer.py",
    "dsdbd/backup/flags.py",
    "dsdbd/cluster/archive.py",
    "dsdbd/cluster/restored.py",
    "dsdbd/cluster/routing.py",
    "dsdbd/cluster/acks.py",
    "dsdbd/cluster/breaker.py",
    "dsdbd/cluster/contact.py",
    "dsdbd/cluster/way.py",
    "dsdbd/cluster/hybrid_clock.py",
    "dsdbd/cluster/parcels.py",
    "dsdbd/cluster/pieces.py",
    "dsdbd/cluster/repair_plan.py",
    "dsdbd/cluster/repair_progress.py",
    "dsdbd/cluster/running.py",
    "dsdbd/services/groups.py",
    "dsdbd/services/copies.py",
    "dsdbd/services/resampling.py",
    "dsdbd/services/lanes.py",
)
IMPURE_MODULES = {"asyncio", "socket", "os", "time", "random", "aiohttp", "structlog"}
DANGEROUS_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill"}
DANGEROUS_CALLS = {"eval", "exec"}

# A letter in brackets, so that this file passes its own check.
FORBIDDEN_TEXT = {
    "a note of unfinished work": re.compile(r"\b([T]ODO|[F]IXME|[X]XX)\b"),
    "a path of one machine": re.compile(r"(?<![\w.$})/-])/([w]ork|[r]oot|[t]mp/brief)(?![\w-])"),
    "the address of a package index": re.compile(
        r"[p]ypi\.org|[p]ythonhosted\.org|/[s]imple/|(extra-)?[i]ndex-url|[P]IP_INDEX|[d]eb\.debian\.org"
    ),
}


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def tracked_files() -> list[Path]:
    """Return every file under version control, or, without version control, every file of the project's directories."""
    if (REPOSITORY / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
        paths = [REPOSITORY / name for name in listed.decode().split("\0") if name]
    else:
        roots = ("dsdbd", "dsdb_cli", "tests", "docs", "etc", "packaging", ".ci")
        paths = [path for root in roots for path in (REPOSITORY / root).rglob("*") if "__pycache__" not in path.parts]
        paths += [path for path in REPOSITORY.iterdir() if path.is_file()]
    return [path for path in paths if path.is_file()]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported_modules(tree: ast.AST) -> set[str]:
    """Return the top-level names of all absolute imports, wherever they stand in the file."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def long_functions(tree: ast.AST) -> list[str]:
    lengths = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions(tree)]
    return [f"{name}: {lines} lines" for name, lines in lengths if lines > MAX_FUNCTION_LINES]


def dangers(tree: ast.AST) -> list[str]:
    calls = [
        f"{node.func.id}() in line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DANGEROUS_CALLS
    ]
    return calls + sorted(imported_modules(tree) & DANGEROUS_MODULES)


def unguarded_decoders(tree: ast.AST) -> list[str]:
    """Uses of the decoding library that build what it knows of a type, beside those in dsdbd/decoding.py."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        typed = any(keyword.arg == "type" for keyword in node.keywords) or bool(node.args)
        makes = called in ("msgspec.json.Decoder", "msgspec.msgpack.Decoder") and typed
        decodes = called in ("msgspec.json.decode", "msgspec.msgpack.decode") and len(node.args + node.keywords) > 1
        if makes or decodes or called == "msgspec.convert":
            found.append(f"{called}() in line {node.lineno}")
    return found


def checks_something(tree: ast.AST) -> bool:
    """Tell whether there is an assertion, or a call of pytest.raises, pytest.warns or pytest.fail."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            return True
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "pytest"
            and node.attr in {"raises", "warns", "fail"}
        ):
            return True
    return False


@pytest.mark.parametrize("path", PRODUCT, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    assert long_functions(ast.parse(text)) == []


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_files_of_tests_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", PRODUCT, ids=relative)
def test_decoders_are_made_one_at_a_time(path: Path) -> None:
    daemon = path.is_relative_to(REPOSITORY / "dsdbd") and path.name != "decoding.py"
    assert not daemon or unguarded_decoders(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", PRODUCT, ids=relative)
def test_nothing_received_is_unpickled_or_evaluated(path: Path) -> None:
    assert dangers(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "path", sorted({path for pattern in PURE_ROOMS for path in REPOSITORY.glob(pattern)}), ids=relative
)
def test_what_decides_does_no_input_or_output(path: Path) -> None:
    assert imported_modules(ast.parse(path.read_text(encoding="utf-8"))) & IMPURE_MODULES == set()


def test_no_tracked_file_holds_forbidden_text() -> None:
    found = []
    for path in tracked_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # not text
        found += [
            f"{relative(path)}:{number}: {what}: {line.strip()[:100]}"
            for number, line in enumerate(lines, 1)
            for what, pattern in FORBIDDEN_TEXT.items()
            if pattern.search(line)
        ]
    assert found == []


@pytest.mark.parametrize("path", TEST_MODULES, ids=relative)
def test_every_test_file_can_fail(path: Path) -> None:
    assert checks_something(ast.parse(path.read_text(encoding="utf-8")))


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in TEST_MODULES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("source", "check", "caught"),
    [
        ("def f():\n" + "    pass\n" * 60, long_functions, True),
        ("def f():\n" + "    pass\n" * 59, long_functions, False),
        ("async def f():\n" + "    pass\n" * 60, long_functions, True),
        ("import pickle", dangers, True),
        ("def f():\n    from pickle import loads", dangers, True),
        ("eval('1')", dangers, True),
        ("connection.exec('x')", dangers, False),
        ("msgspec.json.decode(data, type=X)", unguarded_decoders, True),
        ("msgspec.msgpack.Decoder(X)", unguarded_decoders, True),
        ("msgspec.json.decode(data)", unguarded_decoders, False),
        ("decode_json(data, X)", unguarded_decoders, False),
        ("import os.path", lambda tree: imported_modules(tree) & IMPURE_MODULES, True),
        ("from dsdbd.model import time", lambda tree: imported_modules(tree) & IMPURE_MODULES, False),
        ("def test_x():\n    with pytest.raises(ValueError):\n        f()", checks_something, True),
        ("def test_x():\n    f()", checks_something, False),
    ],
)
def test_the_checks_catch_what_they_are_for(source: str, check: object, caught: bool) -> None:
    assert callable(check)
    assert bool(check(ast.parse(source))) is caught


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("# TO" + "DO: later", True),
        ("mktemp x.X" + "X" * 5, False),
        ("cd /wo" + "rk/main", True),
        ("see /ro" + "ot for it", True),
        ("var/wo" + "rk/main and /wo" + "rkers", False),
        ("--index" + "-url x", True),
        ("simple/", False),
    ],
)
def test_the_patterns_catch_what_they_are_for(text: str, caught: bool) -> None:
    assert any(pattern.search(text) for pattern in FORBIDDEN_TEXT.values()) is caught
