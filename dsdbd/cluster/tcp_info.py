"""What the kernel knows of a TCP connection; it counts what programs cannot see, however busy they are."""

from __future__ import annotations

import socket
import struct
import sys

from dsdbd.cluster.way import Reading

_SIZE_BYTES = 220
_LEAST_BYTES = 140
"""Linux before 4.19 does not tell what was sent again needlessly."""
_RTT_AT, _RESENT_AT, _SENT_AT, _NEEDLESS_AT = 68, 100, 136, 216
"""Offsets in struct tcp_info of linux/tcp.h: tcpi_rtt, tcpi_total_retrans, tcpi_segs_out and tcpi_dsack_dups."""


def read(sock: socket.socket) -> Reading | None:
    """A connection's figures now; None for one that is closed, and on systems that do not tell."""
    if not sys.platform.startswith("linux") or sock.fileno() < 0:
        return None
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE_BYTES)
    except OSError:
        return None
    if len(raw) < _LEAST_BYTES:
        return None
    rtt_us, resent, sent = (struct.unpack_from("=I", raw, at)[0] for at in (_RTT_AT, _RESENT_AT, _SENT_AT))
    needless = struct.unpack_from("=I", raw, _NEEDLESS_AT)[0] if len(raw) >= _SIZE_BYTES else 0
    return Reading(id(sock), rtt_us / 1e6, resent, sent, needless)
