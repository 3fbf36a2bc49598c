from __future__ import annotations

import io
import json
import logging
import re
import time
import urllib.parse
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.errors import ConfigError
from dsdbd.logs import MAX_TEXT_CHARACTERS, REDACTED, get_logger, redact, set_up_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_time_level_logger_event_and_values_in_this_order() -> None:
    stream = io.StringIO()
    set_up_logging({}, stream)
    get_logger("meta").info("node joined", node=3, host="dsdb1", lag_s=0.5, roles=("meta", "data"), leader=None)
    (line,) = lines_of(stream)
    assert list(line)[:4] == ["time", "level", "logger", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(line["time"]))
    age = datetime.now().astimezone() - datetime.fromisoformat(str(line["time"]))
    assert abs(age.total_seconds()) < 60
    assert {**line, "time": ""} == {
        "time": "",
        "level": "info",
        "logger": "meta",
        "event": "node joined",
        "node": 3,
        "host": "dsdb1",
        "lag_s": 0.5,
        "roles": ["meta", "data"],
        "leader": None,
    }


def test_standard_logging_and_warnings_take_the_same_way() -> None:
    stream = io.StringIO()
    set_up_logging({}, stream)
    logging.getLogger("aiohttp.server").error("cannot %s %d", "serve", 7)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old thing", UserWarning, stacklevel=1)
    first, second = lines_of(stream)
    assert (first["logger"], first["level"], first["event"]) == ("aiohttp.server", "error", "cannot serve 7")
    assert second["logger"] == "py.warnings" and "old thing" in str(second["event"])


@pytest.mark.parametrize(
    ("environ", "terminal", "is_json"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"DSDB_LOG_FORMAT": "human"}, False, False),
        ({"DSDB_LOG_FORMAT": "JSON"}, True, True),
    ],
)
def test_people_read_on_terminals_machines_elsewhere(environ: dict[str, str], terminal: bool, is_json: bool) -> None:
    stream = Terminal() if terminal else io.StringIO()
    set_up_logging(environ, stream)
    get_logger("http").warning("slow query", took_s=3)
    text = stream.getvalue()
    assert text.startswith("{") is is_json
    assert "slow query" in text and text.count("\n") == 1
    assert ("\x1b[" in text) is (terminal and not is_json)


def test_no_colour_is_honoured() -> None:
    stream = Terminal()
    set_up_logging({"NO_COLOR": "1"}, stream)
    get_logger("http").error("x", y="z")
    assert "\x1b" not in stream.getvalue() and "y=z" in stream.getvalue()


def test_level_and_repeated_set_up() -> None:
    first, second = io.StringIO(), io.StringIO()
    set_up_logging({"DSDB_LOG_LEVEL": "debug"}, first)
    get_logger("a").debug("seen")
    set_up_logging({"DSDB_LOG_LEVEL": "warn"}, second)
    get_logger("a").info("not seen")
    logging.getLogger("b").info("not seen")
    get_logger("a").warning("seen again")
    assert [line["event"] for line in lines_of(first)] == ["seen"]
    assert [line["event"] for line in lines_of(second)] == ["seen again"]


