"""The table of every setting: one frozen class per section, one attribute per key.

An attribute is the key with ``_`` for ``-``; durations end in ``_s`` (float seconds), sizes in ``_bytes`` (int).
The second half of each annotation is the line of the table: key, default as in TOML, help. The parser, the renderer,
the environment names and docs/reference/config.md all come from these lines; section names and notes are in SECTIONS
of ``table.py``.
"""

# Annotations are evaluated here on purpose: they hold the table.
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dsdbd.config.schema_listeners import (
    PEM,
    CollectdConfig,
    GraphiteConfig,
    OpentsdbConfig,
    UdpConfig,
)
from dsdbd.config.settings import (
    address,
    boolean,
    directory,
    duration,
    file,
    host,
    integer,
    join_list,
    size,
    string,
)
from dsdbd.limits import MAX_WRITE_BODY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaConfig:
    """``[meta]``: this node's part in the cluster's metadata."""

    enabled: Annotated[bool, boolean("enabled", True, "This node votes on the cluster's metadata.")]
    dir: Annotated[Path, directory("dir", "{base}/meta", "Holds the node's identity, the metadata and its journal.")]
    hostname: Annotated[
        str,
        host("hostname", "localhost", "Older place of the top level hostname; localhost counts as not set."),
    ]
    bind_address: Annotated[
        str, address("bind-address", ":8088", "Node-to-node address; another name for the top level bind-address.")
    ]
    http_bind_address: Annotated[
        str, address("http-bind-address", ":8091", "Address where nodes join and follow the metadata.")
    ]
    https_enabled: Annotated[bool, boolean("https-enabled", False, "Serve http-bind-address over TLS.")]
    https_certificate: Annotated[Path | None, file("https-certificate", "", PEM)]
    cluster_secret_file: Annotated[
        Path | None,
        file(
            "cluster-secret-file",
            "",
            "File with the secret all nodes share; empty: cluster.secret in dir, which the first node makes itself "
            "unless all its addresses are loopback.",
        ),
    ]
    retention_autocreate: Annotated[
        bool, boolean("retention-autocreate", True, "A new database gets the retention policy autogen.")
    ]
    retention_autocreate_max_replicas: Annotated[
        int,
        integer(
            "retention-autocreate-max-replicas",
            3,
            "Copies kept where no REPLICATION was stated: one per data node, also when nodes join, but at most this "
            "many; 1: never more than one, 0: no limit.",
            least=0,
            most=1000,
            unit="copies",
        ),
    ]
    election_timeout_s: Annotated[
        float,
        duration("election-timeout", "1s", "Shortest wait without a leader before an election.", most="1m"),
    ]
    heartbeat_timeout_s: Annotated[
        float, duration("heartbeat-timeout", "1s", "How long a follower waits for its leader.", most="1m")
    ]
    leader_lease_timeout_s: Annotated[
        float,
        duration("leader-lease-timeout", "500ms", "A leader without a majority for this long steps down.", most="1m"),
    ]
    commit_timeout_s: Annotated[
        float,
        duration(
            "commit-timeout",
            "50ms",
            "Longest pause between two messages of a leader; at least a tenth of election-timeout.",
            most="10s",
        ),
    ]
    cluster_tracing: Annotated[bool, boolean("cluster-tracing", False, "Log every step of the consensus.")]
    logging_enabled: Annotated[bool, boolean("logging-enabled", True, "Log what the meta service does.")]
    pprof_enabled: Annotated[bool, boolean("pprof-enabled", False, "Serve profiles on http-bind-address.")]
    lease_duration_s: Annotated[
        float,
        duration("lease-duration", "1m", "How long one node may run a job such as continuous queries.", least="1s"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """``[data]``: the points on this node."""

    enabled: Annotated[bool, boolean("enabled", True, "This node stores points.")]
    dir: Annotated[Path, directory("dir", "{base}/data", "Holds the shards, one directory per database.")]
    wal_dir: Annotated[Path, directory("wal-dir", "{base}/wal", "Holds the write-ahead log.")]
    wal_logging_enabled: Annotated[bool, boolean("wal-logging-enabled", True, "Log what the write-ahead log does.")]
    data_logging_enabled: Annotated[bool, boolean("data-logging-enabled", True, "Log what the shards do.")]
    query_log_enabled: Annotated[bool, boolean("query-log-enabled", True, "Log every statement, passwords removed.")]
    cache_max_memory_size_bytes: Annotated[
        int,
        size(
            "cache-max-memory-size", 524_288_000, "Unflushed points of one shard at which writes are refused.", least=1
        ),
    ]
    cache_snapshot_memory_size_bytes: Annotated[
        int,
        size("cache-snapshot-memory-size", 26_214_400, "Unflushed points of one shard that start a flush.", least=1),
    ]
    cache_snapshot_write_cold_duration_s: Annotated[
        float, duration("cache-snapshot-write-cold-duration", "1h", "A shard without writes for this long is flushed.")
    ]
    compact_full_write_cold_duration_s: Annotated[
        float,
        duration("compact-full-write-cold-duration", "24h", "A shard without writes for this long is fully compacted."),
    ]
    compact_min_file_count: Annotated[
        int,
        integer(
            "compact-min-file-count",
            8,
            "Files of a measurement in a shard, of similar size, that are compacted into one.",
            least=2,
            most=1000,
        ),
    ]
    compact_throughput_bytes: Annotated[
        int,
        size("compact-throughput", 33_554_432, "Decoded bytes that compactions of this node write a second.", least=1),
    ]
    read_cache_size_bytes: Annotated[
        int, size("read-cache-size", 268_435_456, "Decoded columns of files kept in memory for queries.")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """``[cluster]``: how nodes talk to each other about points."""

    write_timeout_s: Annotated[
        float, duration("write-timeout", "5s", "How long a write waits for the copies its consistency level asks for.")
    ]
    shard_writer_timeout_s: Annotated[
        float, duration("shard-writer-timeout", "5s", "How long one remote copy may take.")
    ]
    shard_mapper_timeout_s: Annotated[
        float, duration("shard-mapper-timeout", "5s", "How long a remote shard may stay silent during a query.")
    ]
    max_remote_write_connections: Annotated[
        int,
        integer(
            "max-remote-write-connections",
            16,
            "Connections to each node that carry writes; one batch at a time goes over each, further ones wait.",
            least=1,
            most=1000,
        ),
    ]
    max_concurrent_queries: Annotated[
        int,
        integer(
            "max-concurrent-queries",
            0,
            "Queries this node answers at once; a further one is refused. 0: no limit.",
            least=0,
            most=1_000_000,
            unit="queries",
        ),
    ]
    restore_grace_s: Annotated[
        float,
        duration(
            "restore-grace",
            "30m",
            "A data node that is down for longer is given up: others take copies of its shards. 0s: never.",
            least="0s",
        ),
    ]
    query_timeout_s: Annotated[
        float, duration("query-timeout", "0s", "A query that takes longer is ended. 0s: no limit.", least="0s")
    ]
    log_queries_after_s: Annotated[
        float, duration("log-queries-after", "0s", "A query that takes longer is logged. 0s: none is.", least="0s")
    ]
    max_select_point: Annotated[
        int,
        integer(
            "max-select-point",
            0,
            "Values one SELECT may read on a node. 0: no limit.",
            least=0,
            most=1_000_000_000_000,
            unit="values",
        ),
    ]
    max_select_series: Annotated[
        int,
        integer(
            "max-select-series",
            0,
            "Series of a measurement one SELECT may choose in a shard. 0: no limit.",
            least=0,
            most=1_000_000_000,
            unit="series",
        ),
    ]
    max_select_buckets: Annotated[
        int,
        integer(
            "max-select-buckets",
            0,
            "GROUP BY time buckets of one SELECT; without a lower bound it reads as many of the last. 0: no limit.",
            least=0,
            most=1_000_000_000,
            unit="buckets",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """``[retention]``: deleting what is older than its retention policy."""

    enabled: Annotated[bool, boolean("enabled", True, "Delete expired shards.")]
    check_interval_s: Annotated[float, duration("check-interval", "30m", "Pause between two looks.", least="1s")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPrecreationConfig:
    """``[shard-precreation]``: making the next shard group before it is needed."""

    enabled: Annotated[bool, boolean("enabled", True, "Create shard groups ahead of time.")]
    check_interval_s: Annotated[float, duration("check-interval", "10m", "Pause between two looks.", least="1s")]
    advance_period_s: Annotated[
        float, duration("advance-period", "30m", "How long before its start a shard group is created.", least="1s")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorConfig:
    """``[monitor]``: the node's own figures, written to a database."""

    store_enabled: Annotated[bool, boolean("store-enabled", True, "Store figures; a node without data does not.")]
    store_database: Annotated[str, string("store-database", "_internal", "Database that holds them.")]
    store_interval_s: Annotated[float, duration("store-interval", "10s", "Pause between two records.", least="1s")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """``[admin]``: the page for people."""

    enabled: Annotated[bool, boolean("enabled", True, "Serve the admin page.")]
    bind_address: Annotated[
        str, address("bind-address", ":8083", 'Address of the page. port = 8083 means the same as ":8083".')
    ]
    https_enabled: Annotated[bool, boolean("https-enabled", False, "Serve the page over TLS.")]
    https_certificate: Annotated[Path | None, file("https-certificate", "/etc/ssl/dsdb.pem", PEM)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """``[http]``: the API for clients."""

    enabled: Annotated[bool, boolean("enabled", True, "Serve the API.")]
    bind_address: Annotated[str, address("bind-address", ":8088", "Address of the API.")]
    alias_bind_address: Annotated[
        str,
        address(
            "alias-bind-address",
            ":8086",
            "Second address of the API, the port most clients try; without a host on that of bind-address. "
            "A taken port is only a warning. Empty: off.",
            optional=True,
        ),
    ]
    auth_enabled: Annotated[bool, boolean("auth-enabled", False, "Ask for a user and check privileges.")]
    realm: Annotated[str, string("realm", "InfluxDB", "Name that a browser shows when it asks for a password.")]
    shared_secret: Annotated[
        str, string("shared-secret", "", "Secret that bearer tokens are signed with; empty: no such tokens.")
    ]
    log_enabled: Annotated[bool, boolean("log-enabled", True, "Log every request.")]
    write_tracing: Annotated[bool, boolean("write-tracing", False, "Log the body of every write.")]
    pprof_enabled: Annotated[bool, boolean("pprof-enabled", False, "Serve profiles under /debug/pprof.")]
    https_enabled: Annotated[bool, boolean("https-enabled", False, "Serve the API over TLS.")]
    https_certificate: Annotated[Path | None, file("https-certificate", "/etc/ssl/dsdb.pem", PEM)]
    https_private_key: Annotated[
        Path | None, file("https-private-key", "", "PEM file with the private key; empty: in https-certificate.")
    ]
    max_body_size_bytes: Annotated[
        int,
        size(
            "max-body-size",
            MAX_WRITE_BODY_BYTES,
            "Largest request body; a larger one is refused.",
            least=1,
            most=1 << 30,
        ),
    ]
    max_row_limit: Annotated[
        int,
        integer(
            "max-row-limit",
            0,
            "Rows of an answer that is one document; what is beyond is left out. 0: no limit.",
            least=0,
            most=1_000_000_000,
            unit="rows",
        ),
    ]
    max_connection_limit: Annotated[
        int,
        integer(
            "max-connection-limit",
            0,
            "Connections of clients to an address of the API; a further one is closed. 0: no limit but that of DSDB.",
            least=0,
            most=1_000_000,
            unit="connections",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberConfig:
    """``[subscriber]``: copies of incoming points for subscribers."""

    enabled: Annotated[bool, boolean("enabled", True, "Send points to subscriptions.")]
    http_timeout_s: Annotated[
        float, duration("http-timeout", "30s", "How long a destination may take for one request.", least="100ms")
    ]
    insecure_skip_verify: Annotated[
        bool, boolean("insecure-skip-verify", False, "Accept any certificate of an https destination.")
    ]
    ca_certs: Annotated[
        Path | None, file("ca-certs", "", "PEM file of those whose certificates are accepted; empty: the system's.")
    ]
    write_concurrency: Annotated[
        int,
        integer("write-concurrency", 40, "Requests under way to one destination.", least=1, most=1000, unit="requests"),
    ]
    write_buffer_size: Annotated[
        int,
        integer(
            "write-buffer-size",
            1000,
            "Writes that wait for one destination; beyond it the oldest is dropped.",
            least=1,
            most=1_000_000,
            unit="writes",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousQueriesConfig:
    """``[continuous_queries]``: queries the cluster runs by itself."""

    enabled: Annotated[bool, boolean("enabled", True, "Run continuous queries.")]
    log_enabled: Annotated[bool, boolean("log-enabled", True, "Log every run.")]
    run_interval_s: Annotated[
        float, duration("run-interval", "1s", "Pause between two looks for due queries.", least="100ms")
    ]
    query_stats_enabled: Annotated[
        bool,
        boolean("query-stats-enabled", False, "Write a point cq_query about every run into [monitor] store-database."),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class HintedHandoffConfig:
    """``[hinted-handoff]``: writes kept for nodes that are away."""

    enabled: Annotated[bool, boolean("enabled", True, "Keep writes for nodes that do not answer.")]
    dir: Annotated[Path, directory("dir", "{base}/hh", "Holds the kept writes, one directory per node.")]
    max_size_bytes: Annotated[int, size("max-size", 1_073_741_824, "Most that is kept for one node.", least=1)]
    max_age_s: Annotated[float, duration("max-age", "168h", "Older kept writes are deleted.", least="1s")]
    retry_rate_limit_bytes: Annotated[
        int, size("retry-rate-limit", 0, "Most that is sent to one node; 0: no limit.", unit="bytes per second")
    ]
    retry_interval_s: Annotated[
        float, duration("retry-interval", "1s", "First pause before trying a node again; it doubles.", least="10ms")
    ]
    retry_max_interval_s: Annotated[
        float, duration("retry-max-interval", "1m", "Longest pause before trying a node again.", least="10ms")
    ]
    purge_interval_s: Annotated[
        float, duration("purge-interval", "1h", "Pause between two looks for kept writes that are too old.", least="1s")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class AntiEntropyConfig:
    """``[anti-entropy]``: comparing this node's copies of shards with those of other owners, and repairing them."""

    enabled: Annotated[bool, boolean("enabled", True, "Compare copies and take over what this node's lack.")]
    check_interval_s: Annotated[
        float, duration("check-interval", "10s", "Pause between two comparisons of a shard.", least="100ms")
    ]
    max_throughput_bytes: Annotated[
        int,
        size("max-throughput", 33_554_432, "Most that repair takes over; 0: no limit.", unit="bytes per second"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferConfig:
    """``[transfer]``: copying shards to this node, when they move or lost a copy."""

    max_shards: Annotated[
        int, integer("max-shards", 2, "Shards that are copied at the same time.", least=1, most=100, unit="shards")
    ]
    max_throughput_bytes: Annotated[
        int, size("max-throughput", 92_274_688, "Most that is copied; 0: no limit.", unit="bytes per second")
    ]
    retry_interval_s: Annotated[
        float, duration("retry-interval", "1s", "First pause after a copy that failed; it doubles.", least="10ms")
    ]
    retry_max_interval_s: Annotated[
        float, duration("retry-max-interval", "30s", "Longest pause after a copy that failed.", least="10ms")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration of a daemon. Two are equal if all settings are, wherever they came from."""

    reporting_disabled: Annotated[
        bool, boolean("reporting-disabled", True, "There is no usage reporting; both values mean the same.")
    ]
    bind_address: Annotated[
        str, address("bind-address", ":8088", "Node-to-node address; shared with [http] where that names the same.")
    ]
    hostname: Annotated[
        str, host("hostname", "", "Name under which other nodes reach this one; empty: found by itself.")
    ]
    join: Annotated[
        tuple[str, ...],
        join_list("join", "Meta HTTP addresses (port 8091) of members to join, separated by commas."),
    ]
    meta: MetaConfig
    data: DataConfig
    cluster: ClusterConfig
    retention: RetentionConfig
    shard_precreation: ShardPrecreationConfig
    monitor: MonitorConfig
    admin: AdminConfig
    http: HttpConfig
    subscriber: SubscriberConfig
    continuous_queries: ContinuousQueriesConfig
    hinted_handoff: HintedHandoffConfig
    anti_entropy: AntiEntropyConfig
    transfer: TransferConfig
    graphite: tuple[GraphiteConfig, ...]
    collectd: CollectdConfig
    opentsdb: OpentsdbConfig
    udp: tuple[UdpConfig, ...]
    source: Path | None = field(default=None, compare=False)
    """The file that was read; None if there was none."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each given setting came from: ``"meta.dir"`` → ``"/etc/dsdb/dsdb.conf:12"``; defaults are absent."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """Sentences for the log: what was accepted and has no effect, environment names nobody knows."""
