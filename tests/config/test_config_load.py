from __future__ import annotations

import dataclasses
import json
import os
import typing
from operator import attrgetter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.config import PACKAGED_BASE, Config, Flags, load_config, schema, table
from dsdbd.config.load import MAX_FILE_BYTES
from dsdbd.config.settings import Kind, Setting, parse_value
from dsdbd.errors import ConfigError
from tests.config import corpus
from tests.examples import examples

HOME = {"HOME": "/home/u"}


def lookup(config: Config, path: str) -> object:
    if "[" not in path:
        return attrgetter(path)(config)
    name, index, rest = path.replace("]", "[").split("[")
    return attrgetter(rest.removeprefix("."))(getattr(config, name)[int(index)])


@pytest.mark.parametrize("path", corpus.BAD, ids=lambda path: path.stem)
def test_bad_file_gives_exactly_the_expected_lines(path: Path) -> None:
    case = corpus.read_case(path)
    assert case.expect, "a bad file says what it expects"
    with pytest.raises(ConfigError) as caught:
        case.load()
    assert caught.value.message.replace(str(path), "FILE").split("\n") == case.expect
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("path", corpus.GOOD, ids=lambda path: path.stem)
def test_good_file_gives_the_expected_values(path: Path) -> None:
    case = corpus.read_case(path)
    config = case.load()
    for line in case.expect:
        name, _, value = line.partition(" = ")
        assert (name, repr(lookup(config, name))) == (name, value)
    assert len(config.warnings) == len(case.warnings)
    for warning, expected in zip(config.warnings, case.warnings, strict=True):
        assert expected in warning


def test_the_corpus_is_large_and_names_differ() -> None:
    assert len(corpus.BAD) >= 60
    sentences = [tuple(corpus.read_case(path).expect) for path in corpus.BAD]
    assert len(set(sentences)) >= 60


def test_an_empty_file_is_the_default_configuration() -> None:
    empty = next(path for path in corpus.GOOD if path.stem == "empty")
    assert load_config(empty, HOME) == load_config(None, HOME)


def test_defaults_without_a_file() -> None:
    config = load_config(None, HOME)
    base = Path("/home/u/.dsdb")
    assert (config.meta.dir, config.data.dir) == (base / "meta", base / "data")
    assert (config.data.wal_dir, config.hinted_handoff.dir) == (base / "wal", base / "hh")
    assert (config.http.bind_address, config.meta.bind_address, config.meta.http_bind_address) == (
        ":8088",
        ":8088",
        ":8091",
    )
    assert config.http.alias_bind_address == ":8086"
    assert config.admin.enabled and config.admin.bind_address == ":8083"
    assert config.reporting_disabled
    assert config.cluster.write_timeout_s == 5.0
    assert config.source is None and config.origins == {} and config.warnings == ()
    assert [entry.enabled for entry in (*config.graphite, *config.udp)] == [False, False]


def test_packaged_defaults_need_no_home() -> None:
    config = load_config(None, {}, base=PACKAGED_BASE)
    assert config.meta.dir == Path("/var/lib/dsdb/meta")


def test_the_path_may_come_from_the_environment(tmp_path: Path) -> None:
    ours, theirs, flag = (tmp_path / name for name in ("ours", "theirs", "flag"))
    for path in (ours, theirs, flag):
        path.write_text(f'hostname = "{path.name}"\n')
    environ = HOME | {"INFLUXDB_CONFIG_PATH": str(theirs)}
    assert load_config(None, environ).hostname == "theirs"
    environ["DSDB_CONFIG_PATH"] = str(ours)
    config = load_config(None, environ)
    assert (config.hostname, config.source, config.warnings) == ("ours", ours, ())
    assert load_config(flag, environ).hostname == "flag"
    assert load_config(None, environ | {"DSDB_CONFIG_PATH": ""}).hostname == "theirs"


def test_origins_say_where_a_value_came_from(tmp_path: Path) -> None:
    path = tmp_path / "dsdb.conf"
    path.write_text('[meta]\n\ndir = "/m"\n[[udp]]\n[[udp]]\nenabled = true\n')
    config = load_config(path, HOME | {"DSDB_DATA_DIR": "/d"}, Flags(hostname="h"))
    assert config.origins == {
        "meta.dir": f"{path}:3",
        "udp.1.enabled": f"{path}:6",
        "data.dir": "environment variable DSDB_DATA_DIR",
        "hostname": "flag -hostname",
    }


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, binary, huge = tmp_path / "missing.conf", tmp_path / "binary.conf", tmp_path / "huge.conf"
    binary.write_bytes(b"a = 1\n\xff\xfe")
    huge.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    expected = {
        missing: "there is no such file",
        tmp_path: "a directory, not a file",
        binary: "not UTF-8 text",
        huge: "so not a configuration",
        tmp_path / ("x" * 300): "cannot be read: File name too long",
    }
    for path, words in expected.items():
        with pytest.raises(ConfigError) as caught:
            load_config(path, HOME)
        assert caught.value.message.startswith(str(path)) and words in caught.value.message
        assert ";" in caught.value.message, "it says what to do"
    assert f"{binary}:2" in _message(binary)


