"""The pages name what the program has: every metric, exit code, flag, limit, error code, room and decision."""

from __future__ import annotations

import inspect
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from dsdb_cli.demo import FLAGS as DEMO_FLAGS
from dsdb_cli.options import NODE_COMMANDS, NODE_FLAGS, SERVER_FLAGS, SHELL_FLAGS
from dsdb_cli.texts import HELP
from dsdbd import commands, errors
from dsdbd.errors import DSDBError, StartError, UsageError
from dsdbd.http.metrics import REGISTRY
from tests.docs import limits_page
from tests.docs.readme import REPOSITORY, section

if TYPE_CHECKING:
    from pathlib import Path

DOCS = REPOSITORY / "docs"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")])
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def page(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def part(text: str, title: str) -> str:
    """The part under a heading of any depth, up to the next heading of the same or a lesser depth."""
    found = re.search(rf"^(#+) {re.escape(title)}$(.*)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {title!r}"
    return re.split(rf"^#{{1,{len(found[1])}}} ", found[2], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The first cell of each row of the tables in a text, without headings and rulers."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    return [cell for cell in rows if not re.fullmatch(r"-+", cell)]


def named(cells: list[str]) -> set[str]:
    """What is between backticks in the cells."""
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def error_classes(root: type[DSDBError]) -> list[type[DSDBError]]:
    """The classes of errors.py at and below ``root``."""
    every = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind for kind in every if issubclass(kind, root)]


def anchors(text: str) -> set[str]:
    """The anchors GitHub makes of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_metric_is_described_in_operations() -> None:
    exported = {metric.name for metric in REGISTRY.collect()}
    assert exported, "no metrics"
    assert named(first_cells(part(page("docs/operations.md"), "Metrics"))) == exported


def test_every_label_of_a_metric_is_described() -> None:
    rows = [line for line in part(page("docs/operations.md"), "Metrics").splitlines() if line.startswith("| `")]
    described = {line.split("|")[1].strip(" `"): named([line.split("|")[2]]) for line in rows}
    labels = {metric.describe()[0].name: set(metric._labelnames) for metric in set(REGISTRY._collector_to_names)}
    assert described == labels


def test_every_exit_code_is_described_in_operations() -> None:
    codes = {kind.exit_code for kind in error_classes(StartError)} | {0}
    table = part(page("docs/operations.md"), "Exit codes of the daemon")
    assert {int(cell) for cell in first_cells(table) if cell.isdigit()} == codes


def test_the_exit_codes_that_systemd_does_not_repeat_are_said_so() -> None:
    unit = page("packaging/systemd/dsdb.service")
    (listed,) = re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    rows = part(page("docs/operations.md"), "Exit codes of the daemon").splitlines()
    told = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in rows if re.match(r"\| \d", line)}
    assert {code for code, again in told.items() if again == "no"} == {*listed.split(), "0"}
    assert {code for code, again in told.items() if again == "yes"} == told.keys() - {*listed.split(), "0"}


def test_every_error_code_is_described_in_the_http_reference() -> None:
    path = DOCS / "reference" / "http.md"
    assert path.exists(), "docs/reference/http.md is missing"
    starts = error_classes(StartError)
    wanted = {kind.code for kind in error_classes(DSDBError) if kind not in starts}
    assert wanted - set(re.findall(r"`([a-z_]+)`", path.read_text(encoding="utf-8"))) == set()


def daemon_takes(command: str, flag: str) -> bool:
    try:
        commands.parse([command, f"-{flag}=true"])
    except UsageError:
        return False
    return True


def test_every_flag_of_the_daemon_is_described_for_the_commands_that_take_it() -> None:
    table = part(page("docs/operations.md"), "Flags of the daemon")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `-")]
    described = {row[1].strip(" `").lstrip("-"): named([row[2]]) for row in rows}
    in_help = set(re.findall(r"^  -(\w+)", commands.HELP, re.MULTILINE))
    assert described.keys() == in_help
    for flag, takers in described.items():
        assert takers == {word for word in ("run", "config", "version") if daemon_takes(word, flag)}, flag


@pytest.mark.parametrize(
    ("title", "flags"),
    [("Flags of the shell", SHELL_FLAGS), ("`dsdb demo`", DEMO_FLAGS)],
    ids=["shell", "demo"],
)
def test_every_flag_of_the_shell_is_described(title: str, flags: dict[str, object]) -> None:
    described = named(first_cells(part(page("docs/shell.md"), title)))
    assert described == {f"-{name}" for name in flags}


def test_every_flag_of_status_is_described() -> None:
    text = part(page("docs/shell.md"), "`dsdb status`").split(" Exit status")[0]
    assert set(re.findall(r"`(-\w+)`", text)) == {f"-{name}" for name in SERVER_FLAGS}


def test_every_command_and_flag_of_node_is_described() -> None:
    described = named(first_cells(part(page("docs/shell.md"), "`dsdb node`")))
    assert {name.split()[0] for name in described} == {*NODE_COMMANDS, *(f"-{name}" for name in NODE_FLAGS)}


def test_every_command_of_the_shell_is_described() -> None:
    listed = re.findall(r"^        ([a-z]+(?: size| into)?)\b", HELP.split("Everything else")[0], re.MULTILINE)
    described = " ".join(named(first_cells(part(page("docs/shell.md"), "Commands inside the shell"))))
    assert len(listed) > 10, HELP
    assert [command for command in listed if not re.search(rf"\b{command}\b", described)] == []


def test_the_page_of_limits_is_what_the_program_has() -> None:
    assert page("docs/reference/limits.md") == limits_page.page(), f"run {limits_page.COMMAND}"
    assert [name for name, why in limits_page.rows(page("dsdbd/limits.py")) if not why] == []


def test_the_drawing_of_the_rooms_is_the_contract() -> None:
    (contract,) = [
        contract
        for contract in tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]
    drawing = section(page("ARCHITECTURE.md"), "Rooms and floors").split("```")[1]
    drawn = [re.split(r"\s{2,}", line)[0] for line in drawing.strip().splitlines()]
    assert drawn == contract["layers"]


def test_every_decision_is_in_the_index_and_has_its_parts() -> None:
    decisions = sorted(path for path in (DOCS / "adr").glob("*.md") if path.name != "README.md")
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    linked = LINK.findall(page("docs/adr/README.md"))
    assert linked == [path.name for path in decisions]
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Options", "Choice", "Consequences"]


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_relative_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or not path.exists() or path.suffix != ".md":
            continue
        reached.add(path)
        targets = LINK.findall(path.read_text(encoding="utf-8"))
        waiting += [(path.parent / target.partition("#")[0]).resolve() for target in targets if ":" not in target]
    assert [relative(path) for path in PAGES if path not in reached] == []


def test_the_version_is_in_the_changelog() -> None:
    from dsdbd.version import VERSION

    assert VERSION in page("CHANGELOG.md")


def program_texts() -> str:
    """The daemon's source with texts that were cut into lines put together, and values inside them as dots."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "dsdbd").rglob("*.py")))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    return re.sub(r"\{[^{}\n]*\}", "…", joined)


@pytest.mark.parametrize("title", ["The log", "When a start is refused"])
def test_the_sentences_that_operations_explains_are_the_programs(title: str) -> None:
    texts = program_texts()
    sentences = named(first_cells(part(page("docs/operations.md"), title)))
    assert len(sentences) > 10
    strange = [text for text in sentences if any(piece.strip(" ,[]") not in texts for piece in text.split("…"))]
    assert strange == []


def test_every_measuring_program_is_described() -> None:
    modules = [path for path in (REPOSITORY / "benchmarks").glob("*.py") if path.stem[0] != "_"]
    packages = [path.parent for path in (REPOSITORY / "benchmarks").glob("*/__main__.py")]
    programs = {f"benchmarks.{path.stem}" for path in (*modules, *packages)}
    described = {name for name in named(first_cells(page("docs/benchmarks.md"))) if name.startswith("benchmarks.")}
    assert described == programs
