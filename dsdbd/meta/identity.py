"""Who this node is: one small file, ``node.json`` in the metadata directory, replaced atomically.

The file is written before the node does anything that others could remember, so a crash at any point leaves a node
that knows how far it came: ``founding`` and ``joining`` are continued, ``member`` is final. A directory with Raft
data and no identity is refused, because a node that forgot who it is may also have forgotten its votes.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from dsdbd.decoding import decode_json
from dsdbd.errors import IdentityError, StorageCorrupt
from dsdbd.fsio import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "node.json"
_FORMAT = 1


class Phase(enum.Enum):
    """How far the node has come towards being a member."""

    FOUNDING = "founding"
    JOINING = "joining"
    MEMBER = "member"


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node knows of itself.

    ``uuid``: random, made once, never shared by two nodes. ``tcp_addr``: the address the cluster knows it by.
    ``voters``: Raft addresses that were the voters when the node founded or joined; only the first start uses them.
    ``meta_id`` and ``data_id``: the numbers in SHOW SERVERS; None until given, or where the node lacks the role.
    """

    uuid: str
    cluster_id: str
    tcp_addr: str
    phase: Phase
    voters: tuple[str, ...] = ()
    meta_id: int | None = None
    data_id: int | None = None
    format: int = _FORMAT


def load_identity(meta_dir: Path) -> Identity | None:
    """The stored identity, or None in a directory that was never used.

    Raises StorageCorrupt for a file that cannot be read, IdentityError for Raft data without an identity.
    """
    path = meta_dir / FILE_NAME
    try:
        identity = decode_json(path.read_bytes(), Identity)
    except FileNotFoundError:
        if (meta_dir / "raft").exists():
            raise IdentityError(
                f"{meta_dir} holds Raft data but no {FILE_NAME}: this node does not know who it is. "
                "Restore the file, or empty the directory, drop the node from the cluster and join again."
            ) from None
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        raise StorageCorrupt(
            f"cannot read the node's identity {path}: {error}. Restore the file from a copy; if there is none, empty "
            f"{meta_dir}, drop the node from the cluster with DROP META SERVER and DROP DATA SERVER, and join again."
        ) from error
    if identity.format != _FORMAT:
        raise StorageCorrupt(f"{path} has format {identity.format}; this version reads format {_FORMAT}")
    return identity


def save_identity(meta_dir: Path, identity: Identity) -> None:
    """Store the identity; durable on return."""
    data = msgspec.json.format(msgspec.json.encode(identity), indent=2)
    write_atomic(meta_dir / FILE_NAME, data + b"\n", mode=0o640)


def check_address(identity: Identity, tcp_addr: str, meta_dir: Path) -> None:
    """Refuse a directory that was made under another address: a copy of a node's disk must never run beside it."""
    if identity.tcp_addr == tcp_addr:
        return
    raise IdentityError(
        f"{meta_dir} belongs to the node {identity.tcp_addr} (uuid {identity.uuid}), but this node is configured as "
        f"{tcp_addr}. If the directory is a copy, empty it and join as a new node. If the machine got a new address, "
        "drop the node from the cluster, empty the directory and join again under the new one."
    )
