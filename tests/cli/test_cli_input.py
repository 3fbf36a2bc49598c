"""Command lines and lines of input: flags, dispatch, commands, grouping."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdb_cli.client import Credentials, split_address
from dsdb_cli.commands import (
    Assign,
    Auth,
    Insert,
    Query,
    Simple,
    Use,
    parse_command,
    parse_identifier,
    quote_identifier,
)
from dsdb_cli.dispatch import Program, choose_program, daemon_candidates, find_daemon
from dsdb_cli.errors import ShellError, UsageError
from dsdb_cli.flags import Kind, parse_flags
from dsdb_cli.options import SHELL_FLAGS, parse_shell, parse_status
from dsdb_cli.statements import group_lines

KINDS = {"t": Kind.TEXT, "n": Kind.INTEGER, "s": Kind.SWITCH}


@pytest.mark.parametrize(
    ("line", "values", "rest"),
    [
        ("", {}, []),
        ("-t a --t=b -n 3", {"t": "b", "n": 3}, []),
        ("-s -t -s", {"s": True, "t": "-s"}, []),
        ("-s=false word -t x", {"s": False}, ["word", "-t", "x"]),
        ("-t= -- -s", {"t": ""}, ["-s"]),
        ("- -s", {}, ["-", "-s"]),
        ("-t a=b", {"t": "a=b"}, []),
        ("--n=-4", {"n": -4}, []),
    ],
)
def test_go_style_flags(line: str, values: dict[str, object], rest: list[str]) -> None:
    parsed = parse_flags(KINDS, line.split())
    assert dict(parsed.values) == values
    assert list(parsed.rest) == rest


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-x", "flag provided but not defined: -x"),
        ("--", ""),
        ("-t", "flag needs an argument: -t"),
        ("-n five", 'invalid value "five" for flag -n: it takes a whole number'),
        ("-s=maybe", 'invalid value "maybe" for flag -s: it takes a boolean'),
    ],
)
def test_wrong_flags(line: str, message: str) -> None:
    if not message:
        assert parse_flags(KINDS, line.split()).rest == ()
        return
    with pytest.raises(UsageError) as caught:
        parse_flags(KINDS, line.split())
    assert caught.value.message == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("", Program.SHELL),
        ("config -config f", Program.DAEMON),
        ("run", Program.DAEMON),
        ("version", Program.DAEMON),
        ("backup x", Program.DAEMON),
        ("restore x", Program.DAEMON),
        ("help", Program.DAEMON),
        ("-config f", Program.DAEMON),
        ("--join=a:8091", Program.DAEMON),
        ("-hostname x", Program.DAEMON),
        ("-pidfile x", Program.DAEMON),
        ("-cpuprofile x", Program.DAEMON),
        ("-memprofile x", Program.DAEMON),
        ("-host h -ssl -config f", Program.DAEMON),
        ("-version", Program.SHELL),
        ("-help", Program.SHELL),
        ("-execute -config", Program.SHELL),
        ("-execute=x -port 1 word -config", Program.SHELL),
        ("status -port 1", Program.STATUS),
        ("demo", Program.DEMO),
        ("-database status", Program.SHELL),
    ],
)
def test_which_program(line: str, program: Program) -> None:
    assert choose_program(line.split(), SHELL_FLAGS) is program


def test_where_the_daemon_is_looked_for() -> None:
    assert daemon_candidates("/opt/x/bin/dsdb", "/usr/bin/python3", "/usr/sbin/dsdbd") == [
        Path("/opt/x/bin/dsdbd"),
        Path("/opt/x/bin/dsdbd"),
        Path("/usr/bin/dsdbd"),
        Path("/usr/sbin/dsdbd"),
    ]
    assert daemon_candidates("dsdb", "/usr/bin/python3", None) == [Path("/usr/bin/dsdbd")]
    with pytest.raises(ShellError, match=r"neither beside .* nor in PATH"):
        find_daemon(lambda _: False)


@pytest.mark.parametrize(
    ("words", "environ", "expected"),
    [
        ([], {}, ("localhost", None, "", "")),
        (["-host", "h:1"], {}, ("h", 1, "", "")),
        (["-host", "h", "-port", "2"], {}, ("h", 2, "", "")),
        (["-host", "[::1]:3"], {}, ("::1", 3, "", "")),
        (["-host", "::1"], {}, ("::1", None, "", "")),
        (["-host", "http://h:4/"], {}, ("h", 4, "", "")),
        ([], {"INFLUX_USERNAME": "i", "INFLUX_PASSWORD": "p"}, ("localhost", None, "i", "p")),
        ([], {"INFLUX_USERNAME": "i", "DSDB_USERNAME": "d", "DSDB_PASSWORD": "q"}, ("localhost", None, "d", "q")),
        (["-username", "u", "-password", "w"], {"DSDB_USERNAME": "d"}, ("localhost", None, "u", "w")),
    ],
)
def test_where_to_connect(words: list[str], environ: dict[str, str], expected: tuple[object, ...]) -> None:
    server = parse_shell(words, environ).server
    credentials = server.credentials
    assert (server.host, server.port, credentials.username, credentials.password) == expected
    assert not server.ask_password


def test_https_in_the_host_means_ssl() -> None:
    server = parse_shell(["-host", "https://h"], {}).server
    assert (server.host, server.use_ssl, server.unsafe_ssl) == ("h", True, False)


def test_an_explicit_empty_password_is_asked_for() -> None:
    assert parse_shell(["-password", ""], {"DSDB_PASSWORD": "x"}).server.ask_password
    assert parse_shell(["-password="], {}).server.ask_password


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["SHOW DATABASES"], "unknown arguments: SHOW DATABASES"),
        (["-host", "h:1", "-port", "2"], "name two ports"),
        (["-port", "70000"], "1 to 65535"),
        (["-host", "h:x"], "1 to 65535"),
    ],
)
def test_wrong_command_lines(words: list[str], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shell(words, {})
    assert part in caught.value.message
    with pytest.raises(UsageError):
        parse_status(words, {})


def test_credentials_header() -> None:
    assert Credentials().header() == {}
    assert Credentials("todd", "é:x").header() == {"Authorization": "Basic dG9kZDrDqTp4"}


@pytest.mark.parametrize("text", ["h:0", "h:65536", "[::1]:x", "h:-1"])
def test_wrong_ports(text: str) -> None:
    with pytest.raises(ValueError):
        split_address(text)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("exit", Simple("exit")),
        ("QUIT;", Simple("exit")),
        ("pretty", Simple("pretty")),
        ("format csv;", Assign("format", "csv")),
        ("Precision  rfc3339", Assign("precision", "rfc3339")),
        ("consistency", Assign("consistency", "")),
        ("connect h:1", Assign("connect", "h:1")),
        ("chunked", Simple("chunked")),
        ("chunk size 5", Assign("chunk size", "5")),
        ("chunk", Assign("chunk size", "")),
        ("auth", Auth(None, None)),
        ("auth todd", Auth("todd", None)),
        ("auth todd pass word;", Auth("todd", "pass word;")),
        ("use db", Use("use db", "db", None)),
        ("USE db;", Use("USE db;", "db", None)),
        ('use "d b"."r.p"', Use('use "d b"."r.p"', "d b", "r.p")),
        ("use db.rp", Use("use db.rp", "db", "rp")),
        ('use "a\\"b"', Use('use "a\\"b"', 'a"b', None)),
        ("use", Use("use", None, None)),
        ('use ""', Use('use ""', None, None)),
        ("use db rp", Use("use db rp", None, None)),
        ("insert cpu,a=b v=1 2", Insert(None, None, "cpu,a=b v=1 2")),
        ("INSERT INTO rp cpu v=1", Insert(None, "rp", "cpu v=1")),
        ("insert into db.rp cpu v=1", Insert("db", "rp", "cpu v=1")),
        ('insert into "d b"."r p" cpu v=1', Insert("d b", "r p", "cpu v=1")),
        ("insert into,tag=x v=1", Insert(None, None, "into,tag=x v=1")),
        ("insert", Insert(None, None, "")),
        ("SELECT * FROM cpu", Query("SELECT * FROM cpu")),
        ("", Query("")),
        ("formats x", Query("formats x")),
    ],
)
def test_commands(line: str, command: object) -> None:
    assert parse_command(line) == command


@settings(deadline=None)
@given(st.text(min_size=1, alphabet=st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
def test_a_quoted_identifier_reads_back(name: str) -> None:
    assert parse_identifier(quote_identifier(name) + ".x") == (name, ".x")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_line_is_beyond_the_parser(line: str) -> None:
    assert isinstance(parse_command(line), Simple | Assign | Auth | Use | Insert | Query)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("use a\nSELECT v FROM cpu\nSHOW DATABASES", ["use a", "SELECT v FROM cpu", "SHOW DATABASES"]),
        ("SELECT v\nFROM cpu\n\nWHERE x = 1", ["SELECT v\nFROM cpu\nWHERE x = 1"]),
        ("SELECT v FROM (\nSELECT x FROM y\n)", ["SELECT v FROM (\nSELECT x FROM y\n)"]),
        (
            "CREATE CONTINUOUS QUERY q ON d BEGIN\nSELECT 1\nINTO x END",
            ["CREATE CONTINUOUS QUERY q ON d BEGIN\nSELECT 1\nINTO x END"],
        ),
        ("EXPLAIN\nSELECT v FROM cpu", ["EXPLAIN\nSELECT v FROM cpu"]),
        ("SELECT v FROM cpu;\nfoo", ["SELECT v FROM cpu;", "foo"]),
        ("insert cpu v=1\ncpu v=2", ["insert cpu v=1", "cpu v=2"]),
        ("DELETE WHERE x = 'a\nSHOW b'", ["DELETE WHERE x = 'a\nSHOW b'"]),
        ("SELECT '(' FROM a\nSHOW SERIES", ["SELECT '(' FROM a", "SHOW SERIES"]),
        ("", []),
        ("-- don't\nSHOW A\n-- (\nSHOW B", ["SHOW A\n-- (", "SHOW B"]),
        ("SELECT v -- isn't it\nFROM m\nSHOW B", ["SELECT v -- isn't it\nFROM m", "SHOW B"]),
        ("SELECT v /* SHOW\nSHOW */ FROM m\nSHOW B", ["SELECT v /* SHOW\nSHOW */ FROM m", "SHOW B"]),
        ("SELECT v FROM /don't(/ WHERE a =~ /'/\nSHOW B", ["SELECT v FROM /don't(/ WHERE a =~ /'/", "SHOW B"]),
    ],
)
def test_lines_are_grouped_into_statements(text: str, groups: list[str]) -> None:
    assert list(group_lines(text.splitlines())) == groups


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab '\"(;", max_size=8)))
def test_no_line_is_lost(lines: list[str]) -> None:
    kept = [line.strip() for line in lines if line.strip()]
    assert "\n".join(group_lines(lines)).split("\n") == (kept or [""])
