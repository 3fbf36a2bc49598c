"""Where the cluster secret comes from, and when a node may run without one.

Between machines every node needs the same secret; on loopback alone it may be missing. The founder of a cluster makes
one by itself, so that the operator only has to copy a file.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from typing import TYPE_CHECKING

from dsdbd.errors import SecretError
from dsdbd.fsio import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FILE_NAME = "cluster.secret"
_MIN_BYTES = 16


def is_loopback(host: str) -> bool:
    """Whether an address to bind reaches this machine only; an empty host and a wildcard do not."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(entry[4][0]).split("%")[0]).is_loopback for entry in found)


def read_secret(path: Path) -> bytes:
    """The secret in a file, without surrounding blanks; raises SecretError when it is missing, short or open to all."""
    try:
        secret = path.read_bytes().strip()
        mode = path.stat().st_mode
    except OSError as error:
        raise SecretError(f"cannot read the cluster secret {path}: {error.strerror}. Copy it from a member.") from error
    if mode & 0o007:
        raise SecretError(
            f"the cluster secret {path} can be read by every user of this machine; run: chmod 0600 {path}"
        )
    if len(secret) < _MIN_BYTES:
        raise SecretError(f"the cluster secret {path} has {len(secret)} bytes; it needs at least {_MIN_BYTES}")
    return secret


def resolve_secret(
    *, configured: Path | None, meta_dir: Path, bind_hosts: Iterable[str], fresh: bool, joins: bool
) -> bytes:
    """The secret to use; empty where all addresses are loopback and none is configured.

    A fresh node that founds a cluster on other addresses gets a new one in ``meta_dir``; one that joins must be given
    it. Raises SecretError.
    """
    if configured is not None:
        return read_secret(configured)
    own = meta_dir / FILE_NAME
    if own.exists():
        return read_secret(own)
    if all(is_loopback(host) for host in bind_hosts):
        return b""
    if joins or not fresh:
        raise SecretError(
            f"this node talks to others over the network but has no cluster secret. Copy {FILE_NAME} from the metadata "
            f"directory of a member to {own} (mode 0600), or name it in [meta] cluster-secret-file."
        )
    secret = secrets.token_hex(32).encode()
    write_atomic(own, secret + b"\n", mode=0o600)
    return secret
