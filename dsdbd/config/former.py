"""Settings of earlier versions, per section: read and checked so that an old file still loads, then dropped."""

from __future__ import annotations

from dsdbd.config.settings import boolean, choice, duration, fraction, integer, size

WITHOUT_EFFECT = {
    "meta": (
        boolean("raft-promotion-enabled", True, "Nodes with [meta] enabled vote as soon as they have caught up."),
    ),
    "data": (
        choice("engine", "tsm1", "There is one storage engine.", "tsm1", "b1", "bz1"),
        integer("max-points-per-block", 1000, "The file format sets its own block size.", least=1, most=1 << 31),
        size("max-wal-size", 104_857_600, "Setting of the b1 engine."),
        duration("wal-flush-interval", "10m", "Setting of the b1 engine."),
        duration("wal-partition-flush-delay", "2s", "Setting of the b1 engine."),
        size("wal-ready-series-size", 30_720, "Setting of the bz1 engine."),
        fraction("wal-compaction-threshold", 0.5, "Setting of the bz1 engine.", least=0, most=1),
        size("wal-max-series-size", 1_048_576, "Setting of the bz1 engine."),
        duration("wal-flush-cold-interval", "5s", "Setting of the bz1 engine."),
        size("wal-partition-size-threshold", 52_428_800, "Setting of the bz1 engine."),
    ),
    "cluster": (boolean("force-remote-mapping", False, "Local shards are always read locally."),),
    "http": (boolean("json-write-enabled", False, "Points are written as line protocol only."),),
    "continuous_queries": (
        integer("recompute-previous-n", 2, "Replaced by RESAMPLE in the statement.", least=0, most=1 << 31),
        duration("recompute-no-older-than", "10m", "Replaced by RESAMPLE in the statement."),
        integer("compute-runs-per-interval", 10, "Replaced by RESAMPLE in the statement.", least=0, most=1 << 31),
        duration("compute-no-more-than", "2m", "Replaced by RESAMPLE in the statement."),
    ),
}
"""Keys by section."""
