"""Why a command is refused: a code that never changes and the sentence InfluxDB 1.x users know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LISTED_SHARDS = 10
"""A refusal names at most this many shards, so that it stays readable."""
NOT_REPLICATED = "shard not replicated"
"""How the refusal to lose a last copy begins; InfluxDB 1.x users know it."""


class Refusal(Exception):
    """Raised inside the state machine only; apply turns it into the error of a Result."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


FIXED = {
    "name_invalid": "invalid name",
    "name_too_long": "name too long",
    "retention_policy_exists": "retention policy already exists",
    "retention_policy_conflict": "retention policy conflicts with an existing policy",
    "retention_policy_too_short": "retention policy duration must be at least 1h0m0s",
    "shard_duration_too_long": "retention policy duration must be greater than the shard duration",
    "replication_too_low": "replication factor must be greater than 0",
    "user_exists": "user already exists",
    "user_not_found": "user not found",
    "username_required": "username required",
    "continuous_query_exists": "continuous query already exists",
    "subscription_exists": "subscription already exists",
    "subscription_not_found": "subscription not found",
    "shard_group_not_found": "shard group not found",
    "node_not_found": "node not found",
    "final_node": "unable to drop the final node in a cluster",
    "last_taking_node": "no data node would be left that takes new shards: add one first",
    "no_data_nodes": "at least one node required",
    "time_out_of_range": "time outside range",
}
"""Sentences without a variable part, by code."""


def fixed(code: str) -> Refusal:
    """The refusal with that code and its fixed sentence."""
    return Refusal(code, FIXED[code])


def shard_list(shard_ids: Sequence[int]) -> str:
    """The first of some shards, and how many more there are."""
    listed = ", ".join(str(shard_id) for shard_id in shard_ids[:LISTED_SHARDS])
    more = f" and {len(shard_ids) - LISTED_SHARDS} more" if len(shard_ids) > LISTED_SHARDS else ""
    return listed + more


def database_not_found(name: str) -> Refusal:
    """No database has that name."""
    return Refusal("database_not_found", f"database not found: {name}")


def policy_not_found(name: str) -> Refusal:
    """The database has no such policy."""
    return Refusal("retention_policy_not_found", f"retention policy not found: {name}")


def subscription_url_invalid(url: str) -> Refusal:
    """A destination is not an http, https or udp URL with a port."""
    return Refusal("subscription_url_invalid", f"invalid subscription URL: {url}")


def shard_not_found(shard_id: int) -> Refusal:
    """No live group has that shard."""
    return Refusal("shard_not_found", f"shard not found: {shard_id}")


def shards_not_replicated(shard_ids: Sequence[int]) -> Refusal:
    """The change would take the last copy of these shards."""
    return Refusal("shard_not_replicated", f"{NOT_REPLICATED}: {shard_list(shard_ids)}")


def too_many_groups(allowed: int) -> Refusal:
    """One command asks for more new shard groups than a write may create."""
    return Refusal(
        "too_many_shard_groups",
        f"the points need more than {allowed} new shard groups: split the write by time",
    )


def move_impossible(shard_id: int, node_id: int, reason: str) -> Refusal:
    """A copy cannot be ordered."""
    return Refusal("move_impossible", f"shard {shard_id} cannot be copied to data node {node_id}: {reason}")


def move_not_found(shard_id: int, node_id: int) -> Refusal:
    """The node says its copy is complete, but nobody waits for it (any more)."""
    return Refusal(
        "move_not_found", f"data node {node_id} is not taking a copy of shard {shard_id}: the move was cancelled"
    )


def too_many_moves(allowed: int) -> Refusal:
    """One command orders more copies than it may."""
    return Refusal("too_many_moves", f"one command may order {allowed} copies of shards: send several")
