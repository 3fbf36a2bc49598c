from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.config import Config, load_config, render_config, table
from dsdbd.config.docs import main as docs_main
from dsdbd.config.docs import render_example, render_reference
from dsdbd.config.settings import Kind, Setting, value_to_toml
from tests.config import corpus
from tests.examples import examples

ROOT = Path(__file__).resolve().parents[2]
HOME = {"HOME": "/home/u"}
_TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=12)
_HOSTS = st.sampled_from(["dsdb1", "10.0.0.1", "2001:db8::1", "a.example.org"])
_ADDRESSES = st.builds(
    lambda host, port: f"{host}:{port}", st.sampled_from(["", "h1", "[::1]", "10.1.2.3"]), st.integers(1, 65535)
)


_WITHIN_RULES = {
    ("meta", "enabled"): [True],
    ("meta", "election-timeout"): ["1s", "2.5s", "10s"],
    ("meta", "commit-timeout"): ["50ms", "1.5ms", "10ms"],
    ("meta", "leader-lease-timeout"): ["100ms", "999ms"],
    ("hinted-handoff", "retry-interval"): ["10ms", "1m"],
    ("hinted-handoff", "retry-max-interval"): ["1m", "3h"],
    ("data", "cache-snapshot-memory-size"): [1, "25m"],
    ("data", "cache-max-memory-size"): ["500m", "1g"],
    ("meta", "https-enabled"): [False],
    ("admin", "https-certificate"): ["/c.pem"],
    ("http", "https-certificate"): ["/c.pem"],
    ("opentsdb", "certificate"): ["/c.pem"],
}
"""Values of the settings that have rules between them, so that any mixture of them is accepted."""


def raw_values(section: str, setting: Setting) -> st.SearchStrategy[Any]:
    """Values the setting accepts, as TOML holds them."""
    if (section, setting.key) in _WITHIN_RULES:
        return st.sampled_from(_WITHIN_RULES[section, setting.key])
    low, high = setting.minimum or 0, setting.maximum or 0
    match setting.kind:
        case Kind.BOOLEAN:
            return st.booleans()
        case Kind.INTEGER | Kind.SIZE:
            return st.integers(int(low), int(high))
        case Kind.DURATION:
            return st.integers(round(low * 1e9), round(high * 1e9)).map(lambda nanoseconds: f"{nanoseconds}ns")
        case Kind.ADDRESS:
            return _ADDRESSES
        case Kind.HOST:
            return st.one_of(st.just(""), _HOSTS)
        case Kind.JOIN:
            return st.lists(_HOSTS.filter(lambda host: ":" not in host), max_size=3)
        case Kind.LIST:
            return st.lists(_TEXT, max_size=3)
        case Kind.CHOICE:
            return st.sampled_from(setting.choices)
        case Kind.PATH:
            names = st.text(
                st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=8
            )
            paths = names.map(lambda name: f"/p/{section} {setting.key} {name}")
            return st.one_of(paths, st.just("")) if setting.optional else paths
    return _TEXT


def to_text(raw: object) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, list):
        return "[" + ", ".join(map(to_text, raw)) + "]"
    if isinstance(raw, str):
        return value_to_toml(Setting("x", Kind.STRING, "", ""), raw)
    return repr(raw)


@st.composite
def files(draw: st.DrawFn) -> str:
    lines = []
    for section in table.SECTIONS.values():
        count = draw(st.integers(0, 2)) if section.is_array else 1
        for _ in range(count):
            lines.append(section.title)
            for key, setting in section.settings.items():
                if draw(st.booleans()):
                    lines.append(f"{key} = {to_text(draw(raw_values(section.name, setting)))}")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@settings(max_examples=examples(100), deadline=None)
@given(files())
def test_a_printed_configuration_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"render-{os.getpid()}.conf"
    path.write_text(text, encoding="utf-8")
    check_round_trip(load_config(path, HOME), path)


def check_round_trip(config: Config, path: Path) -> None:
    printed = render_config(config)
    path.write_text(printed, encoding="utf-8")
    again = load_config(path, {})
    assert again == config
    assert again.warnings == ()
    assert render_config(again) == printed


@pytest.mark.parametrize("path", corpus.GOOD, ids=lambda path: path.stem)
def test_every_good_file_survives_printing(path: Path, tmp_path: Path) -> None:
    check_round_trip(corpus.read_case(path).load(), tmp_path / "dsdb.conf")


def test_the_printed_default_holds_every_setting_once() -> None:
    printed = tomli.loads(render_config(load_config(None, HOME)))
    for section in table.SECTIONS.values():
        values = printed[section.name][0] if section.is_array else printed[section.name] if section.name else printed
        assert set(section.settings) <= set(values), section.name


def test_lists_without_entries_are_printed_before_the_first_section(tmp_path: Path) -> None:
    path = tmp_path / "dsdb.conf"
    path.write_text("graphite = []\nudp = []\n")
    printed = render_config(load_config(path, HOME))
    assert printed.index("graphite = []") < printed.index("\n[meta]\n")
    assert "\n[[graphite]]\n" not in printed


def test_the_example_file_is_what_dsdbd_config_packaged_prints() -> None:
    example = (ROOT / "etc" / "dsdb.conf.example").read_bytes()
    assert example.decode() == render_example(), "run: python -m dsdbd.config.docs --write"
    assert b'"/var/lib/dsdb/wal"' in example
    assert load_config(ROOT / "etc" / "dsdb.conf.example", {}).warnings == ()


def test_the_reference_page_is_up_to_date_and_names_every_setting() -> None:
    page = (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    assert page == render_reference(), "run: python -m dsdbd.config.docs --write"
    for section in table.SECTIONS.values():
        for key in section.known:
            assert f"| `{key}` |" in page, (section.name, key)


def test_the_docs_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert docs_main([], tmp_path) == 1
    assert capsys.readouterr().err.count("is not up to date") == 2
    assert docs_main(["--write"], tmp_path) == 0
    assert docs_main([], tmp_path) == 0
    (tmp_path / "etc" / "dsdb.conf.example").write_text("old")
    assert docs_main([], tmp_path) == 1
