"""Names of databases, policies and measurements as names of directories. Pure.

ASCII letters, digits, ``_``, ``-`` and, behind the first character, ``.`` stay as they are; every other UTF-8 byte
becomes ``%XX``. So ``/``, ``..``, an empty name and control characters cannot reach the file system, and names that
differ stay different, also where letters of both cases are one name to the operator's tools but not to the file
system. A result over MAX_NAME_BYTES is cut and ends in ``%~`` and a digest; the files inside state the whole name.
"""

from __future__ import annotations

import hashlib
import string

MAX_NAME_BYTES = 180
"""File systems take 255 bytes; the rest is room for suffixes."""

_PLAIN = frozenset((string.ascii_letters + string.digits + "_-").encode())
_DIGEST_BYTES = 16


def escape_name(name: str) -> str:
    """The directory name; different names give different results."""
    pieces = [
        chr(byte) if byte in _PLAIN or (byte == 0x2E and at > 0) else f"%{byte:02X}"
        for at, byte in enumerate(name.encode(errors="surrogatepass"))
    ]
    escaped = "".join(pieces) or "%"
    # ".tmp" and "corrupt" mean something to the store; a name that looks like them gets its last dot or letter escaped.
    if escaped.endswith(".tmp"):
        escaped = escaped[:-4] + "%2Etmp"
    if escaped == "corrupt":
        escaped = "%63orrupt"
    if len(escaped) <= MAX_NAME_BYTES:
        return escaped
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{escaped[: MAX_NAME_BYTES - 2 - 2 * _DIGEST_BYTES]}%~{digest}"
