"""Which backups of a directory may go, and which of their files with them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dsdbd.cluster.archive import Manifest


def outdated(held: Mapping[int, Manifest], keep: int) -> list[int]:
    """Numbers of the backups that are older than the newest ``keep`` of the same scope as the newest of all.

    Backups of another scope stay. One that leaves files out, because of ``-since``, is not counted: it replaces none.
    """
    if not held:
        return []
    scope = held[max(held)].scope
    alike = sorted(number for number, one in held.items() if one.scope == scope)
    whole = [number for number in alike if all(shard.whole for shard in held[number].shards)]
    if len(whole) <= keep:
        return []
    return [number for number in alike if number < whole[-keep]]


def named_paths(manifests: Iterable[Manifest]) -> set[str]:
    """The files that manifests name, below the directory of the backups."""
    return {file.path for one in manifests for shard in one.shards for file in shard.files if file.path}
