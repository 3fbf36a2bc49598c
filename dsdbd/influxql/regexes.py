"""Validation of regular expressions, with the error texts that Go's regexp gives and clients of InfluxDB 1.x know."""

from __future__ import annotations

from typing import Final

import re2

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


def check_regex(pattern: str) -> None:
    """Do nothing for a valid RE2 pattern.

    Raises:
        ValueError: ``error parsing regexp: …`` when it is not one.

    """
    try:
        re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        raise ValueError(f"error parsing regexp: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    detail = error.args[0] if error.args else ""
    text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
    for words, go_words in _GO_WORDING:
        if text.startswith(words):
            return f"{go_words}: `{text.removeprefix(words)}`"
    return text
