"""Rules between settings. Pure: a configuration in, every broken rule out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dsdbd.config.locate import Place
from dsdbd.config.schema import Config
from dsdbd.config.values import format_duration


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold: the settings concerned, the first being the one to name, and the sentence."""

    places: tuple[Place, ...]
    sentence: str


def broken_rules(config: Config) -> Iterator[Broken]:
    """Every rule ``config`` breaks."""
    yield from _roles(config)
    yield from _timings(config)
    yield from _tls(config)
    yield from _sizes(config)
    yield from _directories(config)


def _at(section: str, key: str, index: int | None = None) -> Place:
    return (section, index, key)


def _roles(config: Config) -> Iterator[Broken]:
    if not config.meta.enabled and not config.data.enabled:
        yield Broken(
            (_at("meta", "enabled"), _at("data", "enabled")),
            "either Meta, Data, or both must be enabled; set enabled = true in [meta] or [data]",
        )


def _timings(config: Config) -> Iterator[Broken]:
    meta, handoff = config.meta, config.hinted_handoff
    election, commit = _at("meta", "election-timeout"), _at("meta", "commit-timeout")
    if meta.election_timeout_s <= 3 * meta.commit_timeout_s:
        yield Broken(
            (election, commit),
            f"not more than three times commit-timeout ({format_duration(meta.commit_timeout_s)}), so that one late "
            "message would start an election; raise election-timeout or lower commit-timeout",
        )
    if meta.leader_lease_timeout_s >= meta.election_timeout_s:
        yield Broken(
            (_at("meta", "leader-lease-timeout"), election),
            f"not below election-timeout ({format_duration(meta.election_timeout_s)}), so that two leaders could "
            "overlap; lower leader-lease-timeout or raise election-timeout",
        )
    if handoff.retry_interval_s > handoff.retry_max_interval_s:
        yield Broken(
            (_at("hinted-handoff", "retry-interval"), _at("hinted-handoff", "retry-max-interval")),
            f"above retry-max-interval ({format_duration(handoff.retry_max_interval_s)}); lower it or raise that",
        )


def _tls(config: Config) -> Iterator[Broken]:
    for section, enabled, certificate in (
        ("meta", config.meta.https_enabled, config.meta.https_certificate),
        ("admin", config.admin.https_enabled, config.admin.https_certificate),
        ("http", config.http.https_enabled, config.http.https_certificate),
    ):
        if enabled and certificate is None:
            yield Broken(
                (_at(section, "https-enabled"), _at(section, "https-certificate")),
                f"there is no certificate; set https-certificate in [{section}] to a PEM file",
            )
    if config.opentsdb.tls_enabled and config.opentsdb.certificate is None:
        yield Broken(
            (_at("opentsdb", "tls-enabled"), _at("opentsdb", "certificate")),
            "there is no certificate; set certificate in [opentsdb] to a PEM file",
        )


def _sizes(config: Config) -> Iterator[Broken]:
    data = config.data
    if data.cache_snapshot_memory_size_bytes > data.cache_max_memory_size_bytes:
        yield Broken(
            (_at("data", "cache-snapshot-memory-size"), _at("data", "cache-max-memory-size")),
            f"above cache-max-memory-size ({data.cache_max_memory_size_bytes}), so that writes would be refused before "
            "a flush starts; lower it or raise that",
        )


def _directories(config: Config) -> Iterator[Broken]:
    used: list[tuple[Place, Path]] = [(_at("meta", "dir"), config.meta.dir)]
    if config.data.enabled:
        used += [(_at("data", "dir"), config.data.dir), (_at("data", "wal-dir"), config.data.wal_dir)]
    if config.hinted_handoff.enabled:
        used.append((_at("hinted-handoff", "dir"), config.hinted_handoff.dir))
    for position, (place, path) in enumerate(used):
        for other, other_path in used[:position]:
            if path == other_path:
                yield Broken(
                    (place, other), f"the same directory as [{other[0]}] {other[2]}; give each a directory of its own"
                )
    # Everything inside these three is taken for a database or a node, except inside the metadata's directory.
    for place, path in used:
        for other, other_path in used[1:]:
            if other_path in path.parents:
                yield Broken(
                    (place, other),
                    f"inside [{other[0]}] {other[2]} ({other_path}), where every directory is taken for stored data; "
                    "give it a directory outside",
                )
