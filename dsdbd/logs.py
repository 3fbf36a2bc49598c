"""Logging: one line per event on standard error, for people on a terminal and as JSON elsewhere.

Every line has ``time`` (RFC 3339, UTC), ``level``, ``event`` and the values given with it. Records of the standard
library's logging (pysyncobj, aiohttp, asyncio) take the same way. Passwords are removed from every text on it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from dsdbd.errors import ConfigError

MAX_TEXT_CHARACTERS = 8_192
"""A longer text in a log line is cut, so that no statement or body can fill the log."""
REDACTED = "[REDACTED]"

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_FORMATS = ("human", "json")

# Statements appear as typed and percent-encoded in URLs; both spellings of blanks, quotes and backslashes count.
_BLANK = r"(?:\s|\+|%20|%0[9AD])"
# A text ends with the spelling of the quote it began with: in plain text %27 is part of a password. %5C after a plain
# quote is a backslash in a URL and three letters elsewhere; as nobody can tell, it hides the rest.
_PLAIN_TEXT = r"{quote}(?:\\.|(?!{quote}|%5C).)*+(?:{quote}|%5C.*)?"
_ENCODED_TEXT = r"{quote}(?:(?:\\|%5C)(?:%[0-9A-F]{2}|.)|(?!{quote}).)*+(?:{quote})?"
_TEXT = "|".join(
    form.replace("{quote}", quote)
    for form, quotes in ((_PLAIN_TEXT, ("'", '"')), (_ENCODED_TEXT, ("%27", "%22")))
    for quote in quotes
)
_PLAIN_NAME = r'"(?:\\.|(?!").)*+"'
_NAME = rf"(?:{_PLAIN_NAME}|{_ENCODED_TEXT.replace('{quote}', '%22')}|(?:(?!=|%3D|{_BLANK}).)++)"
_FLAGS = re.IGNORECASE | re.DOTALL
_WORD = re.compile("password", re.IGNORECASE)
_COMMENT = re.compile(r"(?:/|%2F)(?:\*|%2A)|--", re.IGNORECASE)
_SET_PASSWORD = re.compile(
    rf"(set{_BLANK}++password{_BLANK}++for)(?:({_BLANK}*+{_NAME}{_BLANK}*+(?:=|%3D){_BLANK}*+)(?:{_TEXT}|[^\s&;]+)|.*)",
    _FLAGS,
)
_WITH_PASSWORD = re.compile(rf"(password{_BLANK}*+)(?:{_TEXT})", _FLAGS)
# Without quotes it is no statement, and a password all the same.
_WITH_PLAIN_PASSWORD = re.compile(rf"(with{_BLANK}++password{_BLANK}++)(?:(?!{_BLANK}|[&;]).)++", _FLAGS)
_PARAMETER = re.compile(r"((?:^|[?&])(?:p|password)=)[^&\s\"']+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_USERINFO = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")


def redact(text: str) -> str:
    """``text`` without the passwords of CREATE USER, SET PASSWORD, the URL parameter ``p`` and ``user:password@``.

    Too much is hidden rather than too little: a quote that is never closed, a SET PASSWORD that cannot be understood
    and a comment anywhere behind the word password hide the rest of the text.
    """
    # Nearly no text has any of it, and each statement passes here several times.
    folded = text.casefold()
    if "password" in folded and (word := _WORD.search(text)):
        if _COMMENT.search(text, word.end()):
            text = f"{text[: word.end()]} {REDACTED}"
        text = _SET_PASSWORD.sub(lambda match: f"{match[1]}{match[2] or ' '}{REDACTED}", text)
        text = _WITH_PASSWORD.sub(rf"\1{REDACTED}", text)
        text = _WITH_PLAIN_PASSWORD.sub(rf"\1{REDACTED}", text)
    if "p=" in folded or "password=" in folded:
        text = _PARAMETER.sub(rf"\1{REDACTED}", text)
    return _USERINFO.sub(rf"\1{REDACTED}", text) if "://" in text else text


def set_up_logging(environ: Mapping[str, str], stream: TextIO | None = None) -> None:
    """Send every log line of the process to ``stream`` (standard error).

    DSDB_LOG_LEVEL (debug, info, warning, error, critical) and DSDB_LOG_FORMAT (human, json) choose level and form;
    without them it is info, and human on a terminal. Raises ConfigError for another value. May be called again.
    """
    stream = stream if stream is not None else sys.stderr
    level = _choose(environ, "DSDB_LOG_LEVEL", tuple(_LEVELS)) or "info"
    form = _choose(environ, "DSDB_LOG_FORMAT", _FORMATS) or ("human" if stream.isatty() else "json")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _clean,
    ]
    renderer = _renderer(form, stream, environ)
    handler = _LogHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _LogHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    # Lines of the daemon itself do not pass through the library's records, which take twice as long to make as a line.
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=lambda *names: _Lines(handler, *names),
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry ``logger=name``: the part of the daemon that speaks."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


class _LogHandler(logging.StreamHandler[TextIO]):
    def write_line(self, line: str) -> None:
        """Write a finished line, as ``emit`` does for a record."""
        with contextlib.suppress(Exception), self.lock or contextlib.nullcontext():
            self.stream.write(line + self.terminator)
            self.flush()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the name logging calls
        """Drop a line that cannot be written: a full disk under the log must not stop or flood the daemon."""
        del record


class _Lines:
    """The logger of one part of the daemon: what it is given are finished lines."""

    def __init__(self, handler: _LogHandler, name: str = "root") -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = handler.write_line


def _choose(environ: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    chosen = environ.get(name, "").strip().lower()
    if chosen and chosen not in allowed:
        raise ConfigError(
            f"environment variable {name} = {environ[name]!r}: unknown value; it is one of {', '.join(allowed)}"
        )
    return chosen


def _renderer(form: str, stream: TextIO, environ: Mapping[str, str]) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not environ.get("NO_COLOR"),
        timestamp_key="time",
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=0,
    )


def _clean(logger: object, method: str, event_dict: EventDict) -> EventDict:
    """Order a line's keys, remove passwords and control characters from its texts, and cut long ones."""
    del logger, method
    # These two carry objects the renderers need as they are.
    kept = {key: event_dict.pop(key) for key in ("_record", "_from_structlog") if key in event_dict}
    first = {key: event_dict.pop(key) for key in ("time", "level", "logger", "event") if key in event_dict}
    cleaned = {key: _clean_value(value, lines=key in ("exception", "stack")) for key, value in event_dict.items()}
    return {**{key: _clean_value(value) for key, value in first.items()}, **cleaned, **kept}


def _clean_value(value: object, *, lines: bool = False) -> object:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _clean_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean_value(item) for item in value]
    # Cut first: it bounds the work, and a password that is cut in two counts as a quote that is never closed.
    text = redact(_cut(value if isinstance(value, str) else str(value)))
    if lines:
        return text
    # A line break or an escape code in a logged text must not look like a line of its own on a terminal.
    text = text.rstrip()
    return text if text.isprintable() else _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return f"{text[:MAX_TEXT_CHARACTERS]}… ({len(text) - MAX_TEXT_CHARACTERS} more characters)"