@pytest.mark.parametrize(("name", "value"), [("DSDB_LOG_LEVEL", "loud"), ("DSDB_LOG_FORMAT", "xml")])
def test_unknown_choices_are_config_errors(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = '{value}': unknown value; it is one of"):
        set_up_logging({name: value}, io.StringIO())


def test_context_is_bound_and_exceptions_are_part_of_the_line() -> None:
    stream = io.StringIO()
    set_up_logging({}, stream)
    structlog.contextvars.bind_contextvars(request_id="r1")
    try:
        raise ValueError("bad: SET PASSWORD FOR x = 'hidden1'")
    except ValueError as error:
        get_logger("http").exception("failed", error=error)
    (line,) = lines_of(stream)
    assert line["request_id"] == "r1" and line["level"] == "error"
    assert "Traceback" in str(line["exception"]) and "ValueError" in str(line["exception"])
    assert (
        "hidden1" not in stream.getvalue() and stream.getvalue().count(REDACTED) == 3
    )  # value, source line and message of the traceback


@pytest.mark.parametrize("form", ["json", "human"])
def test_passwords_are_removed_wherever_they_stand_in_a_line(form: str) -> None:
    stream = io.StringIO()
    set_up_logging({"DSDB_LOG_FORMAT": form}, stream)
    statement = "CREATE USER a WITH PASSWORD 'hidden'"
    get_logger("q").info(statement, query=statement, several=[statement], deep={"x": [statement]})
    logging.getLogger("aiohttp.access").info("GET %s", "/query?u=a&p=hidden&q=x")
    try:
        raise RuntimeError(statement)
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    assert "hidden" not in stream.getvalue()
    assert stream.getvalue().count(REDACTED) == 6


def test_logged_text_cannot_forge_lines_and_is_cut() -> None:
    stream = io.StringIO()
    set_up_logging({"DSDB_LOG_FORMAT": "human"}, stream)
    get_logger("x").info("a\nb\x1b[2J", body="y\r\n" + "z" * (MAX_TEXT_CHARACTERS + 10))
    text = stream.getvalue()
    assert text.count("\n") == 1 and "\x1b" not in text and "\r" not in text
    assert r"a\x0ab\x1b[2J" in text
    assert "13 more characters" in text and len(text) < MAX_TEXT_CHARACTERS + 300


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    set_up_logging({}, Full())
    get_logger("x").info("lost")
    logging.getLogger("y").info("lost too")


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("CREATE USER x WITH PASSWORD 'p'", "CREATE USER x WITH PASSWORD [REDACTED]"),
        (
            "create user x with password 'p' with all privileges",
            "create user x with password [REDACTED] with all privileges",
        ),
        (r"CREATE USER x WITH PASSWORD 'it\'s' ; SHOW USERS", "CREATE USER x WITH PASSWORD [REDACTED] ; SHOW USERS"),
        (r"WITH PASSWORD 'p\\' WITH ALL", "WITH PASSWORD [REDACTED] WITH ALL"),
        ("WITH PASSWORD'p'", "WITH PASSWORD[REDACTED]"),
        ("WITH PASSWORD \n 'p q'", "WITH PASSWORD \n [REDACTED]"),
        ("WITH PASSWORD /* c */ 'p'", "WITH PASSWORD [REDACTED]"),
        ("WITH PASSWORD -- c\n 'p'", "WITH PASSWORD [REDACTED]"),
        ("SET PASSWORD FOR /* c */ x = 'p'; SHOW USERS", "SET PASSWORD [REDACTED]"),
        ("/query?q=WITH+PASSWORD+%2F%2A+c+%2A%2F+%27p%27", "/query?q=WITH+PASSWORD [REDACTED]"),
        ('WITH PASSWORD "p"', "WITH PASSWORD [REDACTED]"),
        ("WITH PASSWORD 'a%27b' WITH ALL", "WITH PASSWORD [REDACTED] WITH ALL"),
        ("WITH PASSWORD ''", "WITH PASSWORD [REDACTED]"),
        ("WITH PASSWORD 'never closed; SHOW USERS", "WITH PASSWORD [REDACTED]"),
        ("SET PASSWORD FOR x = 'p'", "SET PASSWORD FOR x = [REDACTED]"),
        ("SET PASSWORD FOR x='p'", "SET PASSWORD FOR x=[REDACTED]"),
        ("set password for \"a b\" = 'p'", 'set password for "a b" = [REDACTED]'),
        ('SET PASSWORD FOR "a\\"=b" = \'p\'', 'SET PASSWORD FOR "a\\"=b" = [REDACTED]'),
        ("SET PASSWORD FOR x = p", "SET PASSWORD FOR x = [REDACTED]"),
        (
            "CREATE USER a WITH PASSWORD 'p'; SET PASSWORD FOR a = 'q'",
            "CREATE USER a WITH PASSWORD [REDACTED]; SET PASSWORD FOR a = [REDACTED]",
        ),
        ("GET /query?u=joe&p=secret&q=SHOW+USERS HTTP/1.1", "GET /query?u=joe&p=[REDACTED]&q=SHOW+USERS HTTP/1.1"),
        ("GET /query?p=secret HTTP/1.1", "GET /query?p=[REDACTED] HTTP/1.1"),
        ("p=secret&u=joe", "p=[REDACTED]&u=joe"),
        ("/query?q=CREATE+USER+a+WITH+PASSWORD+%27p%27&db=d", "/query?q=CREATE+USER+a+WITH+PASSWORD+[REDACTED]&db=d"),
        ("/query?q=WITH%20PASSWORD%20'p'&db=d", "/query?q=WITH%20PASSWORD%20[REDACTED]&db=d"),
        ("/query?q=WITH+PASSWORD+%27a%5C%27b%27&db=d", "/query?q=WITH+PASSWORD+[REDACTED]&db=d"),
        ("/query?q=SET+PASSWORD+FOR+%22a%22+%3D+%27p%27&db=d", "/query?q=SET+PASSWORD+FOR+%22a%22+%3D+[REDACTED]&db=d"),
        ("http://joe:secret@dsdb1:8088/query", "http://joe:[REDACTED]@dsdb1:8088/query"),
        ("/query?q=WITH%20PASSWORD%20'a%5C'b'&db=d", "/query?q=WITH%20PASSWORD%20[REDACTED]"),
        ("SET PASSWORD FOR 'x' 'p'; SHOW USERS", "SET PASSWORD FOR [REDACTED]"),
        (
            "create user u with  password  'it\\'s' WITH ALL PRIVILEGES",
            "create user u with  password  [REDACTED] WITH ALL PRIVILEGES",
        ),
        ("CREATE USER u WITH /* x */ PASSWORD 'p'", "CREATE USER u WITH /* x */ PASSWORD [REDACTED]"),
        ("CREATE USER u WITH PASSWORD secret; SHOW USERS", "CREATE USER u WITH PASSWORD [REDACTED]; SHOW USERS"),
        ("/query?q=CREATE+USER+u+WITH+PASSWORD+secret&db=d", "/query?q=CREATE+USER+u+WITH+PASSWORD+[REDACTED]&db=d"),
        # Nothing to hide.
        ("SELECT password FROM m WHERE a = 'p'", "SELECT password FROM m WHERE a = 'p'"),
        ("CREATE USER u WITH PASSWORD ; SHOW USERS", "CREATE USER u WITH PASSWORD ; SHOW USERS"),
        ("the password for joe is wrong", "the password for joe is wrong"),
        ("http://dsdb1:8088/query?q=x", "http://dsdb1:8088/query?q=x"),
        ("SELECT p FROM password WHERE p='x'", "SELECT p FROM password WHERE p='x'"),
        ("cpu,p=1 value=2", "cpu,p=1 value=2"),
        ("", ""),
    ],
)
def test_redaction(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@given(
    st.lists(st.sampled_from(["%27", "%22", "%5C", "%", "'", '"', "\\", "\n", " ", "=", "&", ";", "+", "ü", "a"])).map(
        "".join
    )
)
def test_no_password_survives_redaction(password: str) -> None:
    marked = f"«{password}»"
    quoted = marked.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    statements = [f"CREATE USER a WITH PASSWORD '{quoted}' WITH ALL", f"SET PASSWORD FOR \"b c\" = '{quoted}'"]
    urls = [f"/query?q={urllib.parse.quote_plus(statement)}&db=d" for statement in statements]
    unescaped_in_scripts = "'()!*~"
    script_urls = [f"/query?q={urllib.parse.quote(text, safe=unescaped_in_scripts)}&db=d" for text in statements]
    several = [f"{statements[0]}; {statements[1]}", f"{statements[1]}; {statements[0]}"]
    for statement in statements + urls + script_urls + several:
        hidden = redact(statement)
        assert not re.search("«|»|%C2%AB|%C2%BB", hidden)
        assert REDACTED in hidden


def test_redaction_takes_linear_time() -> None:
    for piece in (
        "password ",
        "password/*",
        "password'",
        "password for a=",
        "passwordfor",
        "password for ",
        'password for "',
        "password for a",
        "with password a",
        "p=",
        "://a:",
    ):
        started = time.perf_counter()
        redact(piece * (20_000 // len(piece)))
        assert time.perf_counter() - started < 10, piece
