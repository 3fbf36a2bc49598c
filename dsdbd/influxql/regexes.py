"""Validation of regular expressions, with the error texts that Go's regexp gives and clients of InfluxDB 1.x know."""

from __future__ import annotations

import re
from typing import Final

import re2

from dsdbd.limits import MAX_REGEX_BYTES, MAX_REGEX_CHARS, MAX_REGEX_REPETITIONS

# RE2's C++ library words its errors differently from its Go twin.
_GO_WORDING: Final = (
    ("missing ]: ", "missing closing ]"),
    ("missing ): ", "missing closing )"),
    ("unexpected ): ", "unexpected )"),
    ("no argument for repetition operator: ", "missing argument to repetition operator"),
    ("bad repetition operator: ", "invalid nested repetition operator"),
    ("invalid repetition size: ", "invalid repeat count"),
    ("invalid character class range: ", "invalid character class range"),
    ("invalid escape sequence: ", "invalid escape sequence"),
    ("invalid perl operator: ", "invalid or unsupported Perl syntax"),
    ("invalid named capture group: ", "invalid named capture"),
    ("trailing \\", "trailing backslash at end of expression"),
)
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = MAX_REGEX_BYTES
_REPETITION = re.compile(r"[?*+]|\{\d*,(\d*)\}")


def check_regex(pattern: str) -> None:
    """Do nothing for a valid RE2 pattern.

    Raises:
        ValueError: ``error parsing regexp: …`` when it is not one.

    """
    if len(pattern) > MAX_REGEX_CHARS:
        raise ValueError(f"error parsing regexp: it has {len(pattern)} characters, at most {MAX_REGEX_CHARS} are read")
    if _repetitions(pattern) > MAX_REGEX_REPETITIONS:
        raise ValueError(f"error parsing regexp: more than {MAX_REGEX_REPETITIONS} optional repetitions")
    try:
        re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        raise ValueError(f"error parsing regexp: {_reason(error)}") from None


def _repetitions(pattern: str) -> int:
    """Parts of the pattern that may be there or not, each copy of a repeated one by itself.

    The time of the compiler grows with the square of their number.
    """
    if len(pattern) <= MAX_REGEX_REPETITIONS and "{" not in pattern:
        return 0
    sizes = (int(found[1][:9]) if found[1] else 1 for found in _REPETITION.finditer(pattern))
    # RE2 has a bound of its own for each repetition, and says so.
    return sum(size if size <= MAX_REGEX_REPETITIONS else 1 for size in sizes)


def _reason(error: Exception) -> str:
    detail = error.args[0] if error.args else ""
    text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
    for words, go_words in _GO_WORDING:
        if text.startswith(words):
            return f"{go_words}: `{text.removeprefix(words)}`"
    return text
