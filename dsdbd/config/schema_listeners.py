"""The part of the table of settings that is about listeners for other protocols; see ``schema.py``."""

# Annotations are evaluated here on purpose: they hold the table.
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dsdbd.config.settings import address, boolean, choice, duration, file, integer, size, string, strings

CONSISTENCY = ("any", "one", "quorum", "all")
PEM = "PEM file with the certificate chain, and the private key where no key file is given."

_BATCH_SIZE = integer("batch-size", 5000, "Points that are written at once.", least=1, most=1_000_000, unit="points")
_BATCH_PENDING = integer("batch-pending", 10, "Batches that may wait.", least=1, most=10_000, unit="batches")
_BATCH_TIMEOUT = duration("batch-timeout", "1s", "A batch that is not full is written after this long.")
_RETENTION_POLICY = string("retention-policy", "", "Retention policy for the points; empty: the database's default.")
_READ_BUFFER = size("read-buffer", 0, "Receive buffer of the socket; 0: the system's.", most=1 << 30)
_ENABLED = boolean("enabled", False, "Listen.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphiteConfig:
    """``[[graphite]]``: one listener for the Graphite protocol."""

    enabled: Annotated[bool, _ENABLED]
    bind_address: Annotated[str, address("bind-address", ":2003", "Address to listen on.")]
    database: Annotated[str, string("database", "graphite", "Database for the points.")]
    protocol: Annotated[str, choice("protocol", "tcp", "Transport.", "tcp", "udp")]
    consistency_level: Annotated[
        str, choice("consistency-level", "one", "Consistency level of the writes.", *CONSISTENCY)
    ]
    batch_size: Annotated[int, _BATCH_SIZE]
    batch_pending: Annotated[int, _BATCH_PENDING]
    batch_timeout_s: Annotated[float, _BATCH_TIMEOUT]
    udp_read_buffer_bytes: Annotated[
        int, size("udp-read-buffer", 0, "Receive buffer of a UDP socket; 0: the system's.", most=1 << 30)
    ]
    separator: Annotated[str, string("separator", ".", "Joins the parts of a measurement name.")]
    tags: Annotated[tuple[str, ...], strings("tags", "Tags for every point, as key=value.")]
    templates: Annotated[tuple[str, ...], strings("templates", "How a Graphite name becomes measurement and tags.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectdConfig:
    """``[collectd]``: the listener for collectd's network protocol."""

    enabled: Annotated[bool, _ENABLED]
    bind_address: Annotated[str, address("bind-address", ":25826", "UDP address to listen on.")]
    database: Annotated[str, string("database", "collectd", "Database for the points.")]
    retention_policy: Annotated[str, _RETENTION_POLICY]
    batch_size: Annotated[int, _BATCH_SIZE]
    batch_pending: Annotated[int, _BATCH_PENDING]
    batch_timeout_s: Annotated[float, duration("batch-timeout", "10s", _BATCH_TIMEOUT.help)]
    read_buffer_bytes: Annotated[int, _READ_BUFFER]
    typesdb: Annotated[Path | None, file("typesdb", "/usr/share/collectd/types.db", "collectd's table of types.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpentsdbConfig:
    """``[opentsdb]``: the listener for OpenTSDB's telnet and HTTP protocol."""

    enabled: Annotated[bool, _ENABLED]
    bind_address: Annotated[str, address("bind-address", ":4242", "Address to listen on.")]
    database: Annotated[str, string("database", "opentsdb", "Database for the points.")]
    retention_policy: Annotated[str, _RETENTION_POLICY]
    consistency_level: Annotated[
        str, choice("consistency-level", "one", "Consistency level of the writes.", *CONSISTENCY)
    ]
    batch_size: Annotated[int, integer("batch-size", 1000, _BATCH_SIZE.help, least=1, most=1_000_000, unit="points")]
    batch_pending: Annotated[
        int, integer("batch-pending", 5, _BATCH_PENDING.help, least=1, most=10_000, unit="batches")
    ]
    batch_timeout_s: Annotated[float, _BATCH_TIMEOUT]
    tls_enabled: Annotated[bool, boolean("tls-enabled", False, "Listen with TLS.")]
    certificate: Annotated[Path | None, file("certificate", "/etc/ssl/dsdb.pem", PEM)]
    log_point_errors: Annotated[bool, boolean("log-point-errors", True, "Log every point that cannot be read.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpConfig:
    """``[[udp]]``: one listener for line protocol over UDP."""

    enabled: Annotated[bool, _ENABLED]
    bind_address: Annotated[str, address("bind-address", ":8089", "UDP address to listen on.")]
    database: Annotated[str, string("database", "udp", "Database for the points.")]
    retention_policy: Annotated[str, _RETENTION_POLICY]
    batch_size: Annotated[int, _BATCH_SIZE]
    batch_pending: Annotated[int, _BATCH_PENDING]
    batch_timeout_s: Annotated[float, _BATCH_TIMEOUT]
    read_buffer_bytes: Annotated[int, _READ_BUFFER]
    precision: Annotated[
        str, choice("precision", "n", "Unit of the timestamps.", "n", "ns", "u", "us", "µ", "ms", "s", "m", "h")
    ]
    udp_payload_size_bytes: Annotated[
        int, size("udp-payload-size", 65_536, "Largest datagram.", least=512, most=65_536)
    ]