def _message(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, HOME)
    return caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_of_another_user_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dsdb.conf"
    path.write_text("")
    path.chmod(0)
    assert "not readable by this user" in _message(path)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_a_hostile_file_is_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dsdb.conf"
    path.write_text(text)
    assert "not valid TOML" in _message(path)


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "dsdb.conf"
    path.write_text(f'hostname = "{"x" * 5000}"\n')
    assert len(_message(path)) < 400


_KEYS = [(section, key) for section in table.SECTIONS.values() for key in [*section.known, "nothing"]]
_ANY_VALUE = st.one_of(
    st.sampled_from(
        ['""', '"["', '"1"', '"-1s"', "true", "[]", "[[]]", "{}", "1e400", "inf", "-0", "1979-05-27T07:32:00Z"]
    ),
    st.integers(-(2**63), 2**63).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20).map(json.dumps),
)


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(_KEYS), _ANY_VALUE), min_size=1, max_size=3, unique_by=lambda item: item[0][0].name
    )
)
def test_any_value_of_any_key_loads_or_is_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[tuple[table.Section, str], str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.conf"
    ordered = sorted(lines, key=lambda line: bool(line[0][0].name))
    path.write_text("".join(f"{section.title}\n{key} = {value}\n" for (section, key), value in ordered))
    environ = {
        f"DSDB_{table.environment_suffix(section.name, key, 0 if section.is_array else None)}": value
        for (section, key), value in lines
    }
    for found in (path, None):
        try:
            config = load_config(found, HOME if found else HOME | environ)
        except ConfigError as error:
            for line in error.message.split("\n"):
                assert line.startswith((str(path), "environment variable ")) and ";" in line
        else:
            assert isinstance(config, Config)


# --- the table and the classes


def test_every_attribute_of_every_class_is_a_setting_with_that_name() -> None:
    for section in table.SECTIONS.values():
        settings = {setting.attribute for setting in section.settings.values()}
        fields = {name for name, hint in typing.get_type_hints(section.cls).items() if not _is_section(hint)} - {
            "source",
            "origins",
            "warnings",
        }
        assert fields == settings, section.name


def _is_section(hint: object) -> bool:
    return any(dataclasses.is_dataclass(part) for part in (hint, *typing.get_args(hint)))


def test_the_type_of_every_attribute_fits_its_kind() -> None:
    types = {Kind.BOOLEAN: bool, Kind.DURATION: float, Kind.SIZE: int, Kind.INTEGER: int}
    types |= {Kind.LIST: tuple[str, ...], Kind.JOIN: tuple[str, ...]}
    for section in table.SECTIONS.values():
        hints = typing.get_type_hints(section.cls)
        for setting in section.settings.values():
            path = Path | None if setting.optional else Path
            expected = path if setting.kind is Kind.PATH else types.get(setting.kind, str)
            assert hints[setting.attribute] == expected, (section.name, setting.key)


def every_setting() -> list[tuple[table.Section, Setting]]:
    return [(section, setting) for section in table.SECTIONS.values() for setting in section.known.values()]


def test_every_default_is_within_its_own_bounds_and_every_help_is_a_sentence() -> None:
    assert len(every_setting()) > 130
    for section, setting in every_setting():
        parse_value(setting, setting.default)
        assert setting.help[:1].isalnum() and setting.help.endswith("."), (section.name, setting.key)
        assert section.help.endswith(".") or not section.name


def test_environment_names_are_unique() -> None:
    names = [
        table.environment_suffix(section.name, setting.key, 0 if section.is_array else None)
        for section, setting in every_setting()
    ]
    assert len(names) == len(set(names))
    assert "META_HTTP_BIND_ADDRESS" in names and "GRAPHITE_0_ENABLED" in names and "JOIN" in names


def test_configurations_are_frozen() -> None:
    config = load_config(None, HOME)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.http.auth_enabled = True  # type: ignore[misc]
    for cls in (schema.Config, schema.MetaConfig, schema.UdpConfig):
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
